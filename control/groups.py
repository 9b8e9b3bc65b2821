"""Answers while they are decoded: groups of them by one rule, and the batch of all that run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from control import branches as branching
from control.adapters import Adapter, worn
from control.branches import Branches
from control.forgetting.guard import Guard
from control.mixture import FLOOR
from control.rules import Rule, Step, mix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OnStep = Callable[[Tensor, Tensor, Step], None]
"""Called with the indices of the live answers (live,), their new tokens (live,), and the step."""


@dataclass(eq=False)
class SequenceGroup:
    """Answers that go on from what has been read, by one rule, until every one has stopped.

    Attributes:
        state: What has been read, (branches * n) rows: those with the passages, then those
            without. It is used up.
        ids: Shape (n, length); the answers are appended to it, and processors and criteria see it.
        rule: The token rule.
        alpha: Shape (n, 1), or ``None`` for adaptive.
        branches: 2, or 1 if every row is an answer of its own.
        banned: Tokens that each answer may not say, shape (n, vocabulary), bool.
        logits_processor: Applied to the rule's scores.
        stopping_criteria: Say which answers have ended.
        do_sample: Draw the token instead of taking the best.
        generator: Source of the sampling.
        on_step: Told every token, but nothing about answers that have finished.
        guards: One for each answer; what they do not allow is drawn again.
        failure: What ended it early.
    """

    state: Branches
    ids: Tensor
    rule: Rule
    alpha: Tensor | None = None
    branches: int = 2
    banned: Tensor | None = None
    logits_processor: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    stopping_criteria: StoppingCriteriaList = field(default_factory=StoppingCriteriaList)
    do_sample: bool = False
    generator: torch.Generator | None = None
    on_step: OnStep | None = None
    guards: Sequence[Guard] | None = None
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        """Number the answers, of which none has finished."""
        self._answers = torch.arange(self.ids.shape[0], device=self.ids.device)
        self._finished: list[tuple[Tensor, Tensor]] = []

    @property
    def rows(self) -> int:
        """How many rows of the batch belong to answers that go on."""
        return self.branches * len(self._answers)

    @property
    def over(self) -> bool:
        """Whether every answer has stopped, or it failed."""
        return self.failure is not None or not len(self._answers)

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose the next token of every answer.

        Args:
            logits: Of its rows, shape (rows, vocabulary).

        Returns:
            Those of its rows that go on, and their tokens, both of the number of `rows` left.
        """
        by_branch = logits.chunk(self.branches)
        step = mix(self.rule, by_branch[0], by_branch[-1], self.alpha)
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
        going = torch.arange(len(self.ids), device=tokens.device)
        if stopped.any():
            # Finished answers leave the batch: the others need not wait for the longest.
            self._finished.append((self._answers[stopped], self.ids[stopped]))
            going, held = going[~stopped], len(self.ids)
            self.ids, self._answers = self.ids[going], self._answers[going]
            if self.alpha is not None:
                self.alpha = self.alpha[going]
            if self.banned is not None:
                self.banned = self.banned[going]
            rows = torch.cat([going + branch * held for branch in range(self.branches)])
        else:
            rows = torch.arange(len(logits), device=tokens.device)
        return rows, tokens[going].repeat(self.branches)

    def gathered(self, pad: int) -> Tensor:
        """All answers in order, those that finished early filled up on the right with ``pad``."""
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


class RunningBatch:
    """Groups whose next tokens come from one forward pass."""

    def __init__(self, model: "PreTrainedModel", adapter: Adapter | None = None) -> None:
        """Begin empty.

        Args:
            model: A causal language model.
            adapter: Worn by it for these groups.
        """
        self._model, self._adapter = model, adapter
        self._state: Branches | None = None
        self._rows: dict[SequenceGroup, int] = {}  # how many of the state's are each group's

    @property
    def empty(self) -> bool:
        """Whether no group is left in it."""
        return not self._rows

    def join(self, group: SequenceGroup) -> None:
        """Take a group in, from its next token on."""
        if self._state is None:
            self._state = group.state
        else:
            self._state.join(group.state)
        self._rows[group] = group.rows

    def leave(self, group: SequenceGroup) -> None:
        """Let a group go, whether it is over or not."""
        if group in self._rows:
            self._keep({group: torch.arange(0)})

    def tick(self) -> None:
        """Decode the next token of every group; whoever fails leaves."""
        if self._state is None:
            return
        with torch.inference_mode():
            logits = self._state.logits.split(list(self._rows.values()))
            going, tokens = dict[SequenceGroup, Tensor](), list[Tensor]()
            for group, own in zip(self._rows, logits, strict=True):
                try:
                    going[group], said = group.advance(own)
                    tokens.append(said)
                except BaseException as error:  # raised where the group is waited for
                    group.failure, going[group] = error, torch.arange(0)
            self._keep(going)
            if self._state is None:
                return
            try:
                with worn(self._adapter):
                    branching.step(self._model, self._state, torch.cat(tokens))
            except BaseException as error:
                for group in self._rows:
                    group.failure = error
                self._rows, self._state = {}, None

    def _keep(self, going: dict[SequenceGroup, Tensor]) -> None:
        """Keep of these groups the rows given, and all rows of the others."""
        if self._state is None:
            return
        device, start = self._state.mask.device, 0
        kept, left = list[Tensor](), dict[SequenceGroup, int]()
        for group, count in self._rows.items():
            own = going.get(group, torch.arange(count)).to(device)
            kept.append(own + start)
            start += count
            if len(own):
                left[group] = len(own)
        self._rows = left
        if not left:
            self._state = None
        elif sum(left.values()) < start:
            self._state.select(torch.cat(kept))
            self._state.trim()
