"""Batched passes of the model: prompts, continuations and decoding steps of all callers together.

`read`, `read_on` and `decode` serve one caller. Tasks that share a
`control.engines.scheduler.Scheduler` share the forward passes: waiting prompts are read together,
and all running answers take their next step together.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from control.decoding.contrastive import FLOOR
from control.decoding.rules import MixedStep, NextTokenDistribution, Rule, mix, next_token
from control.engines import branches as branching
from control.engines import scheduler
from control.engines.adapters import Adapter, use_adapter, use_adapters_per_row
from control.engines.branches import DecodeState, TokenScores
from control.engines.caches import use_row_caches
from control.forgetting.guard import LeakGuard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OnStep = Callable[[Tensor, Tensor, MixedStep], None]
"""Called with the indices of the running answers (n,), their new tokens (n,), and the step."""

CELLS = 131_072  # rows by tokens that a running batch may hold; 3 GB of the packaged model
SHORT = 32  # tokens; all rows of less than twice that share a cache
FULL = 0.75  # share of running rows below which the others are dropped from a running batch
LIKE = 1.5  # prompts are read together whose lengths differ by such a factor at most ...
TOKENS_AT_ONCE = 2048  # ... up to so many tokens, so that running answers need not wait long


def read(
    model: "PreTrainedModel",
    ids: Tensor,
    mask: Tensor,
    groups: int = 1,
    whole: bool = False,
    adapter: Adapter | None = None,
) -> DecodeState:
    """Read prompts as `control.engines.branches.read`, batched with those of other tasks.

    ``adapter`` is on the model meanwhile; the other arguments are as there.
    """
    prompts = PromptRequest(ids, mask, groups, whole)
    key = ("read", id(model), id(adapter), groups, whole)
    scheduler.current().run(key, lambda: PromptBatch(model, adapter), [prompts])
    return cast("DecodeState", prompts.result)


def read_on(
    model: "PreTrainedModel",
    state: DecodeState,
    continuations: Sequence[Sequence[list[int]]],
    layers: Sequence[int] = (),
) -> list[list[TokenScores]]:
    """Score continuations as `control.engines.branches.read_on`, batched with other tasks'."""
    request = ContinuationRequest(state, continuations)
    key = ("read on", id(model), *layers)
    scheduler.current().run(key, lambda: ContinuationBatch(model, layers), [request])
    return cast("list[list[TokenScores]]", request.result)


def decode(model: "PreTrainedModel", *groups: "SequenceGroup") -> None:
    """Decode groups of answers to their ends."""
    key = ("decode", id(model))
    if branching.slides(model):  # a window counts padding, and answers that join bring some
        for group in groups:
            scheduler.current().run((*key, id(group)), lambda: RunningBatch(model), [group])
    else:
        scheduler.current().run(key, lambda: RunningBatch(model), groups)


