"""The redaction of one text, sentence by sentence."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from control.forgetting.classifier import context
from control.forgetting.languages import is_foreign
from control.forgetting.matcher import find_answers
from control.forgetting.normalize import outside, plain, words_of
from control.forgetting.parts import has_reference, joined, parts
from control.forgetting.record import Record
from control.forgetting.segments import content, mask
from control.forgetting.statements import SMALL, Statement
from foundation.tables import find_rows

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
    """A sentence, given by its index, that may state a fact.

    Attributes:
        answer: Where the text gives the answer in this sentence, in characters of the text; empty
            where it does not do so in so many words.
        before: What precedes it, as of `control.forgetting.classifier.context`, without the answer,
            which only this sentence gives.
    """

    place: int
    record: Record
    answer: tuple[tuple[int, int], ...] = ()
    before: str = ""


class TextRedaction:
    """A text, its sentences, and what each of them states.

    Attributes:
        title: What it is about.
        stated: For each sentence the ids of the records that it states.
        stated_by_title: Ids of the records that the title states.
        possible: The sentences that may state a record.
    """

    def __init__(self, text: str, title: str, about: Collection[str], encoded: bool) -> None:
        """Cut a text into sentences.

        Args:
            text: The text.
            title: What it is about.
            about: Ids of the records whose subject the title names.
            encoded: Whether it contains encoded text, so that any sentence may be about any
                subject.
        """
        self.title = title
        self._text = text
        self._about = about
        self._encoded = encoded
        self._places = parts(text)
        self._sentences = [text[start:end].strip() for start, end in self._places]
        rows = {text.rfind("\n", 0, start) + 1 for start, _ in find_rows(text)}
        self._rows = {n for n, (start, _) in enumerate(self._places) if start in rows}
        self.stated = [set[str]() for _ in self._places]
        self.stated_by_title = set[str]()
        self.possible: list[PossibleStatement] = []
        self._masked: dict[int, list[PossibleStatement]] = {}

    def search(self, statement: Statement, names: Spans) -> None:
        """Find the sentences that state a record by their words, and those that may state it.

        Args:
            statement: The record's fact.
            names: Where the text names its subject, in characters.
        """
        record = statement.record
        if self._stated_in_title(statement):
            self.stated_by_title.add(record.id)
        naming = self._overlapping(names)
        if record.scope == "subject":
            for place in self._about_subject(record, naming):
                self.stated[place].add(record.id)
            return
        answers = outside(find_answers(self._text, record), names)
        named = bool(names) or record.id in self._about or self._encoded
        unread = self._unread(record, naming)
        of_others = self._rows_of_others(record, naming)
        masked: list[str] = []  # without the answer
        for place, ((start, end), sentence) in enumerate(
            zip(self._places, self._sentences, strict=True)
        ):
            given = _closest([(a, b) for a, b in answers if a < end and start < b], start, end)
            masked.append(self._replaced(place, answers, MASK).strip())
            if place in of_others:
                continue
            # A number that is given in so many words reads the same in rot13.
            if place in unread or (
                named and (statement.hidden(masked[-1]) or statement.has_key_words(sentence))
            ):
                self.stated[place].add(record.id)
            elif given or (
                named and " " in sentence and sentence[-1] != "?" and statement.possible(sentence)
            ):
                before = context(masked, place, naming, record.id in self._about)
                if not given and place in naming and MASK in before:
                    before = ""  # "…" in it would be taken for told here
                self.possible.append(PossibleStatement(place, record, given, before))

    def in_plain_words(self, possible: PossibleStatement) -> str:
        """A sentence with the answer as the record gives it, however it is spelled there."""
        answer = possible.record.answers[0]
        sentence = self._replaced(possible.place, possible.answer, answer).strip()
        # Where the whole sentence gives it, in another notation, it is read as it is.
        return sentence if content(sentence) > content(answer) else self._sentences[possible.place]

    def without_answer(self, possible: PossibleStatement) -> str:
        """A sentence with the answer masked; empty where hardly anything else is left."""
        rest = self._replaced(possible.place, possible.answer, MASK).strip()
        if not possible.answer or len(content(rest)) < LEAST_LEFT:
            return ""
        if not self.stated_by_title and find_answers(self.title, possible.record):
            return ""  # beside the title, which stays, the rest gives the answer
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
            return Redacted(self._text, ids, title)
        for place in range(len(stated) - 1):  # a question whose answer is removed
            if stated[place + 1] and self._sentences[place].endswith("?"):
                stated[place] = stated[place] | stated[place + 1]
        kept = [self._kept(place) for place, ids_stated in enumerate(stated) if not ids_stated]
        return Redacted(joined(kept), ids, title)

    def _kept(self, place: int) -> str:
        """A sentence with the space around it, without the answers that are masked in it."""
        answers = [span for one in self._masked.get(place, ()) for span in one.answer]
        return self._replaced(place, answers, MASK)

    def _replaced(self, place: int, answers: Spans, by: str) -> str:
        """A sentence with the space around it, and ``by`` in place of spans of the text."""
        start, end = self._places[place]
        inside = [
            (max(a, start) - start, min(b, end) - start)
            for a, b in answers
            if a < end and start < b
        ]
        return mask(self._text[start:end], inside, by)

    def _unread(self, record: Record, naming: set[int]) -> set[int]:
        """Indices of the sentences that may state a fact in a language that is not read.

        They name its subject, or follow one that does, as "Il est ..." may.
        """
        everywhere = record.id in self._about or self._encoded
        near = {place + by for place in naming for by in (0, 1)}
        return {
            place
            for place, sentence in enumerate(self._sentences)
            if (everywhere or place in near) and is_foreign(sentence)
        }

    def _rows_of_others(self, record: Record, naming: set[int]) -> set[int]:
        """Indices of the rows of a table that do not name a subject which other rows name."""
        if record.id in self._about or self._encoded or self._rows.isdisjoint(naming):
            return set()
        return self._rows - naming

    def _about_subject(self, record: Record, naming: set[int]) -> list[int]:
        """Indices of the sentences that name a subject or may be about it."""
        if record.id in self._about or self._encoded:
            return list(range(len(self._sentences)))
        own = words_of(record.names) - SMALL
        of_title = {plain(word) for word in self.title.split() if word[0].isupper()} - own - {""}
        found = []
        last, last_of_title = None, -1  # the sentences that last named the subject, and the title's
        for place, sentence in enumerate(self._sentences):
            if not of_title.isdisjoint(words_of([sentence])):
                last_of_title = place
            if place in naming:
                last = place
                found.append(place)
            # What refers to something counts, unless the title's subject was named since.
            elif last is not None and last_of_title < last and has_reference(sentence):
                found.append(place)
        return found

    def _stated_in_title(self, statement: Statement) -> bool:
        """Whether the title states the fact, or names a subject that is suppressed entirely."""
        if statement.record.id not in self._about or statement.record.scope == "subject":
            return statement.record.id in self._about
        # A title is a name: "Lima" may stay, while "Lima, capital of Peru" states the fact.
        return (
            bool(find_answers(self.title, statement.record))
            or statement.hidden(self.title)
            or statement.has_key_words(self.title)
        )

    def _overlapping(self, spans: Spans) -> set[int]:
        """Indices of the sentences that overlap one of the spans."""
        return {
            number
            for number, (start, end) in enumerate(self._places)
            if any(first < end and start < last for first, last in spans)
        }


def _closest(spans: Spans, start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The spans within a sentence; that of all of it only where there is no other."""
    inner = [(a, b) for a, b in spans if (a, b) != (start, end)]
    return tuple(inner or spans)
