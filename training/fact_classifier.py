"""Questions that the router is fitted on, and the fit.

Made from the calibration relations, ``rewrites.toml`` and ``routing.toml`` alone: no relation and
no wording of the test split takes part. ``python -m training.fact_classifier`` writes it anew.
"""

import json
import logging
import random
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from numpy.typing import NDArray

from control.forgetting.gate import FEATURES, WEIGHTS, Features, Gate, Weights
from control.forgetting.ledger import Changes
from control.forgetting.record import Record
from control.forgetting.router import Router
from control.forgetting.segments import SUBJECT, Turns
from foundation.files import replacing
from training import rewrites
from training.rewrites import relation_rows

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
CASES = 2  # of each relation
MOST_FORMS = 4  # of one record
NEIGHBOURS = 12  # other relations' questions about one subject
MATCH_KINDS = ("named", "held", "described")
# One record is fitted at a time, but many may share an answer: a higher threshold than the fit's.
LEAST_THRESHOLD = {"held": 0.92}
FALSE_ALARMS = 0.005  # share of questions in no scope that may be refused, with half the bank
STRENGTH = 0.3  # of the regression: inverse of its L2 penalty
WITH_RELATION = 0.8  # share of records that say their relation
UNBANKED = 0.4  # share of relations that the bank lacks
ROUNDS = 3  # of choosing the segment that asks, and fitting
FOLDS = 6
VAGUE_WEIGHT = 0.3  # "How old is it?" asks for a year or not

OPENINGS = ("Tell me about {s}.", "What do you know about {s}?", "Let's talk of {s}.")
# What the answers of a relation are, where further questions about them can be asked.
ANSWER_KINDS = {
    "city": ("capital", "headquarters", "city", "residence", "location"),
    "country": ("country", "country of foundation"),
    "person": (
        *("president", "governor", "spouse", "author", "founder", "chief executive", "architect"),
        *("inventor", "singer", "creator", "lead actor", "discoverer", "leader", "winner"),
    ),
    "time": ("year of publication", "year of foundation", "year of construction", "date"),
}
# What X wrote: of the author X this asks the book's relation backwards.
ROUND = ("notable works", "first book")


@dataclass(frozen=True)
class ScopeQuestion:
    """A question about a record, and whether it asks for the record's fact.

    Attributes:
        kind: Of probe or of neighbour.
        text: The question.
        asks: Whether it is in scope.
        history: What was said before.
        weight: How much it counts in the fit.
    """

    kind: str
    text: str
    asks: bool
    history: Turns = ()
    weight: float = 1.0


@dataclass(frozen=True)
class RecordQuestions:
    """A record, questions about it, and the bank to compare with, which holds none of them.

    Cases of one ``group`` are held out together.
    """

    group: str
    record: Record
    questions: tuple[ScopeQuestion, ...]
    bank: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Relation:
    """What can be asked about a kind of subject."""

    kind: str
    noun: str
    wordings: tuple[str, ...]
    vague: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in the bank and in ``routing.toml``."""
        return f"{self.kind}/{self.noun}"


class SingleRecordLedger:
    """A ledger of one record."""

    def __init__(self, record: Record) -> None:
        """Hold it."""
        self._record = record

    def changes(self, since: int) -> Changes:
        """The record at the first call, then nothing."""
        return Changes(1, [] if since else [self._record], [])


@cache
def bank_file() -> dict[str, Any]:
    """What ``routing.toml`` holds."""
    return tomllib.loads((HERE / "routing.toml").read_text(encoding="utf-8"))


@cache
def relations() -> list[Relation]:
    """All relations, with the wordings of both files."""
    merged: dict[tuple[str, str], Relation] = {}
    for kind, spec in rewrites.wording_bank().items():
        for noun, *texts in spec.get("attributes", ()):
            asked = tuple(text for text in texts if text[0] != rewrites.VAGUE)
            vague = tuple(text[1:] for text in texts if text[0] == rewrites.VAGUE)
            merged[kind, noun] = Relation(kind, noun, asked, vague)
    for kind, spec in bank_file().items():
        if kind in ("templates", "held", "described", "general"):
            continue
        for noun, values in spec.items():
            if noun == "names":
                continue
            known = merged.get((kind, noun), Relation(kind, noun, ()))
            merged[kind, noun] = replace(
                known,
                wordings=tuple(dict.fromkeys([*known.wordings, *values["en"]])),
                foreign=tuple(values.get(tongue, [""])[0] for tongue in ("fr", "de", "es")),
                answers=tuple(values["answers"]),
            )
    return list(merged.values())


@cache
def names() -> dict[str, list[str]]:
    """Subjects of each kind."""
    found: dict[str, list[str]] = {}
    for kind, spec in (*rewrites.wording_bank().items(), *bank_file().items()):
        if isinstance(spec, dict) and "names" in spec:
            found[kind] = list(spec["names"])
        elif isinstance(spec, dict) and "relation" in spec:
            found[kind] = [row["subject"] for row in relation_rows(spec["relation"])]
    return found


def bank(held: Sequence[Relation] | None = None) -> dict[str, tuple[str, ...]]:
    """Common questions by what they ask, the subject masked."""
    return {
        one.key: tuple(
            dict.fromkeys(text.format(s=SUBJECT) for text in (*one.wordings, *_ask_by_name(one)))
        )
        for one in (relations() if held is None else held)
    }


def _ask_by_name(one: Relation) -> tuple[str, str]:
    """The relation asked for by its name."""
    person = sum(text.startswith("Who") for text in one.wordings) * 2 >= len(one.wordings)
    what = "Who" if person else "What"
    return f"{what} is the {one.noun} of {{s}}?", f"{what} is {{s}}'s {one.noun}?"


def _split_wordings(draw: random.Random) -> tuple[list[Relation], list[Relation]]:
    """Relations to ask from, and those of a bank that has other wordings of them, or lacks them.

    So the fit sees what it will meet: questions that the bank has in other words or not at all.
    """
    asking, banked = [], []
    for one in relations():
        wordings = draw.sample(one.wordings, len(one.wordings))
        half = (len(wordings) + 1) // 2
        asking.append(replace(one, wordings=tuple(wordings[:half])))
        if draw.random() >= UNBANKED:
            banked.append(replace(one, wordings=tuple(wordings[half:])))
    return asking, banked


def build_cases(seed: int = 0) -> list[RecordQuestions]:
    """Records of made-up and real facts, each with questions in and out of its scope."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
    made = []
    for place, one in enumerate(relations()):
        if one.answers and len(one.wordings) > 1:
            made += [_build_case(place, draw) for _ in range(CASES)]
    made += list(_build_described_cases(draw))
    return made


