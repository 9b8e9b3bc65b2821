"""The calibration of the dial: measured on one model, so that alpha means the same on all."""

import hashlib
import json
import math
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter

from control.conflict.probe import DRAFT_NUMBERS, LOG_P_NUMBERS, NUMBERS, MemoryProbe
from control.engines.transformers import LanguageModel
from data import DIRECTORY as DATA
from foundation.errors import ModelError
from foundation.files import replacing

if TYPE_CHECKING:
    from control.conflict.claims import Claim, DraftClaims
    from control.conflict.probe import ProbeFeatures
    from control.engines.base import Engine
    from control.prompts import Quote

PLAIN_RAG = 0.5
# What `Calibration.reader_bar` rises to at alpha 1. Chosen on facts that the default model does not
# know, each asked of one passage; where several documents are read a lower bar pays, but it would
# have passages win what was left to memory (natural conflicts: Q 78.4 instead of 80.4).
SURE = 0.95
LEAST_ODDS = 1e-6
ANY_MODEL = "any"
LONGEST_REASON = 120  # characters
SHIPPED = DATA / "calibrations"


@dataclass(frozen=True)
class Thresholds:
    """Confidences that decide a conflict at one setting of the dial.

    Attributes:
        memory: From here on, memory wins.
        passages: Below this, an answer without support in the passages is restricted to their
            wording.
    """

    memory: float
    passages: float

    @property
    def always_plain(self) -> bool:
        """Whether the passages' answer is given whatever the conflict: plain RAG."""
        return self.memory == math.inf and self.passages == -math.inf


Resolution = Literal["plain", "memory", "grounded"]
"""Which answer is given: plain RAG's, the memory's, or plain RAG's in the passages' wording."""


def decide(
    conflict: bool,
    unsupported: bool,
    confidence: float,
    thresholds: Thresholds,
    misread: bool = False,
) -> Resolution:
    """Which answer is given.

    Args:
        conflict: Whether memory claims something that the passages lack.
        unsupported: Whether plain RAG's answer has no support in the passages and could be
            restricted to their wording.
        confidence: How likely memory is right, in [0, 1].
        thresholds: Of the setting of the dial.
        misread: Whether plain RAG's answer is taken for a misreading of the passages, see
            `Calibration.corrects`.
    """
    if conflict and confidence >= thresholds.memory:
        return "memory"
    if misread or (unsupported and confidence < thresholds.passages):
        return "grounded"
    return "plain"


def raised(reader_bar: float, alpha: float | str) -> float:
    """The reader's bar at a setting of the dial: above 0.5 it rises to ``SURE`` at 1."""
    turned = 0.0 if alpha == "auto" else max((float(alpha) - PLAIN_RAG) / PLAIN_RAG, 0.0)
    return max(reader_bar, SURE * turned)


@dataclass(frozen=True)
class Plausibility:
    """Whether a model remembers what it claims against the passages, or makes it up.

    A regression that tells claims about facts which the model knows from claims about invented
    things. Of the default model (71 and 89 claims) it tells more (AUROC 0.93) than confidence and
    likelihood alone (0.91 and 0.88): where 2 % of 150 questions about invented things pass, 60 % of
    the known facts do, of either alone 47 and 29 %.

    Attributes:
        odds_weight: Of the log-odds that memory is right, in nats.
        draft_weight: Of the mean log-probability of a token of its draft, in nats.
        bar: What 2 % of the questions about invented things reach.
    """

    odds_weight: float
    draft_weight: float
    bar: float

    def __call__(self, confidence: float, likely: float) -> bool:
        """Whether it remembers a claim."""
        return self.score(confidence, likely) >= self.bar

    def score(self, confidence: float, likely: float) -> float:
        """How plausible that is; higher than `bar` where it does."""
        return self.odds_weight * log_odds(confidence) + self.draft_weight * likely


def log_odds(probability: float) -> float:
    """The log-odds of a probability in [0, 1], in nats; finite at its ends, too."""
    sure = min(max(probability, LEAST_ODDS), 1 - LEAST_ODDS)
    return math.log(sure / (1 - sure))


