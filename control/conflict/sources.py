"""What each source of a question claims, and which passages the answer's sentences rest on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from foundation.errors import InputError

Policy = Literal["newest", "trusted", "majority", "all"]
POLICIES: tuple[Policy, ...] = ("newest", "trusted", "majority", "all")
MEMORY = "memory"
NEUTRAL_TRUST = 0.5  # in a source of which nothing is said
CORRECTION = "correction:"  # begins the id of a pinned correction
DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")


@dataclass(frozen=True)
class SourceOptions:
    """How what the sources claim is settled.

    Attributes:
        policy: Which documents the answer follows where they disagree; ``None``: the trusted or,
            where none is trusted more than the others, the newest, if that can be told.
        as_of: A date in ISO 8601; documents of later dates are not followed.
        only_documents: Whether only what a document claims is answered; ``None`` is no.
    """

    policy: Policy | None = None
    as_of: str = ""
    only_documents: bool | None = None

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            InputError: One cannot be used.
        """
        if self.policy not in (None, *POLICIES):
            raise InputError(f"policy is {self.policy!r}; choose one of {', '.join(POLICIES)}")
        if self.as_of and not _is_date(self.as_of):
            raise InputError(
                f"as-of is {self.as_of!r}; give a date such as 2024-06-30, 2024-06 or 2024"
            )

    def over(self, usual: "SourceOptions") -> "SourceOptions":
        """These options, and the usual ones where nothing is said."""
        only = usual.only_documents if self.only_documents is None else self.only_documents
        return SourceOptions(self.policy or usual.policy, self.as_of or usual.as_of, only)


def _is_date(text: str) -> bool:
    """Whether a text is a day, a month or a year that there is, in ISO 8601."""
    first = text + "0000-01-01"[len(text) :]
    try:
        return DATE.fullmatch(text) is not None and bool(date.fromisoformat(first))
    except ValueError:
        return False


@dataclass(frozen=True)
class SourceClaim:
    """What one source claims about the question.

    Attributes:
        source: ``memory``, the id of a passage, or `CORRECTION` and the id of a pinned one.
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
    trust: float = NEUTRAL_TRUST
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