def _build_case(place: int, draw: random.Random) -> RecordQuestions:
    asking, banked = _split_wordings(draw)
    one, whole = asking[place], relations()[place]
    subject, other = draw.sample(names()[one.kind], 2)
    unasked = [text for text in whole.wordings if text not in one.wordings]
    wordings = [*unasked, *one.wordings[1:]]
    count = draw.randint(1, min(MOST_FORMS, len(wordings)))
    answer = draw.choice(one.answers)
    fill = {"n": one.noun, "s": subject, "a": answer, "o": other, "k": one.kind}
    wrong = [text for text in one.answers if text != answer] or ["something else"]
    fill |= {"w": draw.choice(wrong), "v": draw.choice(wrong)}
    record = Record(
        subject,
        relation=one.noun if draw.random() < WITH_RELATION else "",
        questions=tuple(text.format(s=subject) for text in wordings[:count]),
        answers=(answer,),
        id="r1",
    )
    siblings = [other for other in asking if other.kind == one.kind and other.noun != one.noun]
    questions = [*_ask_relation(one, one.wordings, fill, True, draw)]
    for sibling in draw.sample(siblings, min(len(siblings), 2)):
        own = dict(fill, n=sibling.noun)
        wrong = list(sibling.answers) or ["something else", "nothing"]
        own |= {"a": draw.choice(wrong), "w": draw.choice(wrong), "v": draw.choice(wrong)}
        questions += _ask_relation(sibling, sibling.wordings, own, False, draw)
    spare = [text for sibling in siblings for text in sibling.wordings]
    for text in draw.sample(spare, min(len(spare), NEIGHBOURS)):
        questions.append(ScopeQuestion("neighbour", text.format(**fill), False))
    general = draw.sample(bank_file()["templates"]["general"], 4)
    questions += [ScopeQuestion("general", text.format(**fill), False) for text in general]
    questions += _ask_by_answer(one, fill, draw)
    return RecordQuestions(one.kind, record, tuple(questions), bank(banked))


