"""The gate: a classifier of how likely a segment of a question asks for a record's fact.

A question is compared, its subject masked, with the record's own question forms and with a bank of
common questions: one that is more similar to "What is the population of [X]?" than to any form of
the record does not ask for the record, however similar it is to both.
"""

import json
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from control.forgetting.record import Record
from control.forgetting.segments import SUBJECT, QuestionSegment, answer_type, content, masked_form
from foundation.errors import ModelError
from foundation.files import replacing

Vectors = NDArray[np.float32]
Features = NDArray[np.float64]
Embed = Callable[[list[str]], Sequence[Sequence[float]]]

WEIGHTS = Path(__file__).with_name("gate.json")
FEATURES = (
    *("cosine", "margin", "nearer", "statement", "with_answer", "answer", "mean", "centre"),
    *("profile_wide", "profile_sharp", "correlation", "shared", "covered"),
    *("same_kind", "other_kind", "digits", "no_digits"),
    *("holds_answer", "holds_answer_margin", "carried", "foreign", "foreign_margin"),
    *("names", "length", "relation_said", "asks", "uncovered", "cosine_length"),
)
SAME = 0.92  # cosine from which a question of the bank asks what a form of the record asks
# The same for a record whose relation is not in the bank; its nearest question may ask just that.
LIKE = 0.8
TIE = 0.03  # short of the nearest relation: "Who is [X]'s father?" is the same as no "mother"
CLOSE = 0.02  # distance from a cosine of 1 that counts as none
PROFILES = (8.0, 20.0)  # sharpness of the distributions over the bank's relations
MOST_FORMS = 8  # of one record that are compared
REVERSED_FORMS = 3  # of these from which reversed questions are made
LONGEST_ANSWER = 160  # characters of an answer that are embedded
CACHED_VECTORS = 20_000  # of texts seen before: 30 MB
ASKING = re.compile(
    r"\?|\b(?:what|which|who|whom|whose|when|where|how|name|tell|give|list)\b", re.I
)


@dataclass(frozen=True)
class FactForms:
    """The question forms and the answer of a fact, without its subject; similar records share it.

    Attributes:
        forms: Question forms with the subject masked.
        relation: Its words.
        answer: The first answer.
        is_reversed: Whether the subject is asked for, so that what is masked is the answer.
    """

    forms: tuple[str, ...]
    relation: str
    answer: str
    is_reversed: bool = False

    @property
    def statement(self) -> str:
        """The fact as a sentence."""
        if self.is_reversed:
            return f"{SUBJECT} is the {self.relation or 'answer'}."
        return f"The {self.relation or 'answer'} of {SUBJECT} is {self.answer}."

    def texts(self) -> list[str]:
        """All that has to be embedded before it can be compared."""
        asked = [f"{form} {self.answer}".strip() for form in self.forms]
        return [*self.forms, *asked, self.statement, self.answer or self.relation]


def fact_forms(record: Record) -> FactForms:
    """The question forms of a record's fact, without its subject."""
    relation = " ".join(record.relation.replace("_", " ").split())
    forms = [masked_form(question, record.names) for question in record.questions]
    if relation:
        forms.append(f"What is the {relation} of {SUBJECT}?")
    answer = record.answers[0][:LONGEST_ANSWER] if record.answers else ""
    return FactForms(tuple(dict.fromkeys(forms))[:MOST_FORMS], relation, answer)


def reversed_forms(fact: FactForms) -> FactForms:
    """The forms of the reversed question, which gives the answer (masked) and asks for the subject.

    Other questions about the answer ("What is the capital of [X]?") are told from it by the bank.
    """
    templates = (f"{SUBJECT} is the {{}} of what?", f"What has {SUBJECT} as its {{}}?")
    forms = [one.format(fact.relation) for one in templates if fact.relation]
    forms += [f"{form.replace(SUBJECT, 'what')} {SUBJECT}" for form in fact.forms[:REVERSED_FORMS]]
    return FactForms(tuple(forms), fact.relation, "", is_reversed=True)