@dataclass(eq=False)
class SequenceGroup:
    """Answers that are decoded from one state, by one rule, until every one has stopped.

    Attributes:
        state: The prompts that were read, (branches * n) rows: those with the passages, then those
            without. It is used up.
        ids: Shape (n, length); the answers are appended to it, and processors and criteria see it.
        rule: The token rule.
        alpha: Shape (n, 1), or ``None`` for adaptive.
        branches: 2, or 1 if every row is an answer of its own.
        adapter: On the model for these rows.
        banned: Tokens that are not allowed in each answer, shape (n, vocabulary), bool.
        logits_processor: Applied to the rule's scores.
        stopping_criteria: Tell which answers have ended.
        do_sample: Draw the token instead of taking the best.
        generator: Source of the sampling.
        on_step: Called with every step of the answers that have not finished.
        guards: One for each answer; a token that its guard does not allow is drawn again.
        failure: The error that ended it early.
    """

    state: DecodeState
    ids: Tensor
    rule: Rule
    alpha: Tensor | None = None
    branches: int = 2
    adapter: Adapter | None = None
    banned: Tensor | None = None
    logits_processor: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    stopping_criteria: StoppingCriteriaList = field(default_factory=StoppingCriteriaList)
    do_sample: bool = False
    generator: torch.Generator | None = None
    on_step: OnStep | None = None
    guards: Sequence[LeakGuard] | None = None
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        """Number the answers; none has finished."""
        self._answers = torch.arange(self.ids.shape[0], device=self.ids.device)
        self._rule_state: Tensor | None = None
        self._finished: list[tuple[Tensor, Tensor]] = []

    @property
    def rows(self) -> int:
        """How many rows of the batch belong to running answers."""
        return self.branches * len(self._answers)

    @property
    def done(self) -> bool:
        """Whether every answer has stopped, or it failed."""
        return self.failure is not None or not len(self._answers)

    def advance(self, expected: NextTokenDistribution) -> tuple[Tensor, Tensor]:
        """Choose the next token of every answer.

        Args:
            expected: The distribution of each of its rows.

        Returns:
            The indices of its rows that go on, and their tokens, both of length `rows` as it is
            then.
        """
        log_p, entropy = (each.chunk(self.branches) for each in expected)
        context, memory = (
            NextTokenDistribution(log_p[0], entropy[0]),
            NextTokenDistribution(log_p[-1], entropy[-1]),
        )
        step = mix(self.rule, context, memory, self.alpha, self._rule_state)
        self._rule_state = step.state
        scores = step.scores if self.banned is None else step.scores.masked_fill(self.banned, FLOOR)
        scores = self.logits_processor(self.ids, scores)
        tokens = self._draw(scores)
        if self.guards is not None:
            allowed = [
                self.guards[answer].allowed(row, token, lambda left: int(self._draw(left)))
                for answer, row, token in zip(
                    self._answers.tolist(), scores, tokens.tolist(), strict=True
                )
            ]
            tokens = torch.tensor(allowed, device=tokens.device)
        if self.on_step is not None:
            self.on_step(self._answers, tokens, step)
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        stopped = self.stopping_criteria(self.ids, scores)
        running = torch.arange(len(self.ids), device=tokens.device)
        if stopped.any():
            # Finished answers leave the batch: the others need not wait for the longest.
            self._finished.append((self._answers[stopped], self.ids[stopped]))
            running, count = running[~stopped], len(self.ids)
            self.ids, self._answers = self.ids[running], self._answers[running]
            if self.alpha is not None:
                self.alpha = self.alpha[running]
            if self.banned is not None:
                self.banned = self.banned[running]
            if self._rule_state is not None:
                self._rule_state = self._rule_state[running]
            rows = torch.cat([running + branch * count for branch in range(self.branches)])
        else:
            rows = torch.arange(self.rows, device=tokens.device)
        return rows, tokens[running].repeat(self.branches)

    def gathered(self, pad: int) -> Tensor:
        """All answers in order, shorter ones filled up on the right with ``pad``."""
        longest = self._finished[-1][1].shape[1]
        padded = [
            torch.nn.functional.pad(ids, (0, longest - ids.shape[1]), value=pad)
            for _, ids in self._finished
        ]
        order = torch.cat([answers for answers, _ in self._finished])
        return torch.cat(padded)[order.argsort()]

    def _draw(self, scores: Tensor) -> Tensor:
        """A token for each row of scores, shape (..., vocabulary)."""
        if self.do_sample:
            return torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator)[..., 0]
        return scores.argmax(dim=-1)


@dataclass
class _Part:
    """Rows of similar length, and their numbers in the batch."""

    state: DecodeState
    numbers: Tensor


