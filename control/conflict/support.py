"""Which passages support a sentence of an answer.

An encoder reads the sentence and a passage together and tells how likely the passage states what
the sentence does, as in natural language inference; words in common are no support. It is the
packaged embedding model with a low-rank adapter (`training.support`), trained on sentences that a
passage states and on the same sentences with another value in them. Rows of tables are read one by
one, since all look alike to so small an encoder that reads them at once. One thing looks to it much
like another, so what lacks a date, number or name of a sentence does not support it. A sentence
that stands word for word in a passage is supported by it, whatever the encoder tells.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from control.conflict.quantities import relate
from control.conflict.reader import LONGEST
from control.conflict.sources import Citation
from control.conflict.spans import Span, name_titles, read_span
from control.encoders import PairClassifier
from control.forgetting.parts import parts
from foundation.tables import find_rows, rows_alone, without_rows
from foundation.text import find, is_word, normalise, words

# Probability from which a passage supports a sentence. Of statements that it did not learn from,
# 92 % of those that are true and 57 % of the others are supported by texts that tell the same of
# several things (1,100; 92 and 74 % by 0.8 and without looking for dates, numbers and names), 90
# and 19 % by other texts (2,226; 88 and 21 %), and of those that state two things at once 87 and
# 36 % (666; 89 and 43 %).
SUPPORTS = 0.65
EQUAL = "same", "compatible"
ONE = "1", "1st"  # which are words more often than numbers: "one may", "at first"
MOST_READ = 4_096  # sentences whose values are cached
LEAST_QUOTED = 4  # words of a sentence that are no chance where they stand in a passage
# What stands around words that are quoted whole: in "nobody says that it is open on Mondays, but",
# "it is open" is not.
OPENS = re.compile(r"""(?:^|[\n(\[{"“\u2018«|]|[.,;:!?…)\]}"”’»*•#>–—-]\s)\s*$""")
CLOSES = re.compile(r"""[^\S\n]*(?:$|\n|[.,;:!?…)\]}"”’»|](?!\w))""")
NUMBERS = re.compile(r"[-\u2212]?\d+(?:[.,:/]\d+)*")


class Support(PairClassifier):
    """Finds the passages that support sentences; the pairs are a sentence and a part of one."""

    def cite(self, answer: str, passages: Sequence[tuple[str, str]]) -> list[Citation]:
        """The passages that support each sentence of an answer.

        Args:
            answer: The answer.
            passages: Id and text of each passage.

        Returns:
            One for each sentence that holds words, in order.
        """
        spans = sentences(answer)
        several = [_parts(text) for _, text in passages]
        asked = [
            (answer[start:end], part)
            for start, end in spans
            for own in several
            for part in own
            if _gives(part, answer[start:end])
        ]
        likely = dict(zip(asked, self.probabilities(asked), strict=True))
        citations = []
        for start, end in spans:
            sentence = answer[start:end]
            sure = [
                1.0
                if quotes(text, sentence)
                else max((likely.get((sentence, part), 0.0) for part in own), default=0.0)
                for (_, text), own in zip(passages, several, strict=True)
            ]
            supporting = sorted(
                (place for place, p in enumerate(sure) if p >= SUPPORTS),
                key=lambda place: -sure[place],
            )
            citations.append(Citation(start, end, tuple(passages[at][0] for at in supporting)))
        return citations


def quotes(text: str, sentence: str) -> bool:
    """Whether a sentence stands in a text word for word, as a whole sentence or part of one."""
    bare = re.sub(r"^[^\w-]+|\W+$", "", sentence)
    place = find(text, bare) if len(normalise(bare).split()) >= LEAST_QUOTED else None
    if place is None:
        return False
    start, end = place
    same_numbers = NUMBERS.findall(text[start:end]) == NUMBERS.findall(bare)
    return bool(same_numbers and OPENS.search(text[:start]) and CLOSES.match(text, end))


def _parts(text: str) -> list[str]:
    """What is read of a passage at once: a row of a table alone, or all else."""
    rows = [row for row, _, _ in rows_alone(text)]
    rest = without_rows(text)
    return [*rows, rest] if normalise(rest) or not rows else rows


def _gives(part: str, sentence: str) -> bool:
    """Whether a part of a passage has all dates, numbers and names of a sentence, in any notation.

    Times of day count as dates. Its sentences are searched one by one.
    """
    asked, held = _read(sentence), [_read(part[start:end]) for start, end in parts(part)]
    names = {
        word.key
        for word in asked.words
        if not (word.raw.islower() or (sentence.startswith(word.raw) and is_word(word.raw)))
    }
    known = name_titles().union(words(part), (word.key for one in held for word in one.words))
    given = [reading for one in held for date in (*one.dates, *one.times) for reading in date]
    points = (*asked.dates, *asked.times)
    return (
        names <= known
        and all(any(each.covers(one) for each in date for one in given) for date in points)
        and all(
            any(relate(each, other) in EQUAL for one in held for other in one.quantities)
            for each in asked.quantities
            if each.shown not in ONE
        )
    )


@lru_cache(maxsize=MOST_READ)
def _read(sentence: str) -> Span:
    return read_span(sentence.strip(), True, False)


def load(base: Path, adapter: Path) -> Support:
    """The packaged encoder with its adapter merged; arguments and errors as of `reader.load`."""
    return Support.load(base, adapter, LONGEST)


def sentences(answer: str) -> list[tuple[int, int]]:
    """Start and end of each sentence that holds words, without the space around it.

    A row of a table is one.
    """
    spans, rows, previous = list[tuple[int, int]](), find_rows(answer), None
    for start, end in parts(answer):
        text = answer[start:end]
        if not normalise(text):
            continue
        row = next((row for row in rows if row[0] < end and start < row[1]), None)
        first, last = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        if row is not None and row == previous:
            first = spans.pop()[0]
        spans.append((first, last))
        previous = row
    return spans