@dataclass(frozen=True)
class Calibration:
    """A probe and the thresholds of the dial.

    Attributes:
        model: `Engine.identity` of the model measured, or ``ANY_MODEL``.
        name: Its name.
        probe: Estimates how likely memory is right.
        known: Confidence in each conflict of a known fact with a wrong passage, ascending, given by
            probes that were fitted without its relation.
        end: Thresholds at alpha 1.
        auto: Thresholds at alpha auto.
        alphas: Settings of the dial ...
        ratios: ... and the memory ratio (MR) measured there on those conflicts, in [0, 1], never
            falling.
        measured: Counts and scores of the measurement, for information.
        memory_bar: Least mean log-probability of a token of memory's draft, in nats, from which
            memory counts as remembering something: 98 % of the model's drafts about invented things
            have less.
        plausibility: Decides the same where memory contradicts the passages; ``None`` where it was
            not measured.
        reader_bar: Least probability of the reader from which what it finds in the passages counts
            above another claim of the model's answer, see `raised`; infinite where the model reads
            as well.
    """

    model: str
    name: str
    probe: MemoryProbe
    known: list[float]
    end: Thresholds
    auto: Thresholds
    alphas: list[float]
    ratios: list[float]
    measured: dict[str, float]
    memory_bar: float = -math.inf
    plausibility: Plausibility | None = None
    reader_bar: float = math.inf

    def remembers(self, claim: "Claim | None", confidence: float | None = None) -> bool:
        """Whether memory claims something, and does not make it up as far as one can tell.

        Args:
            claim: What it claims.
            confidence: How likely it is right, in [0, 1], where it contradicts the passages.
        """
        likely = None if claim is None else claim.draft_log_p
        if claim is None or likely is None:
            return claim is not None
        if confidence is None or self.plausibility is None:
            return likely >= self.memory_bar
        return self.plausibility(confidence, likely)

    def confidence(self, features: "ProbeFeatures | None") -> float:
        """How likely memory is right in a conflict, in [0, 1]; 0 where there is none to judge."""
        return 0.0 if features is None else self.probe(features)

    def corrects(self, quote: "Quote | None", found: "DraftClaims", alpha: float | str) -> bool:
        """Whether the passages' answer is taken for a misreading, and what is quoted is told.

        Not where it says what memory remembers: either both are right, or the dial is to decide.

        Args:
            quote: What the passages claim.
            found: The drafts.
            alpha: The setting of the dial.
        """
        bar = raised(self.reader_bar, alpha)
        if quote is None or not found.misread or quote.confidence < bar:
            return False
        return not (found.agrees_with_memory and self.remembers(found.remembered_claim))

    def thresholds(self, alpha: float | str) -> Thresholds:
        """The thresholds at ``alpha``; at 0.5, plain RAG, no confidence passes them.

        Towards 1, memory wins a share of the known facts that grows linearly, the most confident
        first, down to the threshold of the end. Towards 0, answers are restricted to the passages'
        wording, the least confident first, at 0 all of them.
        """
        if alpha == "auto":
            return self.auto
        turned = (float(alpha) - PLAIN_RAG) / PLAIN_RAG
        if turned >= 1:
            return self.end
        if turned <= -1:
            return Thresholds(math.inf, math.inf)
        if turned == 0 or not self.known:
            return Thresholds(math.inf, -math.inf)
        if turned < 0:
            return Thresholds(math.inf, self.known[int(-turned * len(self.known))])
        winning = len(self.known) - bisect_left(self.known, self.end.memory)
        lowest = len(self.known) - round(turned * winning)
        memory = self.known[lowest] if lowest < len(self.known) else math.inf
        return Thresholds(max(memory, self.end.memory), self.end.passages * turned)

    def alpha(self, reliance: float) -> float:
        """The alpha at which memory wins the share ``reliance`` of known conflicts."""
        place = bisect_left(self.ratios, reliance)
        if place == 0:
            return self.alphas[0]
        if place == len(self.ratios):
            return self.alphas[-1]
        low, high = self.ratios[place - 1], self.ratios[place]
        part = (reliance - low) / (high - low)
        return self.alphas[place - 1] + part * (self.alphas[place] - self.alphas[place - 1])

    @property
    def digest(self) -> str:
        """A hash of all that decides."""
        deciding = asdict(replace(self, measured={}))
        return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:8]

    def save(self, path: Path) -> None:
        """Write it as JSON, which has no number for a bar that there is not."""
        path.parent.mkdir(parents=True, exist_ok=True)
        bars = {"memory_bar": self.memory_bar, "reader_bar": self.reader_bar}
        missing = {name for name, bar in bars.items() if math.isinf(bar)}
        told = {name: value for name, value in asdict(self).items() if name not in missing}
        with replacing(path) as new:
            new.write_text(json.dumps(told, indent=1), encoding="utf-8")