class RunningBatch:
    """Groups whose next tokens come from one forward pass.

    Where the model can attend to several caches (`control.engines.caches.use_row_caches`), no row
    is padded to more than about twice its length.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        """Begin empty."""
        self._model = model
        self._slides = branching.slides(model)
        self._row_caches = not self._slides and use_row_caches(model)
        self._parts: dict[int, _Part] = {}  # by the length of their rows
        self._rows: dict[SequenceGroup, Tensor] = {}  # each group's rows of the batch
        self._joining: list[SequenceGroup] = []

    @property
    def empty(self) -> bool:
        """Whether it holds no group."""
        return not self._rows and not self._joining

    def add(self, group: SequenceGroup) -> None:
        """Add a group, from its next token on."""
        self._joining.append(group)

    def remove(self, group: SequenceGroup) -> None:
        """Remove a group, whether it is done or not."""
        if group in self._joining:
            self._joining.remove(group)
        self._rows.pop(group, None)

    def step(self) -> None:
        """Decode the next token of every group; a group that fails is removed."""
        try:
            with torch.inference_mode():
                self._step()
        except BaseException as error:  # raised where the groups are waited for
            for group in [*self._rows, *self._joining]:
                group.failure = error
            self._rows, self._joining, self._parts = {}, [], {}

    def _step(self) -> None:
        self._drop_finished()
        self._admit()
        if not self._rows:
            return
        states = [part.state for part in self._parts.values()]
        logits = torch.cat([state.logits for state in states])
        tokens = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        log_p, entropy = next_token(logits)
        for group, rows in list(self._rows.items()):
            try:
                running, chosen = group.advance(NextTokenDistribution(log_p[rows], entropy[rows]))
                self._rows[group] = rows[running]
                tokens[rows[running]] = chosen
            except BaseException as error:  # as in `step`, of this group alone
                group.failure = error
            if group.done:
                del self._rows[group]
        if self._rows:
            with use_adapters_per_row(self._rows_by_adapter()):
                branching.step(self._model, states, tokens)

    def _rows_by_adapter(self) -> dict[Adapter | None, Tensor]:
        found = defaultdict[Adapter | None, list[Tensor]](list)
        for group, rows in self._rows.items():
            found[group.adapter].append(rows)
        return {adapter: torch.cat(rows) for adapter, rows in found.items()}

    def _admit(self) -> None:
        """Move waiting groups into the batch, as far as there is room."""
        admitted = self._joining[: self._fitting()]
        if not admitted:
            return
        number = sum(len(part.numbers) for part in self._parts.values())
        joining = defaultdict[int, list[_Part]](list)
        for group in admitted:
            numbers = torch.arange(number, number + group.rows, device=group.state.mask.device)
            for length, rows in self._by_length(group.state).items():
                joining[length].append(_Part(_trimmed(group.state, rows), numbers[rows]))
            self._rows[group] = numbers
            number += group.rows
        for length, new in joining.items():
            parts = [self._parts[length], *new] if length in self._parts else new
            states = [part.state for part in parts]
            # With a sliding window, the group is alone in its batch: see `decode`.
            state = states[0] if self._slides else branching.joined(states)
            self._parts[length] = _Part(state, torch.cat([part.numbers for part in parts]))
        del self._joining[: len(admitted)]
        self._renumber()

    def _by_length(self, state: DecodeState) -> dict[int, list[int]]:
        """Its rows by the power of two of their length; all in one where caches are not split."""
        found = defaultdict[int, list[int]](list)
        for row, length in enumerate(state.mask.sum(dim=1).tolist()):
            found[max(length, SHORT).bit_length() if self._row_caches else 0].append(row)
        return found

    def _fitting(self) -> int:
        """How many of the waiting groups fit; the first always does in an empty batch."""
        cells = sum(part.state.mask.numel() for part in self._parts.values())
        for place, group in enumerate(self._joining):
            cells += group.state.mask.numel()
            if cells > CELLS and (place or self._parts):
                return place
        return len(self._joining)

    def _drop_finished(self) -> None:
        """Drop rows of finished answers where they are many: it copies all other rows."""
        changed = False
        for length, part in list(self._parts.items()):
            running = [torch.isin(part.numbers, rows) for rows in self._rows.values()]
            kept = torch.stack(running).any(dim=0).nonzero()[:, 0] if running else part.numbers[:0]
            if not len(kept):
                del self._parts[length]
            elif len(kept) <= FULL * len(part.numbers):
                part.state.select(kept)
                part.state.trim()
                part.numbers = part.numbers[kept]
            else:
                continue
            changed = True
        if changed:
            self._renumber()

    def _renumber(self) -> None:
        """Number the rows in the order of the parts."""
        if not self._parts:
            return
        before = torch.cat([part.numbers for part in self._parts.values()])
        now = before.new_zeros(int(before.max()) + 1)
        now[before] = torch.arange(len(before), device=before.device)
        self._rows = {group: now[rows] for group, rows in self._rows.items()}
        for part in self._parts.values():
            part.numbers = now[part.numbers]


def _trimmed(state: DecodeState, rows: list[int]) -> DecodeState:
    """These rows, without the padding that all of them have."""
    if len(rows) == len(state.mask):
        return state
    part = state.copied(rows)
    part.trim()
    return part


@dataclass(eq=False)
class _Request:
    """Waits for one pass of the model.

    Attributes:
        result: Of the pass.
        failure: The error that ended it.
    """

    result: Any = field(default=None, init=False)
    failure: BaseException | None = field(default=None, init=False)

    @property
    def done(self) -> bool:
        """Whether it has a result or a failure."""
        return self.result is not None or self.failure is not None


@dataclass(eq=False)
class PromptRequest(_Request):
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
class ContinuationRequest(_Request):
    """Continuations to score; attributes and result as of `read_on`."""

    state: DecodeState
    texts: Sequence[Sequence[list[int]]]


class _RequestBatch(ABC):
    """Waiting requests; each step chooses some of them and runs these to their ends."""

    def __init__(self) -> None:
        self._waiting: list[Any] = []

    @property
    def empty(self) -> bool:
        """Whether no request waits."""
        return not self._waiting

    def add(self, request: _Request) -> None:
        """Add a request."""
        self._waiting.append(request)

    def remove(self, request: _Request) -> None:
        """Remove a request, whether it is done or not."""
        if request in self._waiting:
            self._waiting.remove(request)

    def step(self) -> None:
        """Run the requests chosen for this pass."""
        if not self._waiting:
            return
        chosen = self._choose()
        self._waiting = [request for request in self._waiting if request not in chosen]
        try:
            with torch.inference_mode():
                self._run(chosen)
        except BaseException as error:  # raised where they are waited for
            for request in chosen:
                request.failure = error

    @abstractmethod
    def _choose(self) -> list[Any]:
        """The requests of the next pass; at least one."""

    @abstractmethod
    def _run(self, chosen: list[Any]) -> None:
        """Give each its result."""


class PromptBatch(_RequestBatch):
    """Prompts that are read in one pass for each of their groups of rows."""

    def __init__(self, model: "PreTrainedModel", adapter: Adapter | None = None) -> None:
        """Begin empty; the adapter is on the model while it reads."""
        super().__init__()
        self._model, self._adapter = model, adapter

    def _choose(self) -> list[PromptRequest]:
        """The request that has waited longest, and others of similar length."""
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

    def _run(self, chosen: list[PromptRequest]) -> None:
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


class ContinuationBatch(_RequestBatch):
    """Continuations that are scored in one pass, with hidden states of the same layers."""

    def __init__(self, model: "PreTrainedModel", layers: Sequence[int]) -> None:
        """Begin empty."""
        super().__init__()
        self._model, self._layers = model, layers

    def _choose(self) -> list[ContinuationRequest]:
        """As many as one batch may hold; one where the model has a sliding window."""
        chosen, rows, width = list[ContinuationRequest](), 0, 0
        for request in self._waiting:
            count, length = request.state.mask.shape
            rows, width = rows + count, max(width, length)
            if chosen and (rows * width > CELLS or branching.slides(self._model)):
                break
            chosen.append(request)
        return chosen

    def _run(self, chosen: list[ContinuationRequest]) -> None:
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
