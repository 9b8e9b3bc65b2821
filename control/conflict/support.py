"""Which passages support a sentence of an answer.

An encoder reads the sentence and a passage together and tells how likely the passage states what
the sentence does, as in natural language inference; words in common are no support. It is the
packaged embedding model with a low-rank adapter (`training.support`), trained on sentences that a
passage states and on the same sentences with another value in them.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from control.conflict.reader import LONGEST, read_adapter
from control.conflict.sources import Citation
from control.forgetting.parts import parts
from foundation.text import normalise

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# On passages that were held out it keeps 94 % of the sentences that their passage states, 8 % of
# those in which one value is another, and 1 % of those of another passage.
SUPPORTS = 0.8  # probability from which a passage supports a sentence
BATCH = 16  # pairs


@dataclass(frozen=True)
class Support:
    """Finds the passages that support sentences.

    Attributes:
        model: The encoder with a head for two labels, in evaluation mode.
        tokenizer: Its tokenizer.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

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

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely a passage supports a sentence, in [0, 1].

        Args:
            pairs: Sentence and passage of each.
        """
        found: list[float] = []
        with self._lock, torch.inference_mode():  # a tokenizer serves one at a time
            for first in range(0, len(pairs), BATCH):
                ones, others = zip(*pairs[first : first + BATCH], strict=True)
                encoded = self.tokenizer(
                    list(ones),
                    list(others),
                    truncation=True,
                    max_length=LONGEST,
                    padding=True,
                    return_tensors="pt",
                ).to(self.model.device)
                found += self.model(**encoded).logits.float().softmax(-1)[:, 1].tolist()
        return found


def load(base: Path, adapter: Path) -> Support:
    """The packaged encoder with its adapter merged; arguments and errors as of `reader.load`."""
    from transformers import AutoModelForSequenceClassification

    return Support(*read_adapter(AutoModelForSequenceClassification, base, adapter))


def sentences(answer: str) -> list[tuple[int, int]]:
    """Start and end of each sentence that holds words, without the space around it."""
    spans = []
    for start, end in parts(answer):
        text = answer[start:end]
        if normalise(text):
            spans.append((start + len(text) - len(text.lstrip()), start + len(text.rstrip())))
    return spans
