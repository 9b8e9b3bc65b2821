"""The router: whether a question, with its conversation, asks for a forgotten fact.

A question can match a record in three ways: its subject is named (in any spelling, or earlier in
the conversation), the question contains an answer (reversed, yes or no, multiple choice), or it is
similar to one of the record's own questions although it names no subject. The gate then scores
whether the match asks for the fact.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from control.forgetting import normalize, segments
from control.forgetting.aliases import long_names
from control.forgetting.fact_index import FactIndex
from control.forgetting.gate import FactForms, Features, Gate, SimilarityMeasure, VectorStore
from control.forgetting.record import Record, reversed_fact
from control.forgetting.segments import QuestionSegment, Turns
from control.forgetting.vector_cache import EncryptedVectorCache

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from control.forgetting.ledger import Ledger

MOST_RECORDS = 64  # scored, and watched, for one question
MOST_TURNS = 8  # of the conversation that are searched, the newest
NEAREST = 32  # question forms compared where no subject is named
LEAST_HIDDEN = 4  # letters of a name that is searched for in decoded text
# A question this similar to one of the bank's, and this unlikely, asks for something else:
# "What is the capital of Peru?" may be answered by the name of its largest city, though that is
# forgotten. "Tell me about Peru" is similar to nothing in the bank.
OTHER_QUESTION, UNLIKELY = 0.92, 0.02
# Likelihood from which a record whose subject a passage or the answer names is watched.
ACTIVATION_THRESHOLD = 0.05
# A plain question that names the subject is refused at once from this likelihood; from the lower
# threshold of its kind of match it is refused once the model is about to state the fact. Of 19,061
# neighbouring questions, of kinds of subjects that the fit had not seen, 95 reach that threshold
# and none this; "Which other award did X win?" beside an award comes close.
CERTAIN = 0.998
# From this likelihood an answer is also checked for paraphrases of the fact. 170 probes of
# development facts lie between 0.05 and this, and none leaked without the check; with it "euro" was
# taken for the continent of Malta, whose currency was asked.
PARAPHRASE_THRESHOLD = 0.2
# A guess that is to be confirmed is refused from here: nothing in a yes or no can be guarded. Of
# 800 such guesses at 100 calibration facts, right and wrong ones, all reach the gate's own bar;
# this lower one is for rarer wordings and was set on the questions of the tests alone.
GUESSED = 0.7
REVERSED_THRESHOLD = 0.1  # 99 % of reversed questions reach it, 16 % of others that hold an answer
# Of the records with a form similar to a question that describes its subject, at most so many, and
# only from this similarity to what it asks, are scored.
LEAST_SIMILARITY, MOST_SIMILAR = 0.4, 8
MOST_DESCRIBED = 8  # the same where the form does not name the record's subject either
VERBATIM = 0.995  # cosine from which the question is literally one of the record's own
DESCRIBED_THRESHOLD = 0.2  # from which a described subject is watched; too many are harmless

Part = tuple[Record, str, QuestionSegment]


@dataclass(frozen=True)
class Route:
    """The records that a question concerns.

    Attributes:
        refused: The record that it asks for, or ``None``.
        watched: Active records: their answers must not be stated.
        likelihood: That the question asks for a record, in [0, 1]; the highest over all of them.
        check_paraphrase: Ids of the watched records whose paraphrases are suppressed too.
        decide_on_output: Ids of those that it may ask for: refused if the output states one.
    """

    refused: Record | None = None
    watched: tuple[Record, ...] = ()
    likelihood: float = 0.0
    check_paraphrase: frozenset[str] = frozenset()
    decide_on_output: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FactMatch:
    """The comparison of one segment of a question with one record.

    Attributes:
        record: The record, or one that differs from it in the subject only.
        kind: "named", "held" or "described"; "subject" where naming it is enough; "implied" where
            the relation is asked of a subject that is described. "held" and "implied" only
            activate the record: were "Who was born on 3 March 1987?" refused, and not the same
            with another date, the refusal would tell the date.
        segment: The segment.
        features: As ``gate.FEATURES``; empty for the kind "subject".
    """

    record: Record
    kind: str
    segment: QuestionSegment
    features: Features


class Router:
    """Routes questions by the current records of a ledger. Thread-safe."""

    def __init__(
        self,
        ledger: "Ledger",
        embed_model: "BaseEmbedding",
        gate: Gate | None = None,
        cache: Path | None = None,
        vector_cache: EncryptedVectorCache | None = None,
    ) -> None:
        """Nothing is read or embedded before the first question.

        Args:
            ledger: The records.
            embed_model: Its vectors are compared by cosine.
            gate: The fitted weights; by default the packaged ones.
            cache: Directory for vectors that do not depend on the ledger; may be deleted.
            vector_cache: Stores the records' vectors between processes.
        """
        self._ledger = ledger
        self._version = 0
        self._gate = gate or Gate.load()
        embed = embed_model.get_text_embedding_batch
        self._vectors = VectorStore(
            embed if vector_cache is None else vector_cache.read_through(embed)
        )
        kept = cache and cache / f"questions-{self._gate.fingerprint(embed_model.model_name)}.npy"
        self._measure = SimilarityMeasure(self._gate.bank, self._vectors, kept)
        bank_words = {
            word for texts in self._gate.bank.values() for t in texts for word in t.split()
        }
        common = {normalize.plain(word) for word in bank_words}
        self._index = FactIndex(embed, self._vectors, common, vector_cache)

    def route(self, question: str, history: Turns = ()) -> Route:
        """Whether a question asks for a record, and which records are active.

        Args:
            question: What the user asks now.
            history: The (question, answer) pairs before it.
        """
        highest = 0.0
        watched, likeliest = dict[str, Record](), dict[str, tuple[float, FactMatch]]()
        with self._index.lock:
            matches = self.matches(question, history)
            mentioned = self._in_conversation(history)
        scored = [(self._likelihood(match), match) for match in matches]
        for likelihood, match in scored:
            if match.kind == "implied":
                if likelihood >= DESCRIBED_THRESHOLD:
                    watched[match.record.id] = match.record
                continue
            if match.kind in ("named", "subject"):
                known = likeliest.get(match.record.id, (-1.0, match))
                likeliest[match.record.id] = max(known, (likelihood, match), key=lambda one: one[0])
            blank = segments.BLANK.search(question) is not None
            if match.kind == "held" and (blank or likelihood >= REVERSED_THRESHOLD):
                # The answer to "____ studied in Karachi" may be anything but the subjects' names.
                reversed_facts = map(
                    reversed_fact, self._index.group(match.record.id)[:MOST_RECORDS]
                )
                watched |= {f"{record.id} backwards": record for record in reversed_facts}
            highest = max(highest, likelihood)
        for likelihood, match in likeliest.values():
            if not _asks_otherwise(match, likelihood):
                watched[match.record.id] = match.record
        check_paraphrase = frozenset(
            key for key, (likelihood, _) in likeliest.items() if likelihood >= PARAPHRASE_THRESHOLD
        )
        check_paraphrase |= {record.id for record in mentioned} | watched.keys() - likeliest.keys()
        refused, decide_on_output = self._asked_for(question, scored)
        watched = decide_on_output | watched | {record.id: record for record in mentioned}
        active = tuple(watched.values())[:MOST_RECORDS]
        return Route(
            refused,
            active,
            highest,
            check_paraphrase | decide_on_output.keys(),
            frozenset(decide_on_output),
        )

    def _asked_for(
        self, question: str, scored: Sequence[tuple[float, FactMatch]]
    ) -> tuple[Record | None, dict[str, Record]]:
        """The record that a question certainly asks for, if any, and those that it may ask for.

        The decision is left to the model's output only for a single sentence in plain English that
        names the subject, with nothing encoded and without an introduction, such as an instruction
        on the form of the answer.
        """
        introduced = len(segments.sentences(question)) > 1 or ":" in question
        simple = not introduced and not normalize.ODD.search(question)
        refused, highest, decide_on_output = None, 0.0, dict[str, Record]()
        for likelihood, match in scored:
            watched = match.kind in ("implied", "held") or match.record.scope == "claim"
            if watched or likelihood < self._threshold(match, question):
                continue
            english = simple and match.kind == "named" and not match.segment.foreign
            # A yes or no tells a guess right or wrong, whatever words it is given in.
            english = english and not (match.segment.answer or segments.CONFIRMS.search(question))
            if english and likelihood < CERTAIN and normalize.find(question, match.record.names):
                decide_on_output[match.record.id] = match.record
            elif likelihood > highest:
                refused, highest = match.record, likelihood
        return refused, decide_on_output

    def named(self, text: str) -> tuple[Record, ...]:
        """The records whose subject a text names."""
        with self._index.lock:
            keys = itertools.islice(self._index.subjects.find(text, typos=False), MOST_RECORDS)
            return tuple(self._index.records[key] for key in keys)

    def activation(self, question: str) -> Callable[[str], list[Record]]:
        """A function that gives the records that a text activates for a question.

        Those whose subject the text names, if the question may ask for their fact about a subject
        that it does not name: a question about Chile activates nothing in a passage on Peru.
        """
        asked = segments.describing_subject(question)
        if not asked and not segments.NAMELIKE.search(question):
            asked = segments.follow_up(question, ()) or segments.unmasked(question)
        known: dict[str, bool] = {}

        def activate(text: str) -> list[Record]:
            with self._index.lock:
                named = self.named(text)
                new = [one for one in named if one.id not in known and one.scope != "subject"]
                parts = [(record, "implied", segment) for record in new for segment in asked]
                self._embed(parts)
                likelihoods = dict.fromkeys((record.id for record in new), 0.0)
                for part in parts:
                    match = FactMatch(*part, self._features(part))
                    likelihoods[part[0].id] = max(likelihoods[part[0].id], self._likelihood(match))
            known.update({key: most >= ACTIVATION_THRESHOLD for key, most in likelihoods.items()})
            return [record for record in named if known.get(record.id, True)]

        return activate

    def wait(self) -> None:
        """Wait until all records are embedded."""
        self._index.wait()

    def matches(self, question: str, history: Turns = ()) -> list[FactMatch]:
        """The matches of a question with records, with their features, not yet scored."""
        with self._index.lock:
            changes = self._ledger.changes(self._version)
            self._index.apply(changes)
            self._version = changes.version
            if not self._index.records:
                return []
            readings = normalize.readings(question)
            parts = self._naming_subject(readings, history)
            unnamed = not parts
            parts += self._holding_answer(readings, {record.id for record, _, _ in parts})
            implied = segments.describing_subject(question) if unnamed else []
            unmasked: list[QuestionSegment] = []
            if unnamed and (implied or self._index.describes):
                self._index.embed()
                unmasked = segments.unmasked(question)
            # One call of the embedding model; most of what is compared next is embedded already.
            self._embed(parts, [segment.text for segment in (*unmasked, *implied)])
            described = self._similar_forms(unmasked, implied)
            self._embed(described)
            return [FactMatch(*part, self._features(part)) for part in (*parts, *described)]

    def _embed(self, parts: Iterable[Part], texts: Iterable[str] = ()) -> None:
        """Embed segments, the forms that they are compared with, and other texts, in one call."""
        compared = [part for part in parts if part[1] != "subject"]
        more = [text for part in compared for text in (part[2].text, *self._compared(part).texts())]
        self._vectors.embed([*texts, *more])

    def _compared(self, part: Part) -> FactForms:
        record, kind, _ = part
        if kind == "held":
            return self._index.reversed_forms(record.id)
        return (
            self._index.relation_forms(record.id)
            if kind == "implied"
            else self._index.fact_forms(record.id)
        )

    def _features(self, part: Part) -> Features:
        if part[1] == "subject":
            return np.empty(0)
        return self._measure.features(part[2], self._compared(part))

    def _likelihood(self, match: FactMatch) -> float:
        if match.kind == "subject" or (match.kind == "named" and match.features[0] >= VERBATIM):
            return 1.0
        kind = "named" if match.kind == "implied" else match.kind
        return self._gate.weights[kind].likelihood(match.features)

    def _threshold(self, match: FactMatch, question: str) -> float:
        """The likelihood from which a question is refused, or decided on the output."""
        if match.kind == "subject":
            return 1.0
        refuse = self._gate.weights[match.kind].refuse
        guessed = match.segment.answer and segments.CONFIRMS.search(question)
        return min(refuse, GUESSED) if guessed else refuse

    def _naming_subject(self, readings: Sequence[str], history: Turns) -> list[Part]:
        """Segments for the records whose subject is named, in the question or before it."""
        parts: list[Part] = []
        for number, reading in enumerate(readings):
            found = _whole_names(reading, self._index.subjects.find(reading, typos=number == 0))
            for key, places in itertools.islice(found.items(), MOST_RECORDS):
                record = self._index.records[key]
                if number and max(end - start for start, end in places) < LEAST_HIDDEN:
                    continue
                if record.scope == "subject":
                    parts.append((record, "subject", QuestionSegment(reading)))
                    continue
                text, places_in_text = normalize.legible(reading, places)
                found_segments = segments.naming_subject(
                    text, places_in_text, record.spans, history, guesses=number == 0
                )
                parts += [(record, "named", segment) for segment in found_segments]
        if parts:
            return parts
        for record in self._in_conversation(history, newest=True):
            kind = "subject" if record.scope == "subject" else "named"
            parts += [(record, kind, one) for one in segments.follow_up(readings[0], record.spans)]
        return parts

    def _in_conversation(self, history: Turns, newest: bool = False) -> list[Record]:
        """Records whose subject the conversation names, or the ``newest`` turn with any name."""
        found: dict[str, Record] = {}
        for asked, answered in reversed(history[-MOST_TURNS:]):
            for key in self._index.subjects.find(f"{asked}\n{answered}", typos=False):
                found[key] = self._index.records[key]
            if newest and (found or segments.NAMELIKE.search(asked)):
                break
        return list(found.values())[:MOST_RECORDS]

    def _holding_answer(self, readings: Sequence[str], named: set[str]) -> list[Part]:
        """Segments for the records whose answer the question contains, but not their subject."""
        parts: list[Part] = []
        for number, reading in enumerate(readings):
            found = _whole_names(reading, self._index.answers.find(reading, typos=False))
            for key, places in itertools.islice(found.items(), MOST_RECORDS):
                record = self._index.of_group(key)
                hidden = number and max(end - start for start, end in places) < LEAST_HIDDEN
                if record.id not in named and not hidden:
                    found_segments = segments.holding_answer(*normalize.legible(reading, places))
                    parts += [(record, "held", segment) for segment in found_segments]
        return parts

    def _similar_forms(
        self, unmasked: Sequence[QuestionSegment], implied: Sequence[QuestionSegment]
    ) -> list[Part]:
        """Segments for the records with a similar question form, though no subject is named."""
        if not unmasked or not len(self._index.nearest):
            return []
        asked = self._vectors([segment.text for segment in unmasked])
        hits = self._index.nearest.search(asked, NEAREST)
        found: list[Part] = []
        for segment, row in zip(unmasked, hits, strict=True):
            forms: dict[str, str] = {}  # by record, the nearest of those that do not name a subject
            for key, number in row:
                form = self._index.fact_forms(key).forms[number]
                if segments.SUBJECT not in form and len(forms) < MOST_DESCRIBED:
                    forms.setdefault(key, form)
            for key, form in forms.items():
                known = set(normalize.plain(form).split())
                other_names = tuple(name for name in segment.names if not known >= _words(name))
                masked = replace(segment, names=other_names)
                found.append((self._index.records[key], "described", masked))
        near = dict.fromkeys(key for row in hits for key, _ in row)
        for other in implied:
            similar = self._most_similar(near, other)
            found += [(self._index.records[key], "implied", other) for key in similar]
        return found

    def _most_similar(self, keys: Iterable[str], segment: QuestionSegment) -> list[str]:
        """The records whose relation is most similar to what a segment asks."""
        asks = {key: self._index.relation_forms(key) for key in keys}
        distinct = set(asks.values())
        self._vectors.embed([segment.text, *(form for each in distinct for form in each.forms)])
        [asked] = self._vectors([segment.text])
        cosines = {each: float((self._vectors(each.forms) @ asked).max()) for each in distinct}
        similar = [key for key, each in asks.items() if cosines[each] >= LEAST_SIMILARITY]
        return sorted(similar, key=lambda key: -cosines[asks[key]])[:MOST_SIMILAR]


def _whole_names(
    text: str, found: dict[str, list[normalize.Place]]
) -> dict[str, list[normalize.Place]]:
    """Names found in a text, except parts of longer ones: Mexico City is not Mexico."""
    longer = [place[:2] for place in normalize.find(text, long_names())] if found else []

    def within(start: int, end: int) -> bool:
        return any(a <= start and end <= b and b - a > end - start for a, b in longer)

    kept = {key: [one for one in places if not within(*one)] for key, places in found.items()}
    return {key: places for key, places in kept.items() if places}


def _asks_otherwise(match: FactMatch, likelihood: float) -> bool:
    """Whether a match clearly asks for something else about the subject."""
    if match.kind == "subject":
        return False
    cosine, margin = match.features[:2]  # to the record's forms, and its lead over the bank's
    return likelihood < UNLIKELY and bool(cosine - margin >= OTHER_QUESTION)


def _words(text: str) -> set[str]:
    return set(normalize.plain(text).split())
