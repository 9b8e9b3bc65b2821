"""The claims of an answer: the words that it adds to its question, and their support."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from control.conflict import values
from control.forgetting.parts import parts
from foundation.text import FUNCTION_WORDS, holds, normalise, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from control.conflict.probe import ProbeFeatures
    from control.conflict.reader import Reading
    from control.prompts import Prompt, Quote

SUPPORTED = 3.0  # nats; an answer rests on the passages if they raise one of its claims so much
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
BREAKS = re.compile(r"[.,;:!?)\"]\s*$")


@dataclass(frozen=True)
class Claim:
    """A run of words in an answer.

    Attributes:
        start: Its first token.
        stop: The token after its last one.
        text: The words.
        gain: Its log-probability in the branch that decoded it minus that in the other, in nats.
        draft_log_p: Mean log-probability of a token of the draft that it stands in, in the branch
            that decoded it, in nats; ``None`` if unknown.
    """

    start: int
    stop: int
    text: str
    gain: float
    draft_log_p: float | None = None


class DraftText(Protocol):
    """The tokens of a text."""

    def __len__(self) -> int:
        """How many tokens it has."""

    def text(self, start: int, stop: int) -> str:
        """The text of the tokens from ``start`` up to ``stop``."""

    def begins_word(self, at: int) -> bool:
        """Whether a token begins with a space."""


class ScoredDraft(DraftText, Protocol):
    """The tokens of a draft that both branches scored."""

    @property
    def gain(self) -> Sequence[float]:
        """Log-probability of each token in its own branch minus that in the other, in nats."""


@dataclass(frozen=True)
class DecodedTokens:
    """Token ids as a `DraftText`, decoded by a tokenizer."""

    tokenizer: "PreTrainedTokenizerBase"
    ids: list[int]

    def __len__(self) -> int:
        """How many tokens it has."""
        return len(self.ids)

    def text(self, start: int, stop: int) -> str:
        """The text of the tokens from ``start`` up to ``stop``."""
        return self.tokenizer.decode(self.ids[start:stop], skip_special_tokens=True)

    def begins_word(self, at: int) -> bool:
        """Whether a token begins with a space."""
        # Beside another token: some tokenizers drop the space of the first one.
        before = self.tokenizer.decode(self.ids[max(at - 1, 0) : at])
        pair = self.tokenizer.decode(self.ids[max(at - 1, 0) : at + 1])
        return pair[len(before) : len(before) + 1].isspace()


def claims(draft: DraftText, gain: Sequence[float], skip: set[str]) -> list[Claim]:
    """The runs of words in a draft that are not in ``skip``.

    Args:
        draft: Its tokens.
        gain: Log-probability of each token in the branch that decoded it minus that in the other,
            in nats.
        skip: Normalised words that claim nothing, such as the question's.
    """
    runs: list[list[int]] = []
    goes_on = False
    for start, stop in _words(draft):
        text = draft.text(start, stop)
        new = bool(words(text) - skip)
        if new and goes_on:
            runs[-1][1] = stop
        elif new:
            runs.append([start, stop])
        goes_on = new and not BREAKS.search(text)
    found = []
    for start, end in runs:
        stop = end
        while stop > start + 1 and not normalise(draft.text(stop - 1, stop)):
            stop -= 1  # punctuation is no part of a claim
        text = draft.text(start, stop)
        found.append(Claim(start, stop, text.strip(" .,;:!?\"'()"), float(sum(gain[start:end]))))
    return found


@dataclass(frozen=True)
class ClaimComparison:
    """What the words of the two drafts of a question show.

    Attributes:
        claim: What memory claims that question and passages lack; ``None`` where there is no
            conflict.
        passages_claim: What the draft with the passages claims.
        remembered: Words that memory adds to question and passages.
        states_memory: Whether the draft with the passages states what memory claims, without
            support in the passages.
        supported: Whether the passages hold its claim.
        unsupported: Its claims that the passages lack, where it has no support in them.
        remembered_claim: What memory claims, whether or not there is a conflict.
        misread: Whether the draft with the passages says nothing of what is quoted from them, and
            nothing that they say nearer to the question.
        agrees_with_memory: Whether it says what memory claims, supported by the passages or not.
    """

    claim: Claim | None = None
    passages_claim: Claim | None = None
    remembered: Sequence[str] = ()
    states_memory: bool = False
    supported: bool = False
    unsupported: Sequence[Claim] = ()
    remembered_claim: Claim | None = None
    misread: bool = False
    agrees_with_memory: bool = False


@dataclass(frozen=True, kw_only=True)
class DraftClaims:
    """What the drafts of one question show, whatever engine they are from.

    Attributes:
        found: What their words show.
        features: The probe's features of the conflict; ``None`` where there is none, or nothing to
            judge it by.
        misread: Whether the passages' answer says nothing of what could be quoted from them.
    """

    found: ClaimComparison
    features: "ProbeFeatures | None" = None
    misread: bool = False

    @property
    def conflict(self) -> bool:
        """Whether memory claims something that the passages lack."""
        return self.found.claim is not None

    @property
    def passages_say(self) -> str:
        """What the passages' answer claims."""
        return self.found.passages_claim.text if self.found.passages_claim else ""

    @property
    def unsupported(self) -> bool:
        """Whether that has no support in them, and could be restricted to their wording."""
        return bool(self.found.unsupported)

    @property
    def states_memory(self) -> bool:
        """Whether the passages' answer states what memory claims, without support in them."""
        return self.found.states_memory

    @property
    def agrees_with_memory(self) -> bool:
        """Whether it says what memory claims, supported by the passages or not."""
        return self.found.agrees_with_memory

    @property
    def remembered_claim(self) -> Claim | None:
        """What memory claims, whether or not there is a conflict."""
        return self.found.remembered_claim


