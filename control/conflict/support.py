"""Which passages support a sentence of an answer.

An encoder reads the sentence and a passage together and tells how likely the passage states what
the sentence does, as in natural language inference; words in common are no support. It is the
packaged embedding model with a low-rank adapter (`training.support`), trained on sentences that a
passage states and on the same sentences with another value in them.
"""

from collections.abc import Sequence
from pathlib import Path

from control.conflict.reader import LONGEST
from control.conflict.sources import Citation
from control.encoders import PairClassifier
from control.forgetting.parts import parts
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
        texts = [text for _, text in passages]
        likely = self.probabilities(
            [(answer[start:end], text) for start, end in spans for text in texts]
        )
        citations = []
        for at, (start, end) in enumerate(spans):
            own = likely[at * len(texts) : (at + 1) * len(texts)]
            supporting = sorted(
                (place for place, p in enumerate(own) if p >= SUPPORTS),
                key=lambda place: -own[place],
            )
            citations.append(Citation(start, end, tuple(passages[at][0] for at in supporting)))
        return citations


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
