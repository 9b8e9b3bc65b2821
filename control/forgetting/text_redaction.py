"""The redaction of one text, sentence by sentence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from control.forgetting.aliases import is_name
from control.forgetting.normalize import plain
from control.forgetting.parts import joined, other_subject, parts, refers_back
from control.forgetting.statements import Statement

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Redacted:
    """A text without forgotten facts.

    Attributes:
        text: What is left, perhaps nothing.
        record_ids: Of the records whose fact it stated.
        title: The title, or nothing if that states such a fact itself.
    """

    text: str
    record_ids: tuple[str, ...] = ()
    title: str = ""


@dataclass
class TextRedaction:
    """A text, its sentences, and what each of them states.

    Attributes:
        text: The text.
        title: What it is about.
        about: Ids of the records whose subject the title names.
        encoded: Whether there is more in it than can be read, so that any sentence may be about
            any subject.
        places: Where its sentences stand.
        sentences: Themselves.
        taken: Ids of the records that each of them states.
        untitled: Ids of the records that the title states.
        doubts: Sentences, by number, that may state a record in other words.
    """

    text: str
    title: str = ""
    about: frozenset[str] = frozenset()
    encoded: bool = False
    places: list[tuple[int, int]] = field(init=False)
    sentences: list[str] = field(init=False)
    taken: list[set[str]] = field(init=False)
    untitled: set[str] = field(default_factory=set)
    doubts: list[tuple[int, Statement]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = parts(self.text)
        self.sentences = [self.text[start:end].strip() for start, end in self.places]
        self.taken = [set() for _ in self.places]
        self._names = _capitals(self.sentences)

    def search(
        self, said: Statement, names: Spans, possible: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Find the sentences that state a record by their words, and those in doubt.

        Args:
            said: The record's fact.
            names: Where the text names its subject, in characters.
            possible: Whether a sentence can state it in other words.
        """
        record = said.record
        at = self._touched(names)
        in_play = self._in_play(said, at)
        if self._entitled(said):
            self.untitled.add(record.id)
        if record.scope == "subject":
            for place in in_play:
                self.taken[place].add(record.id)
            return
        spelled = self._touched(_outside(said.spelled(self.text), names))
        for place in in_play:
            sentence = self.sentences[place]
            if not sentence:
                continue
            if place in spelled or said.hidden(sentence) or said.told(sentence):
                self.taken[place].add(record.id)
            elif said.forms() and " " in sentence and sentence[-1] != "?" and possible(sentence):
                self.doubts.append((place, said))

    def rest(self) -> Redacted:
        """What is left."""
        taken = list(self.taken)
        ids = tuple(sorted(self.untitled.union(*taken)))
        title = "" if self.untitled else self.title
        if not any(taken):
            return Redacted(self.text, ids, title)
        for place in range(len(taken) - 1):  # the question whose answer goes
            if taken[place + 1] and self.sentences[place].endswith("?"):
                taken[place] = taken[place] | taken[place + 1]
        kept = [place for place, by in zip(self.places, taken, strict=True) if not by]
        return Redacted(joined(self.text, kept), ids, title)

    def _in_play(self, said: Statement, at: set[int]) -> list[int]:
        """Sentences, by number, that name the subject or may be about it."""
        if said.record.id in self.about or self.encoded:
            return list(range(len(self.sentences)))
        titled = self._titled(said.own)
        found = []
        last = entitled = None  # the sentences that last named the subject, and the title's
        for place, sentence in enumerate(self.sentences):
            # Of what the title names, if that was named last, or together with the subject.
            entitled = place if place in titled else entitled
            of_title = entitled is not None and entitled >= (last or 0)
            back = refers_back(sentence)
            # Where all about a subject goes, what follows goes until another one is named.
            follows = last is not None and back if said.record.scope == "subject" else True
            its_own = back or not other_subject(sentence, said.own, self._names)
            if place in at or (follows and its_own and not of_title):
                found.append(place)
            if place in at:
                last = place
        return found

    def _titled(self, own: frozenset[str]) -> set[int]:
        """Numbers of the sentences that hold a name of the title that is not the record's."""
        names = {plain(word) for word in self.title.split() if word[0].isupper()} - own - {""}
        return {
            place
            for place, sentence in enumerate(self.sentences)
            if names and names.intersection(plain(sentence).split())
        }

    def _entitled(self, said: Statement) -> bool:
        """Whether the title states the fact, or names a subject of which nothing may be said."""
        if said.record.id not in self.about or said.record.scope == "subject":
            return said.record.id in self.about
        # A title is a name: "Lima" may stay, while "Lima, capital of Peru" says it.
        stated = said.spelled(self.title) or said.hidden(self.title)
        return bool(stated) or said.told(self.title)

    def _touched(self, spans: Spans) -> set[int]:
        """Numbers of the sentences that hold a piece of one of the spans."""
        return {
            number
            for number, (start, end) in enumerate(self.places)
            if any(first < end and start < last for first, last in spans)
        }


def _outside(spans: Spans, names: Spans) -> Spans:
    """The spans that are no part of a longer name: Guatemala City does not say Guatemala."""
    return [
        (start, end)
        for start, end in spans
        if not any(
            first <= start and end <= last and last - first > end - start for first, last in names
        )
    ]


def _capitals(sentences: Sequence[str]) -> set[str]:
    """Words of the text that are names: they have a capital letter inside a sentence, too."""
    words = {
        plain(word) for sentence in sentences for word in sentence.split()[1:] if word[0].isupper()
    }
    first = {plain(sentence.split()[0]) for sentence in sentences if sentence}
    return words | {word for word in first if is_name(word)}
