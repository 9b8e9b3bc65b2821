"""The router: whether a question, with its conversation, asks for a forgotten fact.

A question can match a record in four ways: its subject is named (in any spelling), it leaves its
subject to the conversation, which names it, it contains an answer, or it is similar to one of the
record's own questions although it names no subject. The classifier then decides whether the match
asks for the fact.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from control.forgetting import normalize, segments
from control.forgetting.aliases import long_names
from control.forgetting.classifier import (
    FactJudge,
    asked,
    asked_backwards,
    in_conversation,
    stated,
)
from control.forgetting.encodings import readable, transformed
from control.forgetting.fact_index import FactIndex
from control.forgetting.guard import Route
from control.forgetting.matcher import LEAST_PART, name_parts
from control.forgetting.names import NameMatcher
from control.forgetting.questions import asked_forms
from control.forgetting.record import Record, reversed_fact
from control.forgetting.segments import Turns
from control.forgetting.vector_cache import EncryptedVectorCache, unit
from control.forgetting.word_translation import translated
from foundation.text import ARTICLES

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from control.forgetting.ledger import Ledger

MOST_RECORDS = 64  # judged, and watched, for one question
MOST_TURNS = 8  # of the conversation that are searched, the newest
NEAREST, MOST_DESCRIBED = 32, 8  # question forms and records compared where no subject is named
MOST_GUESSES = 4  # in one message that are tried
LEAST_STEM = 5  # letters by which words count as alike, as in allergy and allergic
LEAST_HIDDEN = 4  # letters of a name that is searched for in decoded text
# Likelihood that a question asks for a record from which it is refused once the answer is about to
# state the fact, or at once where it asks to confirm a guess; from which it is refused at once; and
# the same for a plain question, of whose answer the guard sees all that could be told. Of messages
# of facts held out (`fulcrum eval forgetting --measure classifier`) 90, 83 and 31 % of those that
# ask reach them, and 7, 4 and 0.1 % of those beside them, written to be as close as can be.
ASKS, REFUSED, CERTAIN = 0.3, 0.6, 0.985
# Likelihood from which a guess in place of the answer states the fact. Of the facts held out, whose
# questions say what they ask, it finds nothing that `ASKS` does not (128 of 138 right guesses and
# 173 of 204 wrong ones are refused), and refuses 48 instead of 32 of 423 questions that ask to
# confirm something else; of a record with a vague question, it finds most guesses.
GUESSED = 0.88
NEVER = math.inf  # no likelihood
WATCHED = 0.02  # from which the record is watched: 98 %, and 23 % of those beside them
# From which a question that gives an answer may not be answered by the subject: 98 % of 500 made
# questions that ask for it and 6 % of 500 others that give it, on which the classifier was trained.
BACKWARDS = 0.2
BACKWARDS_KEY = " backwards"  # ends the key of a fact that is watched backwards, besides itself
PARAPHRASED = 0.9  # share of what asks for a fact from which its paraphrases are watched, too


@dataclass(frozen=True)
class Match:
    """A record that a question may ask for.

    Attributes:
        record: The record, or for the kind "held" one that differs from it in the subject only.
        kind: "named", "described"; "held" where the question gives an answer, which only activates
            the record: were "Who was born on 3 March 1987?" refused, and not the same with another
            date, the refusal would tell the date; "subject" where naming it is enough.
        excerpts: The parts of the question that are read.
        guesses: What it may take for the answer, rightly or wrongly.
        as_right: The excerpts with the answer in place of what may be a guess, see `_as_right`;
            read instead of them where there are any.
        asks_from: Likelihood from which the question may ask for the fact, so that the output
            decides; below it the record is watched only.
        refused_from: Likelihood from which it is refused at once.
        guessed: Whether it gives another value where the answer would stand, for the kind "held".
    """

    record: Record
    kind: str
    excerpts: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()
    as_right: tuple[str, ...] = ()
    asks_from: float = ASKS
    refused_from: float = REFUSED
    guessed: bool = False


class Router:
    """Routes questions by the current records of a ledger. Thread-safe."""

    def __init__(
        self,
        ledger: "Ledger",
        embed_model: "BaseEmbedding",
        judge: FactJudge,
        vector_cache: EncryptedVectorCache | None = None,
        common_words: Iterable[str] = (),
    ) -> None:
        """Nothing is read or embedded before the first question.

        Args:
            ledger: The records.
            embed_model: Finds the questions that are similar to one that names no subject.
            judge: Decides whether a question asks for a fact.
            vector_cache: Stores the records' vectors between processes.
            common_words: Normalised words that are never a name with a typo.
        """
        self._ledger = ledger
        self._version = 0
        self._embed_model = embed_model
        self._judge = judge
        embed = embed_model.get_text_embedding_batch
        self._index = FactIndex(embed, frozenset(common_words), vector_cache)

    def route(self, question: str, history: Turns = ()) -> Route:
        """Whether a question asks for a record, and which records are active."""
        with self._index.lock:
            matches = self._matches(question, history)
            mentioned = self._in_conversation(history)
            judged = list(zip(matches, self._likelihoods(matches, history), strict=True))
            watched = {record.id: record for record in mentioned}
            backwards = set[str]()
            for match, likelihood in judged:
                active = self._watched(match, likelihood, question)
                watched |= active
                if match.kind == "held" and not match.guessed:
                    backwards |= {record.id for record in active.values()}
        asking = [(match, likelihood) for match, likelihood in judged if match.kind != "held"]
        refused, decide_on_output = _asked_for(asking)
        described = {match.record.id for match in matches if match.kind == "described"}
        described -= {record.id for record in mentioned} | decide_on_output.keys()
        check_paraphrase = {
            *(match.record.id for match, p in asking if p >= PARAPHRASED * match.asks_from),
            *(record.id for record in mentioned),
            *decide_on_output,
        }
        return Route(
            refused,
            tuple((decide_on_output | watched).values())[:MOST_RECORDS],
            max((likelihood for _, likelihood in judged), default=0.0),
            frozenset(check_paraphrase),
            frozenset(decide_on_output),
            frozenset(described),
            frozenset(backwards),
        )

    def _likelihoods(self, matches: Sequence[Match], history: Turns) -> list[float]:
        """How likely the question asks for each record: by the excerpt that asks most.

        Also by what states the fact with a guess in place of the answer: "Did she win the Golden
        Pen?" asks for her awards.
        """
        likely = [float(match.kind == "subject" or _is_form(match)) for match in matches]
        asks, states = [], []  # each with the index of its match
        for number, match in enumerate(matches):
            turns = history if match.kind == "named" else ()
            wanted = (asked_backwards if match.kind == "held" else asked)(match.record)
            # A guess is read as the right one would be, so that both are routed alike.
            read = match.as_right or match.excerpts
            asks += [(number, (in_conversation(one, turns), wanted)) for one in read]
            for guess in match.guesses if match.excerpts else ():
                fact = stated(replace(match.record, answers=(guess,)))
                states.append((number, (match.excerpts[0], fact)))
        asking = self._judge.asks([pair for _, pair in asks]) if asks else []
        stating = self._judge.states([pair for _, pair in states]) if states else []
        for (number, _), p in zip(asks, asking, strict=True):
            likely[number] = max(likely[number], p)
        for (number, _), p in zip(states, stating, strict=True):
            likely[number] = max(likely[number], float(p >= GUESSED))
        return likely

    def _watched(self, match: Match, likelihood: float, question: str) -> dict[str, Record]:
        """The records that a match activates."""
        if match.kind != "held":
            begun = match.kind == "named" and segments.unfinished(question)
            active = likelihood >= WATCHED or begun or match.record.scope == "claim"
            return {match.record.id: match.record} if active else {}
        if likelihood < BACKWARDS and segments.BLANK.search(question) is None:
            return {}
        # The answer to "____ studied in Karachi" may be anything but the subjects' names.
        facts = map(reversed_fact, self._index.group(match.record.id)[:MOST_RECORDS])
        return {f"{record.id}{BACKWARDS_KEY}": record for record in facts}

    def named(self, text: str) -> tuple[Record, ...]:
        """The records whose subject a text names."""
        with self._index.lock:
            keys = itertools.islice(self._index.subjects.find(text, typos=False), MOST_RECORDS)
            return tuple(self._index.records[key] for key in keys)

    def activation(self, question: str) -> Callable[[str], list[Record]]:
        """A function that gives the records that a text activates for a question.

        Those whose subject the text names, if the question may ask for their fact about a subject
        that it does not name.
        """
        known: dict[str, bool] = {}

        def activate(text: str) -> list[Record]:
            with self._index.lock:
                named = self.named(text)
                new = [one for one in named if one.id not in known and one.scope != "subject"]
                parts = segments.excerpts(question)[-1:]
                pairs = [(f"{one.subject}: {part}", asked(one)) for one in new for part in parts]
                likely = self._judge.asks(pairs) if pairs else []
            known.update((one.id, p >= WATCHED) for one, p in zip(new, likely, strict=False))
            return [record for record in named if known.get(record.id, True)]

        return activate

    def wait(self) -> None:
        """Wait until all records are embedded."""
        self._index.wait()

    def _matches(self, question: str, history: Turns) -> list[Match]:
        """The records that a question may ask for, not yet judged."""
        changes = self._ledger.changes(self._version)
        self._index.apply(changes)
        self._version = changes.version
        if not self._index.records:
            return []
        found = self._named_or_held(readable(question))
        # A question that is read as it stands is not read backwards, too.
        found = found or self._named_or_held(transformed(question), hidden=True)
        if any(match.kind != "held" for match in found):
            return found
        carried = self._left_to_conversation(question, history)
        # What gives the answer cannot ask for it, if nothing in it is a part of the subject's name.
        held = {one.id for match in found for one in self._index.group(match.record.id)}
        said = normalize.words_of([question])
        others = {key for key in held if not said & name_parts(self._index.records[key])}
        # Nor what names something else of which the subject's name is a part.
        others |= self._index.subjects.find(question).keys()
        return [*found, *(carried or self._described(question, others))]

    def _named_or_held(self, readings: Sequence[str], hidden: bool = False) -> list[Match]:
        """Matches with the records whose subject or answer is in a text.

        Args:
            readings: The text and its possible decodings.
            hidden: Whether the first of them is a decoding, too.
        """
        found: list[Match] = []
        for number, reading in enumerate(readings):
            decoded = hidden or number > 0
            for record, places in self._names_in(reading, self._index.subjects, decoded, True):
                found.append(_named(record, reading, places, decoded))
        named = {one.record.id for one in found}
        for number, reading in enumerate(readings):
            decoded = hidden or number > 0
            for record, places in self._names_in(reading, self._index.answers, decoded, False):
                if record.id not in named:
                    texts = _in_plain_words(reading, places, record.answers[0])
                    found.append(Match(record, "held", texts))
        return found

    def _names_in(
        self, text: str, names: NameMatcher, decoded: bool, typos: bool
    ) -> Iterator[tuple[Record, list[normalize.Place]]]:
        """Records whose names a text holds, and where; in what was decoded only long enough ones.

        Names with typos count where ``typos`` is set and the text was not decoded.
        """
        found = _whole_names(text, names.find(text, typos=typos and not decoded))
        for key, places in itertools.islice(found.items(), MOST_RECORDS):
            if not decoded or max(end - start for start, end in places) >= LEAST_HIDDEN:
                yield self._index.records[key], places

    def _left_to_conversation(self, question: str, history: Turns) -> list[Match]:
        """Matches with the records whose subject the conversation names, and not the question."""
        if not history or not segments.follow_up(question):
            return []
        texts = tuple(segments.excerpts(translated(question) or question))
        return [
            Match(record, "subject" if record.scope == "subject" else "named", texts)
            for record in self._in_conversation(history, newest=True)
        ]

    def _in_conversation(self, history: Turns, newest: bool = False) -> list[Record]:
        """Records whose subject the conversation names, or the ``newest`` turn with any name."""
        found: dict[str, Record] = {}
        for question, answer in reversed(history[-MOST_TURNS:]):
            for key in self._index.subjects.find(f"{question}\n{answer}", typos=False):
                found[key] = self._index.records[key]
            if newest and (found or segments.NAMELIKE.search(question)):
                break
        return list(found.values())[:MOST_RECORDS]

    def _described(self, question: str, others: set[str]) -> list[Match]:
        """Matches with the records with a similar question form, though no subject is named.

        Those in ``others``, by id, it cannot ask for.
        """
        self._index.embed()
        if not len(self._index.nearest):
            return []
        parts = segments.excerpts(translated(question) or question)
        vectors = unit(self._embed_model.get_text_embedding_batch(parts))
        found: dict[str, list[str]] = {}
        for part, row in zip(parts, self._index.nearest.search(vectors, NEAREST), strict=True):
            for key in [key for key in dict.fromkeys(row) if key not in others][:MOST_DESCRIBED]:
                found.setdefault(key, []).append(part)
        matches = [
            _described(question, self._index.records[key], tuple(excerpts))
            for key, excerpts in found.items()
        ]
        return [*matches, *filter(None, map(_guessed_backwards, matches))]


def _is_form(match: Match) -> bool:
    """Whether a message is one of the questions that the record itself gives.

    Or gives the answer and, but for names, says nothing that its questions and the answer do not:
    "Who at Mostwerk is allergic to penicillin?" can only ask of whom that holds. Or it has the
    relation with the answer after it.
    """
    record = match.record
    if match.kind == "held":
        holding = normalize.plain(f"{record.relation} {record.answers[0]}")
        if record.relation and any(holding in normalize.plain(one) for one in match.excerpts):
            return True
        own = segments.content(" ".join((*asked_forms(record), record.answers[0])))
        said = (segments.content(segments.NAMELIKE.sub(" ", one)) for one in match.excerpts)
        return any(words <= own for words in said)
    forms = {_bare(form) for form in asked_forms(record)}
    return match.kind == "named" and any(_bare(one) in forms for one in match.excerpts)


def _bare(question: str) -> str:
    """The words of a question without articles, which a record's subject need not have."""
    return " ".join(word for word in normalize.plain(question).split() if word not in ARTICLES)