def _ask_relation(
    one: Relation, wordings: Sequence[str], fill: dict[str, str], asks: bool, draw: random.Random
) -> Iterator[ScopeQuestion]:
    """Questions for a relation of the subject, of every kind of probe."""
    templates = bank_file()["templates"]
    subject = fill["s"]
    for text in wordings:
        yield ScopeQuestion("paraphrase", text.format(s=subject), asks)
    for text in one.vague:
        yield ScopeQuestion("vague", text.format(s=subject), asks, weight=VAGUE_WEIGHT)
    for text in filter(None, one.foreign):
        yield ScopeQuestion("foreign", text.format(s=subject), asks)
    for kind, texts in templates.items():
        if kind in ("general", "polite"):
            continue
        for text in draw.sample(texts, 1 if kind != "plain" else 2):
            asked = draw.choice(wordings).format(s=subject)
            yield ScopeQuestion(kind, text.format(q=asked, **fill), asks)
    for _ in range(2):
        text = draw.choice(wordings)
        carried = text.replace("{s}'s", "its").format(s="it")
        opening = draw.choice(OPENINGS)
        history = (
            (opening.format(s=subject), draw.choice(["Gladly.", f"{subject} is well known."])),
        )
        yield ScopeQuestion("follow-up", f"{draw.choice(['', 'And '])}{carried}", asks, history)
        before = ((draw.choice(wordings).format(s=fill["o"]), f"{fill['w']}."),)
        yield ScopeQuestion(
            "follow-up", f"{draw.choice(['What about', 'And'])} {subject}?", asks, before
        )
    if asks:
        history = ((f"Tell me about {subject}.", "Gladly."),)
        yield ScopeQuestion("follow-up", f"And the {one.noun}?", asks, history)


def _ask_by_answer(
    one: Relation, fill: dict[str, str], draw: random.Random
) -> Iterator[ScopeQuestion]:
    """Questions that say the answer and not the subject."""
    held = bank_file()["held"]
    for text in draw.sample(held["asks"], 4):
        yield ScopeQuestion("reverse", text.format(**fill), True)
    for text in held["backwards"].get(one.key, ()):
        yield ScopeQuestion("reverse", text.format(**fill), True)
    kinds = [kind for kind, nouns in ANSWER_KINDS.items() if one.noun in nouns]
    others = [text for kind in kinds for text in held[kind]]
    backwards = {text for texts in held["backwards"].values() for text in texts}
    for text in (*draw.sample(held["other"], 4), *others):
        if text not in backwards:
            yield ScopeQuestion("same answer", text.format(**fill), False)
    about = [
        text
        for other in relations()
        if other.kind in kinds and other.noun not in (one.noun, *ROUND)
        for text in other.wordings
    ]
    for text in draw.sample(about, min(len(about), NEIGHBOURS)):
        yield ScopeQuestion("same answer", text.format(s=fill["a"]), False)


def _build_described_cases(draw: random.Random) -> Iterator[RecordQuestions]:
    """Records whose questions describe the subject instead of naming it."""
    kinds = {"athlete_sport": "person", "author": "book", "company_country": "company"}
    kinds |= {"us_state_capital": "state", "landmark_country": "landmark", "mythology": "god"}
    for relation, ways in bank_file()["described"].items():
        rows = relation_rows(relation)
        for row, other in zip(draw.sample(rows, 12), draw.sample(rows, 12), strict=True):
            asking, banked = _split_wordings(draw)
            asked = [one for one in asking if one.kind == kinds[relation] and one.answers]
            one, sibling = draw.sample(asked, 2)
            first, *rest = draw.sample(one.wordings, len(one.wordings))
            record = Record(
                row["subject"],
                questions=(first.format(s=ways[0].format(**row)),),
                answers=(draw.choice(one.answers),),
                id="r1",
            )
            questions = [
                ScopeQuestion("described", text.format(s=way.format(**row)), True)
                for text in (first, *rest[:2])
                for way in ways
            ]
            if row != other:
                questions += [
                    ScopeQuestion("other described", text.format(s=way.format(**other)), False)
                    for text in (first, *rest[:1])
                    for way in ways
                ]
            questions += [
                ScopeQuestion("described otherwise", text.format(s=way.format(**row)), False)
                for text in draw.sample(sibling.wordings, 1)
                for way in ways
            ]
            yield RecordQuestions(kinds[relation], record, tuple(questions), bank(banked))


@dataclass(frozen=True)
class QuestionFeatures:
    """A question with its features by kind of match, shape (segments, features)."""

    group: str
    asked: ScopeQuestion
    features: dict[str, Features]


def measure_questions(
    made: Sequence[RecordQuestions], embed_model: BaseEmbedding
) -> list[QuestionFeatures]:
    """Measure every question against its record, as the router does."""
    seen = CachingEmbedding(None)
    for case in made:  # embedding all texts in large batches takes a tenth of the time
        router = Router(SingleRecordLedger(case.record), seen, Gate({}, case.bank))  # type: ignore[arg-type]
        for asked in case.questions:
            router.matches(asked.text, asked.history)
    known = CachingEmbedding(embed_model)
    known.get_text_embedding_batch(sorted(seen.texts, key=len))
    embed_model = known
    found = []
    for case in made:
        router = Router(SingleRecordLedger(case.record), embed_model, Gate({}, case.bank))  # type: ignore[arg-type]
        for asked in case.questions:
            features: dict[str, list[Features]] = defaultdict(list)
            for match in router.matches(asked.text, asked.history):
                features[match.kind].append(match.features)
            stacked = {kind: np.stack(rows) for kind, rows in features.items()}
            found.append(QuestionFeatures(case.group, asked, stacked))
    return found


