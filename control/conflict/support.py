"""Which passages support a sentence of an answer.

An encoder reads the sentence and a passage together and tells how likely the passage states what
the sentence does, as in natural language inference; words in common are no support. It is the
packaged embedding model with a low-rank adapter (`training.support`), trained on sentences that a
passage states and on the same sentences with another value in them. Rows of tables are read one by
one, since all look alike to so small an encoder that reads them at once. A sentence that stands
word for word in a passage is supported by it, whatever the encoder tells.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from control.conflict.quantities import relate
from control.conflict.reader import LONGEST
from control.conflict.sources import Citation
from control.conflict.spans import read_span
from control.encoders import PairClassifier
from control.forgetting.parts import parts
from foundation.tables import find_rows, rows_alone, without_rows
from foundation.text import find, is_word, normalise

# On passages that were held out it keeps 94 % of the sentences that their passage states, 8 % of
# those in which one value is another, and 1 % of those of another passage.
SUPPORTS = 0.8  # probability from which a passage supports a sentence
LEAST_QUOTED = 4  # words of a sentence that are no chance where they stand in a passage
# What stands around words that are quoted whole: in "nobody says that it is open on Mondays, but",
# "it is open" is not.
OPENS = re.compile(r"""(?:^|[\n(\[{"“\u2018«|]|[.,;:!?…)\]}"”’»*•#>–—-]\s)\s*$""")
CLOSES = re.compile(r"""[^\S\n]*(?:$|\n|[.,;:!?…)\]}"”’»|](?!\w))""")
NUMBERS = re.compile(r"[-\u2212]?\d+(?:[.,:/]\d+)*")


class Support(PairClassifier):
    """Finds the passages that support sentences; the pairs are a sentence and a passage."""

    def cite(self, answer: str, passages: Sequence[tuple[str, str]]) -> list[Citation]:
        """The passages that support each sentence of an answer.

        Args:
            answer: The answer.
            passages: Id and text of each passage.

        Returns:
            One for each sentence that holds words, in order.
        """
        spans = sentences(answer)
        texts = [_parts(text) for _, text in passages]
        likely = iter(
            self.probabilities(
                [
                    (answer[start:end], part)
                    for start, end in spans
                    for several in texts
                    for part, _ in several
                ]
            )
        )
        citations = []
        for start, end in spans:
            sentence = answer[start:end]
            own = [
                max(
                    p if p < SUPPORTS or not row or _gives(part, sentence) else 0.0
                    for (part, row), p in zip(several, likely, strict=False)
                )
                for several in texts
            ]
            own = [
                1.0 if quotes(text, sentence) else p
                for (_, text), p in zip(passages, own, strict=True)
            ]
            supporting = sorted(
                (place for place, p in enumerate(own) if p >= SUPPORTS),
                key=lambda place: -own[place],
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


def _parts(text: str) -> list[tuple[str, bool]]:
    """What is read of a passage at once: a row of a table alone, which is told, or all else."""
    rows = [(alone, True) for alone, _, _ in rows_alone(text)]
    rest = without_rows(text)
    return [*rows, (rest, False)] if normalise(rest) or not rows else rows


def _gives(row: str, sentence: str) -> bool:
    """Whether a row has every date, number and name of a sentence, in whatever notation.

    To the encoder one row looks much like another; what a row does not have it does not state.
    """
    asked, held = read_span(sentence, True, False), read_span(row, True, False)
    names = {
        word.key
        for word in asked.words
        if not (word.raw.islower() or (sentence.startswith(word.raw) and is_word(word.raw)))
    }
    return (
        names <= {word.key for word in held.words}
        and all(any(set(one) & set(other) for other in held.dates) for one in asked.dates)
        and all(
            any(relate(one, other) in ("same", "compatible") for other in held.quantities)
            for one in asked.quantities
        )
    )


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
