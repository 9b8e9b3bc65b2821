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
from control.rules import Outlook, Rule, Step, mix, outlook

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OnStep = Callable[[Tensor, Tensor, Step], None]
"""Called with the indices of the live answers (live,), their new tokens (live,), and the step."""

CELLS = 131_072  # rows by tokens that a running batch may hold; 3 GB of the packaged model
FULL = 0.75  # share of live rows below which the others are dropped from a running batch


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

    def advance(self, expected: Outlook) -> tuple[Tensor, Tensor]:
        """Choose the next token of every answer.

        Args:
            expected: By each of its rows.

        Returns:
            Those of its rows that go on, and their tokens, both of the number of `rows` left.
        """
        log_p, entropy = (each.chunk(self.branches) for each in expected)
        context, memory = Outlook(log_p[0], entropy[0]), Outlook(log_p[-1], entropy[-1])
        step = mix(self.rule, context, memory, self.alpha)
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
            rows = torch.arange(self.rows, device=tokens.device)
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
        self._rows: dict[SequenceGroup, Tensor] = {}  # which of the state's are each group's
        self._joining: list[SequenceGroup] = []

    @property
    def empty(self) -> bool:
        """Whether no group is left in it."""
        return not self._rows and not self._joining

    def join(self, group: SequenceGroup) -> None:
        """Take a group in, from its next token on."""
        self._joining.append(group)

    def leave(self, group: SequenceGroup) -> None:
        """Let a group go, whether it is over or not."""
        if group in self._joining:
            self._joining.remove(group)
        self._rows.pop(group, None)

    def tick(self) -> None:
        """Decode the next token of every group; whoever fails leaves."""
        try:
            with torch.inference_mode():
                self._step()
        except BaseException as error:  # raised where the groups are waited for
            for group in [*self._rows, *self._joining]:
                group.failure = error
            self._rows, self._joining, self._state = {}, [], None

    def _step(self) -> None:
        self._close_up()
        self._take_in()
        if self._state is None:
            return
        tokens = self._state.mask.new_zeros(len(self._state.mask))
        log_p, entropy = outlook(self._state.logits)
        for group, rows in list(self._rows.items()):
            try:
                going, said = group.advance(Outlook(log_p[rows], entropy[rows]))
                self._rows[group] = rows[going]
                tokens[rows[going]] = said
            except BaseException as error:  # as in `tick`, of this group alone
                group.failure = error
            if group.over:
                del self._rows[group]
        if not self._rows:
            self._state = None
            return
        with worn(self._adapter):
            branching.step(self._model, self._state, tokens)

    def _take_in(self) -> None:
        """Take in those who have joined since the last token, as far as there is room for them."""
        taken = self._joining[: self._fitting()]
        if not taken:
            return
        states = [group.state for group in taken]
        start = 0 if self._state is None else len(self._state.mask)
        if branching.slides(self._model):
            [self._state] = states  # a group of its own, see `control.batching.decode`
        else:
            self._state = branching.joined([*filter(None, [self._state]), *states])
        for group in taken:
            device = self._state.mask.device
            self._rows[group] = torch.arange(start, start + group.rows, device=device)
            start += group.rows
        del self._joining[: len(taken)]

    def _fitting(self) -> int:
        """How many of those who wait to join can; one always can where nobody else is."""
        rows, width = (0, 0) if self._state is None else self._state.mask.shape
        for place, group in enumerate(self._joining):
            rows, width = rows + group.rows, max(width, group.state.mask.shape[1])
            if rows * width > CELLS and (place or self._state is not None):
                return place
        return len(self._joining)

    def _close_up(self) -> None:
        """Drop the rows of those who left once they are many: it copies what the others read."""
        if self._state is None:
            return
        if not self._rows:
            self._state = None
            return
        live = torch.cat(list(self._rows.values()))
        if len(live) > FULL * len(self._state.mask):
            return
        self._state.select(live)
        self._state.trim()
        counts = [len(rows) for rows in self._rows.values()]
        places = torch.arange(len(live), device=live.device).split(counts)
        self._rows = dict(zip(self._rows, places, strict=True))
