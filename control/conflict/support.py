"""Which passages support a sentence of an answer.

An encoder reads the sentence and a passage together and tells how likely the passage states what
the sentence does, as in natural language inference; words in common are no support. It is the
packaged embedding model with a low-rank adapter (`training.support`), trained on sentences that a
passage states and on the same sentences with another value in them. Rows of tables are read one by
one, since all look alike to so small an encoder that reads them at once.
"""

from collections.abc import Sequence
from pathlib import Path

from control.conflict.reader import LONGEST
from control.conflict.sources import Citation
from control.encoders import PairClassifier
from control.forgetting.parts import parts
from foundation.tables import rows_alone, without_rows
from foundation.text import normalise

# On passages that were held out it keeps 94 % of the sentences that their passage states, 8 % of
# those in which one value is another, and 1 % of those of another passage.
SUPPORTS = 0.8  # probability from which a passage supports a sentence


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
        parts_of = [_parts(text) for _, text in passages]
        asked = [
            (answer[start:end], part)
            for start, end in spans
            for several in parts_of
            for part in several
        ]
        likely = iter(self.probabilities(asked))
        citations = []
        for start, end in spans:
            own = [max(next(likely) for _ in several) for several in parts_of]
            supporting = sorted(
                (place for place, p in enumerate(own) if p >= SUPPORTS),
                key=lambda place: -own[place],
            )
            citations.append(Citation(start, end, tuple(passages[at][0] for at in supporting)))
        return citations


def _parts(text: str) -> list[str]:
    """What is read of a passage at once: a row of a table alone, and the text beside tables."""
    rows = [alone for alone, _, _ in rows_alone(text)]
    rest = without_rows(text)
    return [*rows, rest] if normalise(rest) or not rows else rows


def load(base: Path, adapter: Path) -> Support:
    """The packaged encoder with its adapter merged; arguments and errors as of `reader.load`."""
    return Support.load(base, adapter, LONGEST)


def sentences(answer: str) -> list[tuple[int, int]]:
    """Start and end of each sentence that holds words, without the space around it."""
    spans = []
    for start, end in parts(answer):
        text = answer[start:end]
        if normalise(text):
            spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
    return spans
