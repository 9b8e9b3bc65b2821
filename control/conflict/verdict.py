"""The decision on a conflict: which answer is given, and what is said about it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from control.conflict.calibration import PLAIN_RAG, Calibration, Resolution, decide, raised
from control.conflict.passage_claims import LEAST_ANSWERS
from control.conflict.sources import NEUTRAL_TRUST
from control.conflict.values import compare
from foundation.text import words

if TYPE_CHECKING:
    from control.conflict.claims import Claim, DraftClaims
    from control.decoding.generate import Alpha
    from control.decoding.trace import Trace
    from control.prompts import Prompt

# The reader's probability, of all passages that were found, below which they have nothing to do
# with the question. Of 120 questions over real documents (calibration packages) that these answer 7
# % stay below it, of 50 questions of general knowledge to the same documents 92 %.
UNRELATED = 0.02


@dataclass(frozen=True)
class Verdict:
    """What passages and memory claim, and which of them the answer follows.

    Attributes:
        passages_say: What the passages claim.
        memory_says: What memory claims instead.
        confidence: How likely memory is right, in [0, 1]; ``None`` where the engine gives no
            log-probabilities to judge it by.
        follows: The source of the answer.
    """

    passages_say: str
    memory_says: str
    confidence: float | None
    follows: Literal["passages", "memory"]

    def __str__(self) -> str:
        sure = "" if self.confidence is None else f" with confidence {self.confidence:.2f}"
        return (
            f'The passages say "{self.passages_say}", the model remembers "{self.memory_says}"'
            f"{sure}; the answer follows "
            + ("the passages." if self.follows == "passages" else "the model's memory.")
        )


@dataclass(frozen=True)
class DecodedAnswer:
    """An answer and the conflict behind it.

    Attributes:
        trace: Its tokens.
        conflict: Whether memory and passages disagree.
        verdict: On the conflict; ``None`` where there is none, and from token rules, which compare
            no claims.
        memory: What memory claims, whether or not there is a conflict; ``None`` if nothing.
        confidence: How likely memory is right where there is a conflict, in [0, 1].
    """

    trace: "Trace"
    conflict: bool
    verdict: Verdict | None
    memory: "Claim | None" = None
    confidence: float | None = None

    @property
    def follows_memory(self) -> bool:
        """Whether memory has won a conflict."""
        return self.verdict is not None and self.verdict.follows == "memory"


def unrelated(prompt: "Prompt") -> bool:
    """Whether the passages that were found have nothing to do with the question."""
    return prompt.answers is not None and prompt.answers < UNRELATED


def choose(
    found: "DraftClaims",
    prompt: "Prompt",
    confidence: float,
    alpha: "Alpha",
    calibration: Calibration,
) -> Resolution:
    """Which of the answers to a question is given at ``alpha``.

    At a fixed alpha the trust in the passages of the conflict moves the dial for it, by half its
    range to the passages at 1 and to memory at 0; at alpha auto it counts as the passages' own
    chance of being right (Bayes' rule in odds). Where the passages have nothing to do with the
    question, memory answers what it remembers, unless the dial is turned to the passages.

    Args:
        found: What the drafts claim.
        prompt: The question, with its passages.
        confidence: How likely memory is right, in [0, 1].
        alpha: The dial.
        calibration: Of the model.
    """
    if unrelated(prompt) and (alpha == "auto" or alpha >= PLAIN_RAG):
        against = confidence if found.conflict else None
        if calibration.remembers(found.remembered_claim, against):
            return "memory"
    trust = passages_trust(found.passages_say, prompt)
    if alpha == "auto":
        for_memory = confidence * (1 - trust)
        confidence = for_memory / max(for_memory + (1 - confidence) * trust, sys.float_info.min)
    else:
        alpha = turned(alpha, trust)
    thresholds = calibration.thresholds(alpha)
    misread = calibration.corrects(prompt.quote, found, alpha)
    return decide(found.conflict, found.unsupported, confidence, thresholds, misread)


def places(chosen: Sequence[Sequence[Resolution]]) -> dict[tuple[int, Resolution], list[int]]:
    """The answers to be written: each question and its resolution, once, with all its places.

    Args:
        chosen: For each question, its answers; a place counts through all of them.
    """
    wanted: dict[tuple[int, Resolution], list[int]] = {}
    asked = [(index, each) for index, resolutions in enumerate(chosen) for each in resolutions]
    for place, key in enumerate(asked):
        wanted.setdefault(key, []).append(place)
    return wanted


def decoded(
    found: "DraftClaims",
    resolution: Resolution,
    trace: "Trace",
    confidence: float | None,
    calibration: Calibration,
    says: str,
) -> DecodedAnswer:
    """A written answer with the verdict on its conflict.

    Args:
        found: What the drafts claim.
        resolution: Which of the answers it is.
        trace: Its tokens.
        confidence: How likely memory is right, in [0, 1]; ``None`` if it cannot be judged.
        calibration: Of the model.
        says: What the passages claim, as it was written at last; empty if nothing.
    """
    claim, stated = found.found.claim, found.remembered_claim
    against = confidence if claim is not None and says else None
    if resolution != "memory" and not calibration.remembers(stated, against):
        return DecodedAnswer(trace, False, None)
    if claim is None or not says:
        return DecodedAnswer(trace, False, None, stated)
    told = found.states_memory and not found.found.supported  # "21 years" has a word of "20 years"
    memory = resolution == "memory" or (told and resolution == "plain")
    verdict = Verdict(says, claim.text, confidence, "memory" if memory else "passages")
    return DecodedAnswer(trace, True, verdict, stated, confidence)


def claim_against_memory(found: "DraftClaims", prompt: "Prompt") -> str:
    """What the passages claim against memory; empty if nothing.

    What their answer does, unless it misreads them or says what memory claims and no passage holds:
    then what they surely claim, if it contradicts memory. Nothing where that does not, or where
    they have nothing to do with the question.
    """
    if unrelated(prompt):
        return ""
    says, own, quoted = found.passages_say, found.found.passages_claim, prompt.quote
    stated, against = found.remembered_claim, False
    if quoted is not None and stated is not None and quoted.confidence >= LEAST_ANSWERS:
        against = compare(prompt.question, quoted.claim, stated.text) == "contradictory"
        if not against:
            return ""
    of_memory = found.agrees_with_memory and not found.found.supported
    if own is None or says != own.text or not (of_memory or found.found.misread):
        return says
    return quoted.claim if quoted is not None and against else ""


def is_plain_rag(prompt: "Prompt", alpha: "Alpha", calibration: Calibration) -> bool:
    """Whether the passages' answer is given whatever is claimed, so that it can be streamed."""
    if alpha == "auto" or unrelated(prompt):
        return False
    sure = prompt.quote.confidence if prompt.quote is not None else -1.0
    settings = [turned(alpha, trust) for trust in prompt.trust or (NEUTRAL_TRUST,)]
    return all(
        calibration.thresholds(each).always_plain and sure < raised(calibration.reader_bar, each)
        for each in settings
    )


def turned(alpha: float, trust: float) -> float:
    """The dial for a conflict, moved by the trust in its passages."""
    return min(max(alpha + NEUTRAL_TRUST - trust, 0.0), 1.0)


def passages_trust(claimed: str, prompt: "Prompt") -> float:
    """Highest trust among the passages that hold what their answer claims, else of all."""
    if not prompt.trust:
        return NEUTRAL_TRUST
    wanted = words(claimed)
    holding = [
        trust
        for text, trust in zip(prompt.texts, prompt.trust, strict=True)
        if wanted and wanted <= words(text)
    ]
    return max(holding or prompt.trust)