def _named(record: Record, text: str, places: Sequence[normalize.Place], decoded: bool) -> Match:
    """The match of a text with a record whose subject it names."""
    if record.scope == "subject":
        return Match(record, "subject")
    excerpts = _in_plain_words(text, places, record.subject)
    if segments.CONFIRMS.search(text):  # nothing in a yes or no can be guarded
        right = tuple(one for part in excerpts for one in _as_right(part, record) or [part])
        return Match(record, "named", excerpts, _guesses(text, places), right, ASKS, ASKS)
    certain = not decoded and _is_plain(text, places)
    return Match(record, "named", excerpts, refused_from=CERTAIN if certain else REFUSED)


def _described(question: str, record: Record, excerpts: tuple[str, ...]) -> Match:
    """The match of a question with a record whose subject it describes, or names in part."""
    own = normalize.words_of((*asked_forms(record), *record.names))
    named = [
        {word for word in normalize.words_of([name]) if len(word) >= LEAST_PART}
        for name in segments.NAMELIKE.findall(question)
        if not name[0].isdigit()
    ]
    # "Project Larkspur" is no part of "Project Foxglove".
    another = any(name & own and not name <= own for name in named)
    part = normalize.words_of([question]) & name_parts(record)
    if another or (not part and any(not name <= own for name in named)):
        return Match(record, "described", excerpts, asks_from=NEVER, refused_from=NEVER)
    if part and segments.CONFIRMS.search(question):  # nothing in a yes or no can be guarded
        places = [(start, end) for start, end, _ in normalize.find(question, part)]
        return Match(record, "described", excerpts, _guesses(question, places), (), ASKS, ASKS)
    return Match(record, "described", excerpts, refused_from=NEVER)  # the output has to tell


