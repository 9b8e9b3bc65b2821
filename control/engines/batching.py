"""What is read and decoded, in batches with all that others read and decode at that moment.

`read`, `read_on` and `decode` do the work of one caller. Tasks that share a
`control.engines.scheduler.Loop` share the forward passes: what waits to be read is read together,
and all answers under way take their next step together.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from control.engines import branches as branching
from control.engines import scheduler
from control.engines.adapters import Adapter, use_adapter
from control.engines.batch import CELLS, RunningBatch, SequenceGroup
from control.engines.branches import DecodeState, TokenScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LIKE = 1.5  # prompts are read together whose lengths differ by such a factor at most ...
TOKENS_AT_ONCE = 2048  # ... up to so many tokens, so that answers under way need not wait long


def read(
    model: "PreTrainedModel",
    ids: Tensor,
    mask: Tensor,
    groups: int = 1,
    whole: bool = False,
    adapter: Adapter | None = None,
) -> DecodeState:
    """Read prompts: `control.engines.branches.read`, with what others read at that moment.

    The model wears ``adapter`` meanwhile; the other arguments are as there.
    """
    prompts = Prompts(ids, mask, groups, whole)
    key = ("read", id(model), id(adapter), groups, whole)
    scheduler.current().run(key, lambda: PromptBatch(model, adapter), [prompts])
    return cast("DecodeState", prompts.result)


def read_on(
    model: "PreTrainedModel",
    state: DecodeState,
    continuations: Sequence[Sequence[list[int]]],
    layers: Sequence[int] = (),
) -> list[list[TokenScores]]:
    """Read continuations as `control.engines.branches.read_on`, together with others'."""
    work = Continuations(state, continuations)
    key = ("read on", id(model), *layers)
    scheduler.current().run(key, lambda: ContinuationBatch(model, layers), [work])
    return cast("list[list[TokenScores]]", work.result)


def decode(model: "PreTrainedModel", *groups: SequenceGroup) -> None:
    """Decode groups of answers to their ends."""
    key = ("decode", id(model))
    if branching.slides(model):  # a window counts padding, and answers that join bring some
        for group in groups:
            scheduler.current().run((*key, id(group)), lambda: RunningBatch(model), [group])
    else:
        scheduler.current().run(key, lambda: RunningBatch(model), groups)


class DecodeRequest:
    """What waits for one pass of the model.

    Attributes:
        result: What came of it.
        failure: Why nothing came of it.
    """

    result: Any = None
    failure: BaseException | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.result is not None or self.failure is not None


@dataclass(eq=False)
class Prompts(DecodeRequest):
    """Prompts to read; attributes and result as of `read`."""

    ids: Tensor
    mask: Tensor
    groups: int
    whole: bool

    @cached_property
    def longest(self) -> int:
        """The longest of them, in tokens."""
        return int(self.mask.sum(dim=1).max())


@dataclass(eq=False)
class Continuations(DecodeRequest):
    """Continuations to read; attributes and result as of `read_on`."""

    state: DecodeState
    texts: Sequence[Sequence[list[int]]]


class _OnePass(ABC):
    """Requests that wait; those that `_chosen` takes are over with the next pass, by `_do`."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def join(self, request: DecodeRequest) -> None:
        """Let a request wait."""
        self._waiting.append(request)

    def leave(self, request: DecodeRequest) -> None:
        """Let a request go, whether it is over or not."""
        if request in self._waiting:
            self._waiting.remove(request)

    def tick(self) -> None:
        """Do what was chosen of those that wait."""
        if not self._waiting:
            return
        chosen = self._chosen()
        self._waiting = [request for request in self._waiting if request not in chosen]
        try:
            with torch.inference_mode():
                self._do(chosen)
        except BaseException as error:  # raised where they are waited for
            for request in chosen:
                request.failure = error

    @abstractmethod
    def _chosen(self) -> list[Any]:
        """Those of the next pass; at least one."""

    @abstractmethod
    def _do(self, chosen: list[Any]) -> None:
        """Give each its result."""


class PromptBatch(_OnePass):
    """Prompts that wait to be read in one pass for each of their groups of rows."""

    def __init__(self, model: "PreTrainedModel", adapter: Adapter | None = None) -> None:
        """Begin empty; the model wears the adapter while it reads."""
        super().__init__()
        self._model, self._adapter = model, adapter

    def _chosen(self) -> list[Prompts]:
        """Those that have waited longest, and others of like length with them."""
        chosen = self._waiting[:1]
        if branching.slides(self._model):
            return chosen  # its caches cannot be cut where shorter prompts begin
        tokens = chosen[0].longest
        for prompts in self._waiting[1:]:
            shorter, longer = sorted((prompts.longest, chosen[0].longest))
            tokens += longer * len(prompts.ids) // prompts.groups
            if longer <= LIKE * shorter and tokens <= TOKENS_AT_ONCE:
                chosen.append(prompts)
        return chosen

    def _do(self, chosen: list[Prompts]) -> None:
        groups, whole = chosen[0].groups, chosen[0].whole
        ids = _by_group([prompts.ids for prompts in chosen], groups)
        mask = _by_group([prompts.mask for prompts in chosen], groups)
        with use_adapter(self._adapter):
            state = branching.read(self._model, ids, mask, groups, whole)
        if len(chosen) == 1:
            chosen[0].result = state
            return
        counts = [len(prompts.ids) // groups for prompts in chosen]
        of_each = [group.split(counts) for group in torch.arange(len(ids)).chunk(groups)]
        for prompts, rows in zip(chosen, zip(*of_each, strict=True), strict=True):
            prompts.result = state.copied(torch.cat(rows).tolist())
            prompts.result.trim()


class ContinuationBatch(_OnePass):
    """Continuations that wait to be read, with hidden states of the same layers."""

    def __init__(self, model: "PreTrainedModel", layers: Sequence[int]) -> None:
        """Begin empty."""
        super().__init__()
        self._model, self._layers = model, layers

    def _chosen(self) -> list[Continuations]:
        """As many as one batch may hold; one where the model looks at a sliding window."""
        chosen, rows, width = list[Continuations](), 0, 0
        for request in self._waiting:
            count, length = request.state.mask.shape
            rows, width = rows + count, max(width, length)
            if chosen and (rows * width > CELLS or branching.slides(self._model)):
                break
            chosen.append(request)
        return chosen

    def _do(self, chosen: list[Continuations]) -> None:
        states = [request.state for request in chosen]
        state = states[0] if len(states) == 1 else branching.joined(states)
        texts = [row for request in chosen for row in request.texts]
        read = iter(branching.read_on(self._model, state, texts, self._layers))
        for request in chosen:
            request.result = [next(read) for _ in request.texts]


def _by_group(parts: Sequence[Tensor], groups: int) -> Tensor:
    """Left-padded to one length: the first group of rows of every part, then the second ..."""
    length = max(part.shape[1] for part in parts)
    padded = [torch.nn.functional.pad(part, (length - part.shape[1], 0)) for part in parts]
    chunks = [part.chunk(groups) for part in padded]
    return torch.cat([rows for group in zip(*chunks, strict=True) for rows in group])