def find(language_model: "Engine", cache: Path) -> Calibration:
    """The calibration of a model: the one measured here, or else `shipped`.

    Args:
        language_model: The model.
        cache: Directory of those that were measured; see `stored`.

    Raises:
        ModelError: The file is damaged, or was measured on another model.
    """
    own = stored(language_model, cache)
    return fitting(own, language_model) if own.exists() else shipped(language_model)


def shipped(language_model: "Engine") -> Calibration:
    """The calibration that comes with Fulcrum: the default model's own, or one for any model.

    There is one for any model of each kind: run here, with distributions; behind an engine that
    scores given text; and behind one that does not.
    """
    if isinstance(language_model, LanguageModel):
        default = load(SHIPPED / "default.json")
        return default if default.model == language_model.identity else load(SHIPPED / "any.json")
    kind = "scores" if language_model.capabilities.scores else "drafts"
    return load(SHIPPED / f"any-{kind}.json")


def stored(language_model: "Engine", cache: Path) -> Path:
    """The file of a model's calibration once it has been measured."""
    return cache / "calibrations" / f"{language_model.identity}.json"


def fitting(path: Path, language_model: "Engine") -> Calibration:
    """The calibration in a file, if it was measured on this model.

    Raises:
        ModelError: The file is damaged, or was measured on another model.
    """
    calibration = load(path)
    read = len(calibration.probe.numbers)
    if read != (needed := _numbers(language_model)):
        raise _unusable(
            path, f"its probe reads {read} numbers, {language_model.name}'s engine gives {needed}"
        )
    if calibration.model not in (language_model.identity, ANY_MODEL):
        raise ModelError(
            f"{path}: was measured on {calibration.name} ({calibration.model}), "
            f"not on {language_model.name} ({language_model.identity}); "
            "measure this model by: fulcrum eval dial --calibrate --out DIR"
        )
    return calibration


def load(path: Path) -> Calibration:
    """Read what `Calibration.save` wrote.

    Raises:
        ModelError: The file is missing or damaged.
    """
    try:
        calibration: Calibration = TypeAdapter(Calibration).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(path, " ".join(str(error).split())[:LONGEST_REASON]) from error
    known = (NUMBERS, LOG_P_NUMBERS, DRAFT_NUMBERS)
    if (given := len(calibration.probe.numbers)) not in known:
        raise _unusable(path, f"its probe reads {given} numbers, this version gives {known}")
    if len(calibration.alphas) != len(calibration.ratios) or not calibration.alphas:
        counted = f"{len(calibration.alphas)} alphas and {len(calibration.ratios)} ratios"
        raise _unusable(path, f"it has {counted}")
    return calibration


def _numbers(language_model: "Engine") -> int:
    """How many numbers the probe gets from an engine."""
    if isinstance(language_model, LanguageModel):
        return NUMBERS
    return LOG_P_NUMBERS if language_model.capabilities.scores else DRAFT_NUMBERS


def _unusable(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path}: no calibration that can be used ({reason}); "
        "measure the model again by: fulcrum eval dial --calibrate --out DIR"
    )