def compare(
    prompt: "Prompt",
    passages: ScoredDraft,
    memory: ScoredDraft,
    memory_log_p: Sequence[float],
    read: "tuple[Reading, Reading] | None",
) -> ClaimComparison:
    """Compare the drafts of passages and memory.

    Args:
        prompt: The question; without passages, nothing is compared.
        passages: The draft with the passages.
        memory: The draft without them.
        memory_log_p: Log-probability of its tokens without the passages; empty if unknown.
        read: What the reader finds in the draft with the passages, and in memory's; without it, the
            words that a draft adds count as its claims.
    """
    question, texts, quote = prompt.question, prompt.texts, prompt.quote
    if not texts:
        return ClaimComparison()
    asked = words(question) | FUNCTION_WORDS
    held = words(" ".join(texts))
    memory_text = memory.text(0, len(memory))
    own = claims(passages, passages.gain, asked)
    if read is None:
        claim = stated = strongest(claims(memory, memory.gain, asked | held))
        other = claims(passages, passages.gain, asked | words(memory_text))
        passages_claim = strongest(other) or strongest(own)
    else:
        passages_claim = claim_at(passages, passages.gain, read[0])
        stated = claim_at(memory, memory.gain, read[1], memory_log_p)
        if stated is not None and _repeats(stated.text, question):
            stated = None
        claim = stated if _contradicts(question, stated, passages_claim, texts) else None
    unsupported = [each for each in own if not words(each.text) - asked <= held]
    support = max((each.gain for each in own if each not in unsupported), default=0.0)
    remembered = new_words(memory_text, asked | held)
    added = words(" ".join(remembered))
    shared = [each for each in unsupported if words(each.text) & added]
    states_memory = bool(shared) and support < SUPPORTED

    def says(claimed: str) -> bool:
        span = read[0].answer if read else ""
        said = passages.text(0, len(passages))
        return holds(said, [claimed]) or values.agrees(question, claimed, span)

    return ClaimComparison(
        claim,
        passages_claim,
        remembered,
        states_memory=states_memory,
        supported=passages_claim is not None and words(passages_claim.text) <= held,
        # The text before a replaced word stays, so the first claim shared with memory is replaced.
        unsupported=(shared[:1] or unsupported) if support < SUPPORTED else [],
        remembered_claim=stated,
        misread=quote is not None
        and read is not None
        and not says(quote.claim)
        and not _nearer(question, texts, passages_claim, quote),
        agrees_with_memory=states_memory or (stated is not None and says(stated.text)),
    )


