"""Answers while they are decoded: groups of them by one rule, and the batch of all that run."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from control.decoding.rule import FLOOR
from control.decoding.rules import MixedStep, NextTokenDistribution, Rule, mix, next_token
from control.engines import branches as branching
from control.engines.adapters import Adapter, use_adapters_per_row
from control.engines.attention import can_attend_apart
from control.engines.branches import DecodeState
from control.forgetting.guard import LeakGuard

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OnStep = Callable[[Tensor, Tensor, MixedStep], None]
"""Called with the indices of the live answers (live,), their new tokens (live,), and the step."""

CELLS = 131_072  # rows by tokens that a running batch may hold; 3 GB of the packaged model
SHORT = 32  # tokens; all rows of less than twice that share a cache
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
        adapter: Worn by the model for them.
        banned: Tokens that each answer may not say, shape (n, vocabulary), bool.
        logits_processor: Applied to the rule's scores.
        stopping_criteria: Say which answers have ended.
        do_sample: Draw the token instead of taking the best.
        generator: Source of the sampling.
        on_step: Told every token, but nothing about answers that have finished.
        guards: One for each answer; what they do not allow is drawn again.
        failure: What ended it early.
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

    def advance(self, expected: NextTokenDistribution) -> tuple[Tensor, Tensor]:
        """Choose the next token of every answer.

        Args:
            expected: By each of its rows.

        Returns:
            Those of its rows that go on, and their tokens, both of the number of `rows` left.
        """
        log_p, entropy = (each.chunk(self.branches) for each in expected)
        context, memory = (
            NextTokenDistribution(log_p[0], entropy[0]),
            NextTokenDistribution(log_p[-1], entropy[-1]),
        )
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


@dataclass
class _Part:
    """Rows of like length, and which of the batch's they are."""

    state: DecodeState
    numbers: Tensor


class RunningBatch:
    """Groups whose next tokens come from one forward pass.

    Where the model can attend to several caches (`control.engines.attention`), no row is padded to
    more than about twice its length.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        """Begin empty."""
        self._model = model
        self._slides = branching.slides(model)
        self._apart = not self._slides and can_attend_apart(model)
        self._parts: dict[int, _Part] = {}  # by the length of their rows
        self._rows: dict[SequenceGroup, Tensor] = {}  # which of the batch's are each group's
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
            self._rows, self._joining, self._parts = {}, [], {}

    def _step(self) -> None:
        self._close_up()
        self._take_in()
        if not self._rows:
            return
        states = [part.state for part in self._parts.values()]
        logits = torch.cat([state.logits for state in states])
        tokens = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        log_p, entropy = next_token(logits)
        for group, rows in list(self._rows.items()):
            try:
                going, said = group.advance(NextTokenDistribution(log_p[rows], entropy[rows]))
                self._rows[group] = rows[going]
                tokens[rows[going]] = said
            except BaseException as error:  # as in `tick`, of this group alone
                group.failure = error
            if group.over:
                del self._rows[group]
        if self._rows:
            with use_adapters_per_row(self._wearing()):
                branching.step(self._model, states, tokens)

    def _wearing(self) -> dict[Adapter | None, Tensor]:
        """The rows that wear each adapter."""
        wearing = defaultdict[Adapter | None, list[Tensor]](list)
        for group, rows in self._rows.items():
            wearing[group.adapter].append(rows)
        return {adapter: torch.cat(rows) for adapter, rows in wearing.items()}

    def _take_in(self) -> None:
        """Take in those who have joined, as far as there is room for them."""
        taken = self._joining[: self._fitting()]
        if not taken:
            return
        number = sum(len(part.numbers) for part in self._parts.values())
        joining = defaultdict[int, list[_Part]](list)
        for group in taken:
            numbers = torch.arange(number, number + group.rows, device=group.state.mask.device)
            for length, rows in self._by_length(group.state).items():
                joining[length].append(_Part(_trimmed(group.state, rows), numbers[rows]))
            self._rows[group] = numbers
            number += group.rows
        for length, new in joining.items():
            parts = [self._parts[length], *new] if length in self._parts else new
            states = [part.state for part in parts]
            # What slides is a group of its own, see `control.engines.batching.decode`.
            state = states[0] if self._slides else branching.joined(states)
            self._parts[length] = _Part(state, torch.cat([part.numbers for part in parts]))
        del self._joining[: len(taken)]
        self._number()

    def _by_length(self, state: DecodeState) -> dict[int, list[int]]:
        """Its rows, those of like length together."""
        found = defaultdict[int, list[int]](list)
        for row, length in enumerate(state.mask.sum(dim=1).tolist()):
            found[max(length, SHORT).bit_length() if self._apart else 0].append(row)
        return found

    def _fitting(self) -> int:
        """How many of those who wait to join can; one always can where nobody else is."""
        cells = sum(part.state.mask.numel() for part in self._parts.values())
        for place, group in enumerate(self._joining):
            cells += group.state.mask.numel()
            if cells > CELLS and (place or self._parts):
                return place
        return len(self._joining)

    def _close_up(self) -> None:
        """Drop rows of those who left where they are many: it copies what the others read."""
        changed = False
        for length, part in list(self._parts.items()):
            live = [torch.isin(part.numbers, rows) for rows in self._rows.values()]
            kept = torch.stack(live).any(dim=0).nonzero()[:, 0] if live else part.numbers[:0]
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
            self._number()

    def _number(self) -> None:
        """Number the rows as they now stand."""
        if not self._parts:
            return
        before = torch.cat([part.numbers for part in self._parts.values()])
        now = before.new_zeros(int(before.max()) + 1)
        now[before] = torch.arange(len(before), device=before.device)
        self._rows = {group: now[rows] for group, rows in self._rows.items()}
        for part in self._parts.values():
            part.numbers = now[part.numbers]


def _trimmed(state: DecodeState, rows: list[int]) -> DecodeState:
    """These rows, without padding that all of them have."""
    if len(rows) == len(state.mask):
        return state
    part = state.copied(rows)
    part.trim()
    return part