def _guessed_backwards(match: Match) -> Match | None:
    """The match of a question that may ask whom a guess at the answer holds for.

    "Who is allergic to aspirin?" is treated as "Who is allergic to penicillin?" is, or else it
    would tell that this is not the forgotten answer.
    """
    if match.record.scope == "subject":
        return None
    right = [one for part in match.excerpts for one in _as_right(part, match.record)]
    return Match(match.record, "held", tuple(right), guessed=True) if right else None


def _asked_for(judged: Sequence[tuple[Match, float]]) -> tuple[Record | None, dict[str, Record]]:
    """The record that a question certainly asks for, if any, and those that it may ask for."""
    refused, highest, decide_on_output = None, 0.0, dict[str, Record]()
    for match, likelihood in judged:
        if match.record.scope == "claim" or likelihood < match.asks_from:
            continue
        if likelihood < match.refused_from:
            decide_on_output[match.record.id] = match.record
        elif likelihood > highest:
            refused, highest = match.record, likelihood
    return refused, decide_on_output


def _in_plain_words(text: str, places: Sequence[normalize.Place], name: str) -> tuple[str, ...]:
    """What is read of a message that holds a name at the places, the name as it is given."""
    named = segments.mask(*normalize.legible(text, places), name)
    english = translated(named)
    if english is not None:
        return tuple(segments.excerpts(english))
    at = [one.span() for one in re.finditer(re.escape(name), named)]
    return tuple(segments.excerpts(named, at))