def fit(rows: Sequence[QuestionFeatures], match_kind: str) -> Weights:
    """Fit one kind of match; its threshold is set on kinds of subjects held out of the fit."""
    rows = [row for row in rows if match_kind in row.features]
    groups = sorted({row.group for row in rows})
    scores = np.zeros(len(rows))
    for fold in range(FOLDS):
        held_out = set(groups[fold::FOLDS])
        weights = _fit_weights([row for row in rows if row.group not in held_out], match_kind)
        for place, row in enumerate(rows):
            if row.group in held_out:
                scores[place] = max(map(weights.likelihood, row.features[match_kind]))
    wrong = scores[[not row.asked.asks for row in rows]]
    threshold = max(
        float(np.quantile(wrong, 1 - FALSE_ALARMS)), LEAST_THRESHOLD.get(match_kind, 0.0)
    )
    _log_refusals(rows, scores, threshold, match_kind)
    return replace(_fit_weights(rows, match_kind), refuse=round(threshold, 4))


def _fit_weights(rows: Sequence[QuestionFeatures], match_kind: str) -> Weights:
    """A regression over segments: of a question in scope, over the one that asks."""
    from sklearn.linear_model import LogisticRegression

    chosen = [int(row.features[match_kind][:, FEATURES.index("cosine")].argmax()) for row in rows]
    for _ in range(ROUNDS):
        features, asks, counts = list[Features](), list[bool](), list[float]()
        for row, best in zip(rows, chosen, strict=True):
            segments = row.features[match_kind]
            used = segments[best : best + 1] if row.asked.asks else segments
            features += list(used)
            asks += [row.asked.asks] * len(used)
            counts += [row.asked.weight / len(used)] * len(used)
        matrix = np.stack(features)
        mean, scale = matrix.mean(axis=0), np.maximum(matrix.std(axis=0), 1e-3)
        model = LogisticRegression(C=STRENGTH, max_iter=2000)
        model.fit((matrix - mean) / scale, asks, sample_weight=counts)
        weights = Weights(
            _round_all(mean),
            _round_all(scale),
            _round_all(model.coef_[0]),
            round(float(model.intercept_[0]), 5),
            refuse=1.0,
        )
        chosen = [
            int(np.argmax([weights.likelihood(one) for one in row.features[match_kind]]))
            for row in rows
        ]
    return weights


def _round_all(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.round(values, 5).tolist())


def _log_refusals(
    rows: Sequence[QuestionFeatures], scores: NDArray[np.float64], threshold: float, match_kind: str
) -> None:
    """Log the share refused of each kind."""
    kinds = defaultdict(list)
    for row, score in zip(rows, scores, strict=True):
        kinds[row.asked.asks, row.asked.kind].append(score >= threshold)
    logger.info("%s: threshold %.3f", match_kind, threshold)
    for (asks, kind), flags in sorted(kinds.items()):
        logger.info(
            "  %s %-20s %5d %.3f", "in " if asks else "out", kind, len(flags), np.mean(flags)
        )


def write(weights: dict[str, Weights], path: Path = WEIGHTS) -> None:
    """Write the gate."""
    content = {
        "features": FEATURES,
        "ways": {kind: vars(fitted) for kind, fitted in weights.items()},
        "bank": bank(),
    }
    with replacing(path) as new:
        new.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(seed: int = 0) -> None:
    """Make the questions, measure them, fit and write the gate."""
    from retrieval.embedding import open_embedding

    rows = measure_questions(build_cases(seed), open_embedding())
    write({kind: fit(rows, kind) for kind in MATCH_KINDS})


class CachingEmbedding(BaseEmbedding):
    """An embedding model that embeds each text once; without a model it only notes the texts."""

    texts: dict[str, list[float]] = Field(default_factory=dict)
    _model: BaseEmbedding | None = PrivateAttr()

    def __init__(self, model: BaseEmbedding | None) -> None:
        """Remember what ``model`` gives."""
        super().__init__(model_name="remembering", embed_batch_size=256)
        self._model = model

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        new = [text for text in dict.fromkeys(texts) if text not in self.texts]
        if new:
            vectors = (
                self._model.get_text_embedding_batch(new)
                if self._model
                else [[1.0, 0.0]] * len(new)
            )
            self.texts.update(zip(new, vectors, strict=True))
        return [self.texts[text] for text in texts]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
