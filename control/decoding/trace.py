"""Where each token of an answer came from."""

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from control.decoding.rules import MixedStep

Source = Literal["context", "memory", "both"]
CHOICES = 3  # of each branch, kept with every token


@dataclass(frozen=True)
class Choice:
    """A candidate for the next token and its probability in one branch, in [0, 1]."""

    text: str
    probability: float


@dataclass(frozen=True)
class TokenTrace:
    """One token of an answer; ``None`` is what its engine does not tell.

    Attributes:
        text: What it adds to the answer; empty while a character is still incomplete.
        confidence_gain: Entropy without the passages minus entropy with them, in nats; negative
            where the passages disagree with the model's memory (CK-PLUG, eq. 4).
        entropy_context: Entropy of the next token with the passages, in nats.
        entropy_memory: The same without them.
        mixed: Whether the rule mixed the branches here.
        source: The branch whose first choice it was; else the one that gave it more probability.
        disputed: Whether the two first choices differ and memory is not much less certain
            (``H(p_m) < 2 H(p_c)``, the gate of the released CK-PLUG code).
        context_choices: The context branch's three most probable tokens, best first.
        memory_choices: The same of the memory branch.
        log_p_context: The token's log-probability in the context branch.
        log_p_memory: The same in the memory branch.
    """

    text: str
    confidence_gain: float | None
    entropy_context: float | None
    entropy_memory: float | None
    mixed: bool
    source: Source
    disputed: bool
    context_choices: list[Choice]
    memory_choices: list[Choice]
    log_p_context: float | None
    log_p_memory: float | None


@dataclass
class Trace:
    """Collects the tokens of one answer.

    Attributes:
        has_passages: Whether there are two branches.
        tokens: The trace of each token.
        text: The answer.
        withheld: Ids of the forgotten facts that the guard kept out of it.
        blocked: Whether the guard blocked the whole answer.
    """

    has_passages: bool
    tokens: list[TokenTrace] = field(default_factory=list)
    text: str = ""
    withheld: list[str] = field(default_factory=list)
    blocked: bool = False

    @property
    def disputed(self) -> bool:
        """Whether any token is disputed, with two branches."""
        return self.has_passages and any(token.disputed for token in self.tokens)

    def append(self, token: TokenTrace) -> None:
        """Append a token."""
        self.tokens.append(token)
        self.text += token.text

    def until(self, characters: int) -> Self:
        """The trace cut after ``characters`` characters, in the midst of a token if need be."""
        kept, length = list[TokenTrace](), 0
        for token in self.tokens:
            left = characters - length
            if len(token.text) > left:
                kept += [replace(token, text=token.text[:left])] if left > 0 else []
                break
            kept.append(token)
            length += len(token.text)
        return self._cut(kept, self.text[:characters])

    def _cut(self, tokens: list[TokenTrace], text: str) -> Self:
        return replace(self, tokens=tokens, text=text)


def written(text: str) -> Trace:
    """The trace of a text about the passages that no branch has decoded, a word to a token."""
    trace = Trace(has_passages=True)
    for word in re.findall(r"\s*\S+", text):
        trace.append(
            TokenTrace(word, None, None, None, False, "context", False, [], [], None, None)
        )
    return trace


@dataclass
class DecodingTrace(Trace):
    """The trace of an answer that is decoded here, with the scores of both branches.

    Attributes:
        tokenizer: Of the model.
        ids: The tokens' ids.
    """

    tokenizer: "PreTrainedTokenizerBase" = field(kw_only=True)
    ids: list[int] = field(default_factory=list)

    def add(self, token: int, row: "StepRow") -> TokenTrace:
        """Append a token and return its trace."""
        self.ids.append(token)
        # Only all ids together decode to the right spaces and multi-token characters.
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        new = "" if text.endswith("\N{REPLACEMENT CHARACTER}") else text[len(self.text) :]
        trace = TokenTrace(
            text=new,
            confidence_gain=row.entropy_memory - row.entropy_context,
            entropy_context=row.entropy_context,
            entropy_memory=row.entropy_memory,
            mixed=row.mixed,
            source=row.source(token, self.has_passages),
            disputed=row.context_best[0] != row.memory_best[0]
            and row.entropy_memory < 2 * row.entropy_context,
            context_choices=self._choices(row.context_best, row.context_log_p),
            memory_choices=self._choices(row.memory_best, row.memory_log_p),
            log_p_context=row.log_p_context,
            log_p_memory=row.log_p_memory,
        )
        self.append(trace)
        return trace

    def _cut(self, tokens: list[TokenTrace], text: str) -> Self:
        return replace(super()._cut(tokens, text), ids=self.ids[: len(tokens)])

    def _choices(self, ids: list[int], log_p: list[float]) -> list[Choice]:
        return [
            Choice(self.tokenizer.decode([token]), math.exp(value))
            for token, value in zip(ids, log_p, strict=True)
        ]


@dataclass(frozen=True)
class StepRow:
    """One sequence's row of a decoding step, on the host.

    ``*_best`` are the ``CHOICES`` most probable tokens of a branch, ``*_log_p`` their
    log-probabilities; ``log_p_*`` are the branches' log-probabilities of the token chosen.
    """

    entropy_context: float
    entropy_memory: float
    mixed: bool
    context_best: list[int]
    memory_best: list[int]
    context_log_p: list[float]
    memory_log_p: list[float]
    log_p_context: float
    log_p_memory: float

    def source(self, token: int, has_passages: bool) -> Source:
        """The branch that chose ``token``."""
        if not has_passages:
            return "memory"
        if self.context_best[0] == self.memory_best[0] == token:
            return "both"
        if token == self.context_best[0]:
            return "context"
        if token == self.memory_best[0]:
            return "memory"
        return "context" if self.log_p_context >= self.log_p_memory else "memory"


def rows(step: "MixedStep", tokens: "torch.Tensor") -> list[StepRow]:
    """Copy a step of shape (batch, ...) to the host in one transfer.

    Args:
        step: Both branches' log-probabilities and entropies.
        tokens: The chosen tokens, shape (batch,).
    """
    import torch

    columns = [
        step.entropy_context,
        step.entropy_memory,
        step.mixed,
        step.log_p_c.gather(1, tokens[:, None])[:, 0],
        step.log_p_m.gather(1, tokens[:, None])[:, 0],
    ]
    for log_p in (step.log_p_c, step.log_p_m):
        best = log_p.topk(min(CHOICES, log_p.shape[-1]), dim=-1)
        columns += [*best.indices.unbind(dim=1), *best.values.unbind(dim=1)]
    table = torch.stack([column.double() for column in columns], dim=1).tolist()
    return [_row(line[:5], line[5:]) for line in table]


def _row(numbers: list[float], best: list[float]) -> StepRow:
    """A line of the table; ``best`` holds ids and log-probabilities, context then memory."""
    k = len(best) // 4
    context_ids, context_log_p, memory_ids, memory_log_p = (
        best[start : start + k] for start in range(0, 4 * k, k)
    )
    entropy_context, entropy_memory, mixed, log_p_context, log_p_memory = numbers
    return StepRow(
        entropy_context,
        entropy_memory,
        bool(mixed),
        [int(token) for token in context_ids],
        [int(token) for token in memory_ids],
        context_log_p,
        memory_log_p,
        log_p_context,
        log_p_memory,
    )