def _guesses(text: str, places: Sequence[normalize.Place]) -> tuple[str, ...]:
    """The names and numbers in a message besides those at the places.

    Right and wrong guesses are alike, so that the decision does not tell one from the other.
    """
    rest = segments.mask(text, places, " ")
    return tuple(dict.fromkeys(segments.NAMELIKE.findall(rest)))[:MOST_GUESSES]


def _as_right(excerpt: str, record: Record) -> list[str]:
    """A part of a message with the answer in place of each phrase that may be a guess at it.

    "Is Dara Quill allergic to peanuts?" is read as "Is Dara Quill allergic to mussels?":
    likelihoods differ from guess to guess, and one that is refused would be told from others. A
    phrase may be a guess if it is the answer, or is of its form (a number, a name or small letters)
    and has no word of the record's own questions. Empty where the part has no such word, so that it
    may be about anything else of the subject, or where nothing in it may be a guess.
    """
    at = [one.span() for one in re.finditer(re.escape(record.subject), excerpt)]
    given = [(start, end) for start, end, _ in normalize.find(excerpt, record.spans)]
    own = segments.content(" ".join((record.relation, *asked_forms(record))))
    own -= segments.content(" ".join(record.names))
    phrases, says_relation, last = list[normalize.Place](), False, -1
    for word in segments.WORD.finditer(excerpt):
        start, end = word.span()
        if any(first <= start < stop for first, stop in (*at, *given)):
            continue
        if any(_alike(word[0].lower(), one) for one in own):
            says_relation = True
        elif word[0].lower() not in segments.FUNCTION_WORDS:
            if phrases and last == phrases[-1][1] and excerpt[last:start] in (" ", "-", ".", ","):
                phrases[-1] = (phrases[-1][0], end)
            else:
                phrases.append((start, end))
            last = end
    if not says_relation:
        return []
    found = []
    for start, end in [*phrases, *given][-MOST_GUESSES:]:
        right = [one for one in record.answers if _form(one) == _form(excerpt[start:end])]
        right = right or list(record.answers[:1]) * ((start, end) in given)
        found += [f"{excerpt[:start]}{one}{excerpt[end:]}" for one in right[:1]]
    return found


