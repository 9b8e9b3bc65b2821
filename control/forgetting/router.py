"""The router: whether a question, with its conversation, asks for a forgotten fact.

Three ways lead from a question to a record: its subject is named (in any spelling, or earlier in
the conversation), an answer stands in the question (reverse, yes or no, multiple choice), or the
question is nearly one of the record's own although it names nobody. What is asked is then judged by
the gate.
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
from control.forgetting.record import Record, backwards
from control.forgetting.segments import QuestionSegment, Turns
from control.forgetting.vector_cache import EncryptedVectorCache

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from control.forgetting.ledger import Ledger

MOST_RECORDS = 64  # judged, and watched, for one question
MOST_TURNS = 8  # of the conversation that are looked at, the newest
NEAREST = 32  # question forms looked at where nobody is named
LEAST_HIDDEN = 4  # letters of a name that is looked for in what a text hides
# A question nearly one of the bank's, and this unlikely in scope, asks for something else:
# "What is the capital of Peru?" may be answered by the name of its largest city, though that is
# forgotten. "Tell me about Peru" is near to nothing in the bank.
ELSEWHERE, UNLIKELY = 0.92, 0.02
# A record whose subject a passage or the answer itself names is watched from here on.
ARM_BROUGHT = 0.05
# A plain question that names the subject is refused outright from here on; from its way's bar on it
# is refused once the model is about to state the fact. Of 19,061 questions beside the facts of the
# fit, of kinds of subjects that it had not seen, 95 reach the bar and none this; "Which other award
# did X win?" beside an award comes near.
SURE = 0.998
# From here on an answer is also compared with the fact in other words. 170 probes of development
# facts lie between 0.05 and this, and none told its fact without the comparison; with it "euro" was
# taken for the continent of Malta, whose currency was asked.
CONCERNED = 0.2
ARM_HELD = 0.1  # 99 % of reverse questions reach it, 16 % of others that hold an answer
# Of the records whose forms are near to a question, so many, this near to what it asks of somebody
# described, are measured.
ALIKE, MOST_IMPLIED = 0.4, 8
MOST_DESCRIBED = 8  # the same where a form of the record names nobody either
VERBATIM = 0.995  # cosine; the question is one of the record's own, word for word
ARM_DESCRIBED = 0.2  # likelihood from which an unnamed subject is watched; too many do no harm

Part = tuple[Record, str, QuestionSegment]


@dataclass(frozen=True)
class Route:
    """The records that a question concerns.

    Attributes:
        refused: The record that it asks for, or ``None``.
        watched: Records whose subject is in play: their answers must be watched for.
        likelihood: That the question asks for a record, in [0, 1]; the highest over all of them.
        check_paraphrase: Ids of the watched records that the question may well be about.
        decide_on_output: Ids of those that it may well ask for: the model's own answer will tell.
    """

    refused: Record | None = None
    watched: tuple[Record, ...] = ()
    likelihood: float = 0.0
    check_paraphrase: frozenset[str] = frozenset()
    decide_on_output: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FactMatch:
    """One part of a question measured against one record.

    Attributes:
        record: The record, or one of those that differ from it in the subject alone.
        way: "named", "held" or "described"; "subject" where naming it is enough, or the fact is
            stated to be confirmed; "implied" where the relation is asked of a subject that is
            described, which only arms.
        window: The part of the question.
        features: As ``gate.FEATURES``; empty for the way "subject".
    """

    record: Record
    way: str
    window: QuestionSegment
    features: Features


class Router:
    """Follows a ledger, whatever process writes to it. Safe to use from several threads."""

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
            gate: The fitted weights; by default those that come with Fulcrum.
            cache: Directory for vectors that any process needs; may be deleted at any time.
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
        usual = {word for texts in self._gate.bank.values() for t in texts for word in t.split()}
        common = {normalize.plain(word) for word in usual}
        self._held_in = FactIndex(embed, self._vectors, common, vector_cache)

    def route(self, question: str, history: Turns = ()) -> Route:
        """Say whether a question asks for a record, and which records are in play.

        Args:
            question: What the user asks now.
            history: The (question, answer) pairs before it.
        """
        highest = 0.0
        watched, likeliest = dict[str, Record](), dict[str, tuple[float, FactMatch]]()
        with self._held_in.lock:
            pieces = self.evidence(question, history)
            mentioned = self._mentioned(history)
        weighed = [(self._likelihood(piece), piece) for piece in pieces]
        for likely, piece in weighed:
            if piece.way == "implied":
                if likely >= ARM_DESCRIBED:
                    watched[piece.record.id] = piece.record
                continue
            if piece.way in ("named", "subject"):
                known = likeliest.get(piece.record.id, (-1.0, piece))
                likeliest[piece.record.id] = max(known, (likely, piece), key=lambda one: one[0])
            blank = segments.BLANK.search(question) is not None
            if piece.way == "held" and (blank or likely >= ARM_HELD):
                # Who asks "____ studied in Karachi" may be told anything but the subjects' names.
                turned = map(backwards, self._held_in.group(piece.record.id)[:MOST_RECORDS])
                watched |= {f"{record.id} backwards": record for record in turned}
            highest = max(highest, likely)
        for likely, piece in likeliest.values():
            if not _elsewhere(piece, likely):
                watched[piece.record.id] = piece.record
        check_paraphrase = frozenset(
            key for key, (likely, _) in likeliest.items() if likely >= CONCERNED
        )
        check_paraphrase |= {record.id for record in mentioned} | watched.keys() - likeliest.keys()
        refused, decide_on_output = self._asked_for(question, weighed)
        watched = decide_on_output | watched | {record.id: record for record in mentioned}
        in_play = tuple(watched.values())[:MOST_RECORDS]
        return Route(
            refused,
            in_play,
            highest,
            check_paraphrase | decide_on_output.keys(),
            frozenset(decide_on_output),
        )

    def _asked_for(
        self, question: str, weighed: Sequence[tuple[float, FactMatch]]
    ) -> tuple[Record | None, dict[str, Record]]:
        """The record that a question surely asks for, if any, and those that it may well ask for.

        Which of both is left to the model's answer only for one sentence in plain English that
        names the subject: nothing is hidden in it, and nothing introduces it,
        such as how the answer is to look.
        """
        introduced = len(segments.sentences(question)) > 1 or ":" in question
        simple = not introduced and not normalize.ODD.search(question)
        refused, highest, decide_on_output = None, 0.0, dict[str, Record]()
        for likely, piece in weighed:
            watched = piece.way == "implied" or piece.record.scope == "claim"
            if watched or likely < self._bar(piece.way):
                continue
            english = simple and piece.way == "named" and not piece.window.foreign
            if english and likely < SURE and normalize.find(question, piece.record.names):
                decide_on_output[piece.record.id] = piece.record
            elif likely > highest:
                refused, highest = piece.record, likely
        return refused, decide_on_output

    def named(self, text: str) -> tuple[Record, ...]:
        """The records whose subject a text names."""
        with self._held_in.lock:
            keys = itertools.islice(self._held_in.subjects.find(text, typos=False), MOST_RECORDS)
            return tuple(self._held_in.records[key] for key in keys)

    def activation(self, question: str) -> Callable[[str], list[Record]]:
        """Says which records a text brings into play that ``question`` does not name.

        Those whose subject the text names, if the question may ask for their fact of a subject that
        it leaves unnamed: what is asked of Chile concerns no passage on Peru.
        """
        asked = segments.describing(question)
        if not asked and not segments.NAMELIKE.search(question):
            asked = segments.following(question, ()) or segments.whole(question)
        known: dict[str, bool] = {}

        def brought(text: str) -> list[Record]:
            with self._held_in.lock:
                named = self.named(text)
                new = [one for one in named if one.id not in known and one.scope != "subject"]
                parts = [(record, "implied", window) for record in new for window in asked]
                self._learn(parts)
                likely = dict.fromkeys((record.id for record in new), 0.0)
                for part in parts:
                    piece = FactMatch(*part, self._features(part))
                    likely[part[0].id] = max(likely[part[0].id], self._likelihood(piece))
            known.update({key: most >= ARM_BROUGHT for key, most in likely.items()})
            return [record for record in named if known.get(record.id, True)]

        return brought

    def wait(self) -> None:
        """Wait until all records are embedded."""
        self._held_in.wait()

    def evidence(self, question: str, history: Turns = ()) -> list[FactMatch]:
        """All that speaks for a question asking for a record, measured and not yet weighed."""
        with self._held_in.lock:
            changes = self._ledger.changes(self._version)
            self._held_in.take(changes)
            self._version = changes.version
            if not self._held_in.records:
                return []
            readings = normalize.readings(question)
            parts = self._named(readings, history)
            unnamed = not parts
            parts += self._held(readings, {record.id for record, _, _ in parts})
            implied = segments.describing(question) if unnamed else []
            loose: list[QuestionSegment] = []
            if unnamed and (implied or self._held_in.describes):
                self._held_in.embed()
                loose = segments.whole(question)
            # In one call of the embedding model; what it finds is mostly embedded already.
            self._learn(parts, [window.text for window in (*loose, *implied)])
            described = self._described(loose, implied)
            self._learn(described)
            return [FactMatch(*part, self._features(part)) for part in (*parts, *described)]

    def _learn(self, parts: Iterable[Part], texts: Iterable[str] = ()) -> None:
        """Embed all that parts of a question, and other texts, are compared by."""
        compared = [part for part in parts if part[1] != "subject"]
        more = [text for part in compared for text in (part[2].text, *self._compared(part).texts())]
        self._vectors.learn([*texts, *more])

    def _compared(self, part: Part) -> FactForms:
        record, way, _ = part
        if way == "held":
            return self._held_in.backward(record.id)
        return self._held_in.asks(record.id) if way == "implied" else self._held_in.shape(record.id)

    def _features(self, part: Part) -> Features:
        if part[1] == "subject":
            return np.empty(0)
        return self._measure.features(part[2], self._compared(part))

    def _likelihood(self, piece: FactMatch) -> float:
        if piece.way == "subject" or (piece.way == "named" and piece.features[0] >= VERBATIM):
            return 1.0
        way = "named" if piece.way == "implied" else piece.way
        return self._gate.ways[way].likelihood(piece.features)

    def _bar(self, way: str) -> float:
        return 1.0 if way == "subject" else self._gate.ways[way].refuse

    def _named(self, readings: Sequence[str], history: Turns) -> list[Part]:
        """Windows for the records whose subject is named, in the question or before it."""
        parts: list[Part] = []
        for number, reading in enumerate(readings):
            found = _whole_names(reading, self._held_in.subjects.find(reading, typos=number == 0))
            for key, places in itertools.islice(found.items(), MOST_RECORDS):
                record = self._held_in.records[key]
                if number and max(end - start for start, end in places) < LEAST_HIDDEN:
                    continue
                if record.scope == "subject" or _stated(record, reading):
                    parts.append((record, "subject", QuestionSegment(reading)))
                    continue
                text, spots = normalize.legible(reading, places)
                shown = segments.naming(text, spots, record.spans, history)
                parts += [(record, "named", window) for window in shown]
        if parts:
            return parts
        for record in self._mentioned(history, newest=True):
            way = "subject" if record.scope == "subject" else "named"
            parts += [(record, way, w) for w in segments.following(readings[0], record.spans)]
        return parts

    def _mentioned(self, history: Turns, newest: bool = False) -> list[Record]:
        """Records whose subject the conversation names, or the ``newest`` turn with any name."""
        found: dict[str, Record] = {}
        for asked, answered in reversed(history[-MOST_TURNS:]):
            for key in self._held_in.subjects.find(f"{asked}\n{answered}", typos=False):
                found[key] = self._held_in.records[key]
            if newest and (found or segments.NAMELIKE.search(asked)):
                break
        return list(found.values())[:MOST_RECORDS]

    def _held(self, readings: Sequence[str], named: set[str]) -> list[Part]:
        """Windows for the records whose answer the question says, but not their subject."""
        parts: list[Part] = []
        for number, reading in enumerate(readings):
            found = _whole_names(reading, self._held_in.answers.find(reading, typos=False))
            for key, places in itertools.islice(found.items(), MOST_RECORDS):
                record = self._held_in.of_group(key)
                hidden = number and max(end - start for start, end in places) < LEAST_HIDDEN
                if record.id not in named and not hidden:
                    shown = segments.holding(*normalize.legible(reading, places))
                    parts += [(record, "held", window) for window in shown]
        return parts

    def _described(
        self, loose: Sequence[QuestionSegment], implied: Sequence[QuestionSegment]
    ) -> list[Part]:
        """Windows for the records one of whose question forms is near, though nobody is named."""
        if not loose or not len(self._held_in.nearest):
            return []
        asked = self._vectors([window.text for window in loose])
        hits = self._held_in.nearest.search(asked, NEAREST)
        found: list[Part] = []
        for window, row in zip(loose, hits, strict=True):
            forms: dict[str, str] = {}  # by record, the nearest of those that do not name a subject
            for key, number in row:
                form = self._held_in.shape(key).forms[number]
                if segments.SUBJECT not in form and len(forms) < MOST_DESCRIBED:
                    forms.setdefault(key, form)
            for key, form in forms.items():
                known = set(normalize.plain(form).split())
                strange = tuple(name for name in window.names if not known >= _words(name))
                seen = replace(window, names=strange)
                found.append((self._held_in.records[key], "described", seen))
        near = dict.fromkeys(key for row in hits for key, _ in row)
        for other in implied:
            alike = self._alike(near, other)
            found += [(self._held_in.records[key], "implied", other) for key in alike]
        return found

    def _alike(self, keys: Iterable[str], window: QuestionSegment) -> list[str]:
        """Those of the records that ask most nearly what a window does."""
        asks = {key: self._held_in.asks(key) for key in keys}
        unlike = set(asks.values())
        self._vectors.learn([window.text, *(form for each in unlike for form in each.forms)])
        [asked] = self._vectors([window.text])
        cosines = {each: float((self._vectors(each.forms) @ asked).max()) for each in unlike}
        alike = [key for key, each in asks.items() if cosines[each] >= ALIKE]
        return sorted(alike, key=lambda key: -cosines[asks[key]])[:MOST_IMPLIED]


def _whole_names(
    text: str, found: dict[str, list[normalize.Place]]
) -> dict[str, list[normalize.Place]]:
    """Names found in a text, but for parts of a longer one: Mexico City is not Mexico."""
    longer = [place[:2] for place in normalize.find(text, long_names())] if found else []

    def within(start: int, end: int) -> bool:
        return any(a <= start and end <= b and b - a > end - start for a, b in longer)

    kept = {key: [one for one in places if not within(*one)] for key, places in found.items()}
    return {key: places for key, places in kept.items() if places}


def _stated(record: Record, text: str) -> bool:
    """Whether a text that names the subject says the answer too, and asks whether that is so."""
    return bool(segments.CONFIRMS.search(text)) and normalize.holds(text, record.spans)


def _elsewhere(piece: FactMatch, likely: float) -> bool:
    """Whether a part of a question clearly asks for something else about the subject."""
    if piece.way == "subject":
        return False
    cosine, margin = piece.features[:2]  # to the record's forms, and its lead over the bank's
    return likely < UNLIKELY and bool(cosine - margin >= ELSEWHERE)


def _words(text: str) -> set[str]:
    return set(normalize.plain(text).split())