@dataclass(frozen=True)
class Weights:
    """A logistic regression, and the threshold of its probability.

    Attributes:
        mean: Of each feature, taken off.
        scale: Of each feature, divided by.
        weights: Of each feature.
        bias: Added.
        refuse: Probability from which a question is refused.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    refuse: float

    def likelihood(self, features: Features) -> float:
        """The probability that the question is in scope."""
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, self.logit(features)))))

    def logit(self, features: Features) -> float:
        """The same as log-odds."""
        mean, scale, weights = self._arrays
        return float((features - mean) / scale @ weights) + self.bias

    @cached_property
    def _arrays(self) -> tuple[Features, Features, Features]:
        return np.array(self.mean), np.array(self.scale), np.array(self.weights)


@dataclass(frozen=True)
class Gate:
    """Fitted weights for each kind of match between a question and a record, and the bank.

    Attributes:
        weights: By kind of match: "named" (the subject is in the question or the conversation),
            "held" (an answer is), "described" (neither, but the question is nearly one of the
            record's).
        bank: Common questions by what they ask, with the subject masked.
    """

    weights: dict[str, Weights]
    bank: dict[str, tuple[str, ...]]

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> "Gate":
        """Read the gate from a JSON file.

        Raises:
            ModelError: The file is missing or damaged.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            weights = {kind: Weights(**values) for kind, values in stored["ways"].items()}
            return cls(weights, {name: tuple(texts) for name, texts in stored["bank"].items()})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(
                f"{path}: the gate cannot be read ({error}); "
                "install Fulcrum again, or fit it anew: python -m training.fact_classifier"
            ) from error

    def fingerprint(self, embedding: str) -> str:
        """Identifies the bank's vectors by this embedding model."""
        return sha256(json.dumps([embedding, self.bank]).encode()).hexdigest()[:16]


class VectorStore:
    """A least-recently-used cache of the vectors of texts."""

    def __init__(self, embed: Embed) -> None:
        """Embed texts by ``embed``, several in one call."""
        self._embed = embed
        self._cached: OrderedDict[str, Vectors] = OrderedDict()

    def embed(self, texts: Iterable[str]) -> None:
        """Embed those of the texts that are not cached, in one call."""
        new = [text for text in dict.fromkeys(texts) if text not in self._cached]
        if new:
            for text, vector in zip(new, unit(self._embed(new)), strict=True):
                self._cached[text] = vector

    def put(self, texts: Sequence[str], vectors: Sequence[Vectors]) -> None:
        """Add texts that were embedded elsewhere, with vectors of length 1."""
        self._cached.update(zip(texts, vectors, strict=True))

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, shape (texts, dimension)."""
        self.embed(texts)
        for text in texts:
            self._cached.move_to_end(text)
        found = np.stack([self._cached[text] for text in texts])
        while len(self._cached) > CACHED_VECTORS:
            self._cached.popitem(last=False)
        return found


def unit(vectors: Sequence[Sequence[float]]) -> Vectors:
    """Vectors brought to length 1; zeros stay zeros."""
    array = np.asarray(vectors, np.float32)
    unit_length: Vectors = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-9)
    return unit_length


@dataclass(frozen=True)
class PreparedForms:
    """The forms of a fact, embedded and compared with the bank."""

    forms: Vectors
    asked: Vectors
    statement: Vectors
    answer: Vectors
    centre: Vectors
    profile: Vectors
    others: NDArray[np.bool_]
    stems: list[set[str]]
    relation: set[str]
    kinds: set[str]
    digits: bool


class SimilarityMeasure:
    """Measures the features of question segments compared with facts."""

    def __init__(
        self, bank: dict[str, tuple[str, ...]], vectors: VectorStore, path: Path | None = None
    ) -> None:
        """Compare with ``bank``, which is embedded at the first measurement.

        Args:
            bank: Common questions by what they ask.
            vectors: Embeds them.
            path: File that stores the bank's vectors between processes.
        """
        self._bank = bank
        self._path = path
        self._vectors = vectors
        self._prepared: OrderedDict[FactForms, PreparedForms] = OrderedDict()
        texts = [text for several in bank.values() for text in several]
        counts = Counter(word for text in texts for word in content(text))
        self._rarity = {word: math.log(len(texts) / (1 + n)) for word, n in counts.items()}
        self._rarest = math.log(max(2, len(texts)))

    @cached_property
    def _bank_vectors(self) -> tuple[Vectors, NDArray[np.intp]]:
        """The bank's vectors, and where each relation starts among them."""
        texts = [text for several in self._bank.values() for text in several]
        vectors = self._read(len(texts))
        if vectors is None:
            vectors = self._vectors(texts)
            if self._path is not None:
                with replacing(self._path) as new:
                    np.save(new, vectors)
        sizes = [len(several) for several in self._bank.values()]
        return vectors, np.cumsum([0, *sizes[:-1]])

    def _read(self, count: int) -> Vectors | None:
        """The bank's vectors from the file, if it holds so many."""
        if self._path is None:
            return None
        try:
            vectors: Vectors = np.load(self._path)
        except (OSError, ValueError, EOFError):  # none yet, or damaged: it is written anew
            return None
        return vectors if vectors.shape[:1] == (count,) else None

    def features(self, segment: QuestionSegment, fact: FactForms) -> Features:
        """The features of a segment compared with a fact, in the order of ``FEATURES``."""
        own = self._prepare(fact)
        bank, starts = self._bank_vectors
        [asked] = self._vectors([segment.text])
        cosines = own.forms @ asked
        similarity = bank @ asked
        best = np.sort(cosines)[::-1]
        cosine = float(best[0])
        other = float(similarity[own.others].max(initial=0.0))
        margin = cosine - other
        profile = np.maximum.reduceat(similarity, starts)
        stems = content(segment.text)
        kind = answer_type(segment.text)
        foreign = float(segment.foreign)
        shared = len(stems & own.relation) / len(own.relation) if own.relation else 0.0
        return np.array(
            [
                cosine,
                margin,
                math.log((1 + CLOSE - other) / (1 + CLOSE - cosine)),
                float(own.statement @ asked),
                float((own.asked @ asked).max()),
                float(own.answer @ asked),
                float(best[:2].mean()),
                float(own.centre @ asked),
                *(_overlap(profile, own.profile, sharpness) for sharpness in PROFILES),
                _correlation(profile, own.profile),
                max(self._weight(stems & form) / self._weight(stems | form) for form in own.stems),
                max(self._weight(stems & form) / self._weight(stems) for form in own.stems),
                float(kind in own.kinds),
                float(kind != "any" and "any" not in own.kinds and kind not in own.kinds),
                float(own.digits and kind in ("person", "place")),
                float(not own.digits and kind in ("time", "number")),
                float(segment.answer),
                float(segment.answer) * margin,
                float(segment.from_history),
                foreign,
                foreign * margin,
                float(min(3, len(segment.names))),
                math.log1p(len(stems)),
                shared,
                float(ASKING.search(segment.text) is not None),
                min(self._weight(stems - form) for form in own.stems) / self._rarest,
                cosine * math.log1p(len(stems)),
            ]
        )

    def _prepare(self, fact: FactForms) -> PreparedForms:
        if (known := self._prepared.get(fact)) is not None:
            return known
        bank, starts = self._bank_vectors
        vectors = self._vectors(fact.texts())
        count = len(fact.forms)
        forms, asked = vectors[:count], vectors[count : 2 * count]
        similarity = (bank @ forms.T).max(axis=1)
        # Where the bank knows what the record asks, its other wordings count as the record's own.
        profile = np.maximum.reduceat(similarity, starts)
        same = profile >= max(SAME, float(profile.max()) - TIE)
        own = np.repeat(same, np.diff([*starts, len(bank)]))
        prepared = PreparedForms(
            np.concatenate([forms, bank[own]]),
            asked,
            vectors[2 * count],
            vectors[2 * count + 1],
            forms.mean(axis=0) / max(1e-9, float(np.linalg.norm(forms.mean(axis=0)))),
            profile,
            ~own if own.any() else similarity < LIKE,
            [content(form) for form in fact.forms],
            content(fact.relation),
            {answer_type(form) for form in fact.forms[:-1] or fact.forms},
            any(char.isdigit() for char in fact.answer),
        )
        self._prepared[fact] = prepared
        if len(self._prepared) > CACHED_VECTORS // MOST_FORMS:
            self._prepared.popitem(last=False)
        return prepared

    def _weight(self, stems: set[str]) -> float:
        return sum(self._rarity.get(word, self._rarest) for word in stems) or 1e-6


def _overlap(one: Vectors, other: Vectors, sharpness: float) -> float:
    """The Bhattacharyya coefficient of two profiles, read as distributions over relations."""
    parts = [np.exp(sharpness * (profile - profile.max())) for profile in (one, other)]
    return float(np.sqrt(parts[0] / parts[0].sum()) @ np.sqrt(parts[1] / parts[1].sum()))


def _correlation(one: Vectors, other: Vectors) -> float:
    """Pearson's correlation; 0 where either is constant."""
    centred = [profile - profile.mean() for profile in (one, other)]
    lengths = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return float(centred[0] @ centred[1]) / lengths if lengths > 0 else 0.0