def claim_at(
    draft: DraftText, gain: Sequence[float], reading: "Reading", log_p: Sequence[float] = ()
) -> Claim | None:
    """What the reader finds in a draft, as a run of its tokens; ``None`` where it finds nothing.

    Args:
        draft: Its tokens.
        gain: As of `claims`.
        reading: Of the draft's text.
        log_p: Log-probability of each token in the branch that decoded it; empty if unknown.
    """
    if not reading.answer:
        return None
    ends = [len(draft.text(0, at + 1)) for at in range(len(draft))]
    start = next((at for at, end in enumerate(ends) if end > reading.start), len(ends))
    stop = next((at + 1 for at, end in enumerate(ends) if end >= reading.end), len(ends))
    likely = float(sum(log_p) / len(log_p)) if log_p else None
    return Claim(start, stop, reading.answer, float(sum(gain[start:stop])), likely)


def _repeats(said: str, question: str) -> bool:
    """Whether a text has just the words of a question, and so claims nothing."""
    said_words, asked = (words(text) - (FUNCTION_WORDS - {"not"}) for text in (said, question))
    return said_words == asked


def _contradicts(
    question: str, stated: Claim | None, passages_claim: Claim | None, texts: Sequence[str]
) -> bool:
    """Whether the passages lack memory's claim, and their draft claims another one or repeats it.

    Args:
        question: As asked.
        stated: What memory claims.
        passages_claim: What the draft with the passages claims; it may follow memory.
        texts: The passages.
    """
    if stated is None or passages_claim is None:
        return False
    if any(holds(text, [stated.text]) for text in texts):
        return False
    if not words(passages_claim.text) <= words(" ".join(texts)):
        return True
    return values.compare(question, passages_claim.text, stated.text) == "contradictory"


def _nearer(question: str, texts: Sequence[str], claim: Claim | None, quote: "Quote") -> bool:
    """Whether a sentence of the passages with this claim has more of the question than the quote.

    The reader may take what is said of one thing for what was asked about another.
    """
    asked = words(question) - FUNCTION_WORDS
    shared = len(words(quote.row or quote.text) & asked)
    return claim is not None and any(
        holds(text[start:end], [claim.text]) and len(words(text[start:end]) & asked) > shared
        for text in texts
        for start, end in parts(text)
    )


def new_words(text: str, skip: set[str]) -> list[str]:
    """The words of ``text`` that are not in ``skip``, as they are written, each once."""
    found = (match.group() for match in WORD.finditer(text))
    return list(dict.fromkeys(word for word in found if words(word) - skip))


def strongest(found: Sequence[Claim]) -> Claim | None:
    """The claim of the highest gain, if there is any."""
    return max(found, key=lambda claim: claim.gain, default=None)


def ends_sentence(text: str) -> bool:
    """Whether ``text`` ends where a sentence does; an initial such as "W." is no end."""
    return (
        text.endswith("\n")
        or re.search(r"\w{2}[\"”’)\]]*[.!?…。]+[\"”’)\]]*\s*$", text) is not None
    )


def _words(draft: DraftText) -> list[list[int]]:
    """Token ranges of the words, split at spaces."""
    ranges: list[list[int]] = []
    for at in range(len(draft)):
        if not ranges or draft.begins_word(at):
            ranges.append([at, at + 1])
        else:
            ranges[-1][1] = at + 1
    return ranges
