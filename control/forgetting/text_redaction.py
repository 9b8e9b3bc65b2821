"""The redaction of one text, sentence by sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from control.forgetting.aliases import is_name
from control.forgetting.classifier import context
from control.forgetting.matcher import find_answers
from control.forgetting.normalize import plain
from control.forgetting.parts import has_reference, joined, other_subject, parts
from control.forgetting.record import Record
from control.forgetting.segments import content, mask
from control.forgetting.statements import Statement

Spans = Sequence[tuple[int, int]]

MASK = "…"  # in place of an answer
LEAST_LEFT = 2  # content words of a sentence that is worth keeping without the answer


@dataclass(frozen=True)
class Redacted:
    """A text without forgotten facts.

    Attributes:
        text: What is left, possibly empty.
        record_ids: Of the records whose fact it stated.
        title: The title; empty if it states such a fact itself.
    """

    text: str
    record_ids: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class PossibleStatement:
    """A sentence that may state a fact.

    Attributes:
        place: The index of the sentence.
        record: The fact.
        answer: Where the text gives the answer in this sentence, in characters of the text; empty
            where it does not do so in so many words.
        before: What precedes it, as of `control.forgetting.classifier.context`, without the answer,
            which only this sentence gives.
    """

    place: int
    record: Record
    answer: tuple[tuple[int, int], ...] = ()
    before: str = ""


@dataclass
class TextRedaction:
    """A text, its sentences, and what each of them states.

    Attributes:
        text: The text.
        title: What it is about.
        about: Ids of the records whose subject the title names.
        encoded: Whether it contains encoded text, so that any sentence may be about any subject.
        places: (start, end) of its sentences.
        sentences: The sentences.
        stated: Ids of the records that each of them states.
        stated_by_title: Ids of the records that the title states.
        possible: The sentences that may state a record.
    """

    text: str
    title: str = ""
    about: frozenset[str] = frozenset()
    encoded: bool = False
    places: list[tuple[int, int]] = field(init=False)
    sentences: list[str] = field(init=False)
    stated: list[set[str]] = field(init=False)
    stated_by_title: set[str] = field(default_factory=set)
    possible: list[PossibleStatement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = parts(self.text)
        self.sentences = [self.text[start:end].strip() for start, end in self.places]
        self.stated = [set() for _ in self.places]
        self._masked: dict[int, list[PossibleStatement]] = {}
        self._names = _capitals(self.sentences)

    def search(self, statement: Statement, names: Spans) -> None:
        """Find the sentences that state a record by their words, and those that may state it.

        Args:
            statement: The record's fact.
            names: Where the text names its subject, in characters.
        """
        record = statement.record
        if self._stated_in_title(statement):
            self.stated_by_title.add(record.id)
        if record.scope == "subject":
            for place in self._candidates(statement, self._overlapping(names)):
                self.stated[place].add(record.id)
            return
        answers = _outside(statement.spelled(self.text), names)
        naming = self._overlapping(names)
        named = bool(names) or record.id in self.about or self.encoded
        masked: list[str] = []  # without the answer
        for place, ((start, end), sentence) in enumerate(
            zip(self.places, self.sentences, strict=True)
        ):
            given = _closest([(a, b) for a, b in answers if a < end and start < b], start, end)
            masked.append(self._replaced(place, answers, MASK))
            # A number that is given in so many words reads the same in rot13.
            if named and (statement.hidden(masked[-1]) or statement.has_key_words(sentence)):
                self.stated[place].add(record.id)
            elif given or (
                named and " " in sentence and sentence[-1] != "?" and statement.possible(sentence)
            ):
                before = context(masked, place, naming, record.id in self.about)
                if not given and place in naming and MASK in before:
                    before = ""  # "…" in it would be taken for told here
                self.possible.append(PossibleStatement(place, record, given, before))

    def in_plain_words(self, possible: PossibleStatement) -> str:
        """A sentence with the answer as the record gives it, however it is spelled there."""
        sentence = self._replaced(possible.place, possible.answer, possible.record.answers[0])
        # Where the whole sentence gives it, in another notation, it is read as it is.
        return (
            sentence
            if content(sentence) > content(possible.record.answers[0])
            else (self.sentences[possible.place])
        )

    def without_answer(self, possible: PossibleStatement) -> str:
        """A sentence with the answer masked; empty where hardly anything else is left."""
        rest = self._replaced(possible.place, possible.answer, MASK)
        if not possible.answer or len(content(rest)) < LEAST_LEFT:
            return ""
        return "" if find_answers(rest, possible.record) else rest  # in another notation

    def mask(self, possible: PossibleStatement) -> None:
        """Remove the answer from a sentence, and leave the rest of it."""
        self._masked.setdefault(possible.place, []).append(possible)

    def result(self) -> Redacted:
        """The text without the sentences that state a fact, and without masked answers."""
        stated = list(self.stated)
        masked = {one.record.id for several in self._masked.values() for one in several}
        ids = tuple(sorted(self.stated_by_title.union(masked, *stated)))
        title = "" if self.stated_by_title else self.title
        if not any(stated) and not masked:
            return Redacted(self.text, ids, title)
        for place in range(len(stated) - 1):  # a question whose answer is removed
            if stated[place + 1] and self.sentences[place].endswith("?"):
                stated[place] = stated[place] | stated[place + 1]
        kept = [self._kept(place) for place, ids_stated in enumerate(stated) if not ids_stated]
        return Redacted(joined(kept), ids, title)

    def _kept(self, place: int) -> str:
        """A sentence with the space around it, without the answers that are masked in it."""
        answers = [span for one in self._masked.get(place, ()) for span in one.answer]
        return mask(self._between(place), self._inside(place, answers), MASK)

    def _replaced(self, place: int, answers: Spans, by: str) -> str:
        return mask(self._between(place), self._inside(place, answers), by).strip()

    def _between(self, place: int) -> str:
        start, end = self.places[place]
        return self.text[start:end]

    def _inside(self, place: int, spans: Spans) -> Spans:
        """The parts of spans of the text that are in a sentence, in characters of that."""
        start, end = self.places[place]
        return [
            (max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and start < b
        ]

    def _candidates(self, statement: Statement, at: set[int]) -> list[int]:
        """Indices of the sentences that name the subject or may be about it."""
        if statement.record.id in self.about or self.encoded:
            return list(range(len(self.sentences)))
        about_title = self._about_title(statement.own)
        found = []
        last = last_of_title = None  # the sentences that last named the subject, and the title's
        for place, sentence in enumerate(self.sentences):
            # About the title's subject, if that was named last, or together with the record's.
            last_of_title = place if place in about_title else last_of_title
            of_title = last_of_title is not None and last_of_title >= (last or 0)
            refers = has_reference(sentence)
            # With the scope "subject", what follows counts until another subject is named.
            follows = last is not None and refers if statement.record.scope == "subject" else True
            own_subject = refers or not other_subject(sentence, statement.own, self._names)
            if place in at or (follows and own_subject and not of_title):
                found.append(place)
            if place in at:
                last = place
        return found

    def _about_title(self, own: frozenset[str]) -> set[int]:
        """Indices of the sentences with a name of the title that is not the record's."""
        names = {plain(word) for word in self.title.split() if word[0].isupper()} - own - {""}
        return {
            place
            for place, sentence in enumerate(self.sentences)
            if names and names.intersection(plain(sentence).split())
        }

    def _stated_in_title(self, statement: Statement) -> bool:
        """Whether the title states the fact, or names a subject that is suppressed entirely."""
        if statement.record.id not in self.about or statement.record.scope == "subject":
            return statement.record.id in self.about
        # A title is a name: "Lima" may stay, while "Lima, capital of Peru" states the fact.
        stated = statement.spelled(self.title) or statement.hidden(self.title)
        return bool(stated) or statement.has_key_words(self.title)

    def _overlapping(self, spans: Spans) -> set[int]:
        """Indices of the sentences that overlap one of the spans."""
        return {
            number
            for number, (start, end) in enumerate(self.places)
            if any(first < end and start < last for first, last in spans)
        }


def _closest(spans: Spans, start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The spans within a sentence; that of all of it only where there is no other."""
    inner = [(a, b) for a, b in spans if (a, b) != (start, end)]
    return tuple(inner or spans)


def _outside(spans: Spans, names: Spans) -> Spans:
    """The spans that are not part of a longer name: Guatemala City does not state Guatemala."""
    return [
        (start, end)
        for start, end in spans
        if not any(
            first <= start and end <= last and last - first > end - start for first, last in names
        )
    ]


def _capitals(sentences: Sequence[str]) -> set[str]:
    """Words of the text that are names: capitalised also inside a sentence."""
    words = {
        plain(word) for sentence in sentences for word in sentence.split()[1:] if word[0].isupper()
    }
    first = {plain(sentence.split()[0]) for sentence in sentences if sentence}
    return words | {word for word in first if is_name(word)}
