"""The wording of long texts: where another text repeats it word for word.

A text is known by its shingles: the hash of each `SHINGLE` consecutive words, normalised as by
`control.forgetting.normalize.plain`. Consecutive shingles of another text that are known make a run
of words that the two have in common. Looking up a shingle takes the same time whatever the number
and the length of the texts.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from control.forgetting.encodings import readable, transformed
from control.forgetting.normalize import Place, plain, plain_words
from control.forgetting.record import LONGEST_QUOTE, Record
from control.forgetting.variants import views

# Words. Of the descriptions of 60 Python packages, 1.6 % of the sequences of five words stand in
# 17,000 words of other ones too, 4 % of those of four, and 0.2 % of those of nine.
SHINGLE = 5
# Of so many consecutive words at most half stand in runs, or a text would be told with every ninth
# word replaced: two runs of the greatest length are a quotation, three are a copy.
WINDOW = 4 * LONGEST_QUOTE
# Characters before a new token in which a run that it completes begins: nine words of the built-in
# passages have up to 85, with a sign after each letter up to 170.
NEAR = 256
CUT = "…"  # in place of a run
MOST_TEXTS = 64  # records whose shingles are cached, 1 MB for 100,000 characters

Run = tuple[int, int]
"""The first word, and the one after the last"""


class VerbatimIndex:
    """The texts whose wording is kept back.

    It may be read while another thread changes it.

    Attributes:
        records: By id.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records: dict[str, Record] = {}
        self._owners: dict[int, tuple[str, ...]] = {}  # by shingle, the records whose text has it
        for record in records:
            self.add(record)

    def __bool__(self) -> bool:
        """Whether there is any text."""
        return bool(self.records)

    def add(self, record: Record) -> None:
        """Add the text of a record."""
        self.records[record.id] = record
        alone = (record.id,)  # one for all, since most shingles are of one text
        for shingle in _shingles_of(record):
            others = self._owners.get(shingle)
            self._owners[shingle] = (*others, record.id) if others else alone

    def remove(self, record_id: str) -> None:
        """Remove the text of a record; one that is not there is no error."""
        record = self.records.pop(record_id, None)
        for shingle in _shingles_of(record) if record else ():
            left = tuple(owner for owner in self._owners[shingle] if owner != record_id)
            self._owners[shingle] = left
            if not left:
                del self._owners[shingle]

    def find(self, text: str) -> list[tuple[int, int, Record]]:
        """Where a text repeats more of the wording than may be told, in any spelling.

        Returns:
            (start, end, record) in characters, in order, of each run of more than `LONGEST_QUOTE`
            words, and of each with which more than half of the last `WINDOW` words stand in runs.
        """
        found = set[tuple[int, int, str]]()
        for view in (plain_words(text), *views(text)[1:]) if self else ():
            for owner, runs in self._runs(view.words).items():
                spans = view.spans() if (repeated := list(_repeated(runs))) else []
                found.update(
                    (spans[first][0], spans[last - 1][1], owner) for first, last in repeated
                )
        known = ((start, end, self.records.get(owner)) for start, end, owner in sorted(found))
        return [(start, end, record) for start, end, record in known if record is not None]

    def repeated(self, text: str) -> list[Record]:
        """The records of whose wording a text, or what is encoded in it, repeats too much."""
        if not self:
            return []
        readings = (*readable(text), *transformed(text))
        found = (record for reading in readings for *_, record in self.find(reading))
        return list(dict.fromkeys(found))

    def completed(self, text: str, new: str) -> Record | None:
        """The record of whose wording ``new``, which follows the text, repeats too much."""
        near = text[-NEAR:]
        border = len(near.rstrip())
        ends = ((end, record) for _, end, record in self.find(near + new))
        return next((record for end, record in ends if end > border), None)

    def cut(self, text: str) -> str:
        """The text with "…" in place of what `find` finds."""
        return cut(text, [(start, end) for start, end, _ in self.find(text)])

    def _runs(self, words: Sequence[str]) -> dict[str, list[Run]]:
        """The runs that the words have in common with the text of each record."""
        found: dict[str, list[Run]] = {}
        for start, shingle in enumerate(_shingles(words)):
            for owner in self._owners.get(shingle, ()):
                runs, end = found.setdefault(owner, []), start + SHINGLE
                if runs and runs[-1][1] == end - 1:
                    runs[-1] = (runs[-1][0], end)
                else:
                    runs.append((start, end))
        return found


def cut(text: str, spans: Iterable[Place]) -> str:
    """The text with "…" in place of the spans, those that overlap taken together."""
    left, done = "", 0
    for start, end in sorted(spans):
        left += f"{text[done:start]}{CUT}" if start >= done else ""
        done = max(done, end)
    return left + text[done:]


def _repeated(runs: Sequence[Run]) -> Iterator[Run]:
    """The runs that are too long, by themselves or with those before them."""
    for place, (start, end) in enumerate(runs):
        first = end - WINDOW
        near = sum(max(0, last - max(begin, first)) for begin, last in runs[: place + 1])
        if end - start > LONGEST_QUOTE or near > WINDOW // 2:
            yield start, end


def _shingles(words: Sequence[str]) -> Iterator[int]:
    return (hash(tuple(words[at : at + SHINGLE])) for at in range(len(words) - SHINGLE + 1))


@lru_cache(maxsize=MOST_TEXTS)
def _shingles_of(record: Record) -> frozenset[int]:
    return frozenset(each for text in record.spans for each in _shingles(plain(text).split()))