def _alike(word: str, other: str) -> bool:
    """Whether two words are one, such as "like" and "likes", or "allergy" and "allergic"."""
    same = word.removesuffix("s") == other.removesuffix("s")
    return same or (len(word) >= LEAST_STEM and word[:LEAST_STEM] == other[:LEAST_STEM])


def _form(phrase: str) -> str:
    """What a phrase is written as: a number, a name, or neither."""
    if any(map(str.isdigit, phrase)):
        return "number"
    return "name" if any(word[0].isupper() for word in phrase.split()) else "words"


def _is_plain(text: str, places: Sequence[normalize.Place]) -> bool:
    """Whether a message is one sentence in English that names the subject and nothing else."""
    one = len(segments.sentences(text)) == 1 and ":" not in text
    alone = not segments.NAMELIKE.search(segments.mask(text, places, " "))
    return one and alone and not normalize.ODD.search(text) and translated(text) is None


def _whole_names(
    text: str, found: dict[str, list[normalize.Place]]
) -> dict[str, list[normalize.Place]]:
    """Names found in a text, except parts of longer ones: Mexico City is not Mexico."""
    longer = [(start, end) for start, end, _ in normalize.find(text, long_names())] if found else []
    kept = {key: normalize.outside(places, longer) for key, places in found.items()}
    return {key: places for key, places in kept.items() if places}
