"""What each source of a question claims, and which sentences of the answer rest on which passages."""

from collections.abc import Sequence
from dataclasses import dataclass

MEMORY = "memory"


@dataclass(frozen=True)
class SourceClaim:
    """What one source claims about the question.

    Attributes:
        source: ``memory``, the id of a passage, or that of a correction.
        says: The shortest text that answers the question, as the source writes it.
        date: Since when it holds, in ISO 8601, as far as its document tells; empty where unknown.
        trust: In the source, in [0, 1].
        confidence: Of a passage, how likely it claims this; of memory, how likely it is right, in
            [0, 1]; ``None`` where the engine gives no log-probabilities to judge it by.
        group: Sources whose claims are the same have the same number, from 0.
        followed: Whether the answer follows it.
    """

    source: str
    says: str
    date: str = ""
    trust: float = 0.5
    confidence: float | None = None
    group: int = 0
    followed: bool = False


@dataclass(frozen=True)
class Citation:
    """The passages that support a sentence of the answer.

    Attributes:
        start: First character of the sentence in the answer.
        end: The character after its last one.
        passages: Ids of the passages, the strongest support first; empty where none supports it.
    """

    start: int
    end: int
    passages: Sequence[str] = ()
