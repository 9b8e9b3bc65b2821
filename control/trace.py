"""Where each token of an answer came from."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from control.rules import Step

Source = Literal["context", "memory", "both"]


@dataclass(frozen=True)
class TokenTrace:
    """One token of an answer.

    Attributes:
        text: What it adds to the answer; empty while a character is still incomplete.
        confidence_gain: Entropy without the passages minus entropy with them, in nats; negative
            where the passages disagree with the model's memory (CK-PLUG, eq. 4).
        entropy_context: Entropy of the next token with the passages, in nats.
        entropy_memory: The same without them.
        mixed: Whether the rule stepped in.
        source: Whose first choice it was; where it was neither's, who found it more probable.
        disputed: Whether the two first choices differ and memory is not much the less certain
            one (``H(p_m) < 2 H(p_c)``, the gate of the released CK-PLUG code).
    """

    text: str
    confidence_gain: float
    entropy_context: float
    entropy_memory: float
    mixed: bool
    source: Source
    disputed: bool


@dataclass
class Trace:
    """Collects the tokens of one answer while it is decoded."""

    tokenizer: "PreTrainedTokenizerBase"
    has_passages: bool
    ids: list[int] = field(default_factory=list)
    tokens: list[TokenTrace] = field(default_factory=list)
    text: str = ""

    def add(self, token: int, row: "StepRow") -> TokenTrace:
        """Append a token and return its trace."""
        self.ids.append(token)
        # Decoding all ids each time is what keeps spaces and multi-token characters right.
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        new = "" if text.endswith("\N{REPLACEMENT CHARACTER}") else text[len(self.text) :]
        self.text += new
        trace = TokenTrace(
            text=new,
            confidence_gain=row.entropy_memory - row.entropy_context,
            entropy_context=row.entropy_context,
            entropy_memory=row.entropy_memory,
            mixed=row.mixed,
            source=row.source(token, self.has_passages),
            disputed=row.first_context != row.first_memory
            and row.entropy_memory < 2 * row.entropy_context,
        )
        self.tokens.append(trace)
        return trace


@dataclass(frozen=True)
class StepRow:
    """One sequence's share of a decoding step, on the host."""

    entropy_context: float
    entropy_memory: float
    mixed: bool
    first_context: int
    first_memory: int
    log_p_context: float
    log_p_memory: float

    def source(self, token: int, has_passages: bool) -> Source:
        """Whose choice ``token`` was."""
        if not has_passages:
            return "memory"
        if self.first_context == self.first_memory == token:
            return "both"
        if token == self.first_context:
            return "context"
        if token == self.first_memory:
            return "memory"
        return "context" if self.log_p_context >= self.log_p_memory else "memory"


def rows(step: "Step", tokens: "torch.Tensor") -> list[StepRow]:
    """Bring a step of shape (batch, ...) to the host in one transfer.

    Args:
        step: Both branches' log-probabilities and entropies.
        tokens: The chosen tokens, shape (batch,).
    """
    import torch

    columns = (
        step.entropy_context,
        step.entropy_memory,
        step.mixed,
        step.log_p_c.argmax(dim=-1),
        step.log_p_m.argmax(dim=-1),
        step.log_p_c.gather(1, tokens[:, None])[:, 0],
        step.log_p_m.gather(1, tokens[:, None])[:, 0],
    )
    table = torch.stack([column.double() for column in columns], dim=1).tolist()
    return [
        StepRow(h_c, h_m, bool(mixed), int(first_c), int(first_m), log_c, log_m)
        for h_c, h_m, mixed, first_c, first_m, log_c, log_m in table
    ]
