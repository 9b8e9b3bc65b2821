"""Small encoders that read two texts together: the packaged embedding model with an adapter.

They are low-rank adapters with a head, written by `training.encoders`, a hundredth of the work of
reading with a language model of 1.5B.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from foundation.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 16  # pairs that are read together


@dataclass(frozen=True)
class PairClassifier:
    """Tells how likely something is of two texts, as in natural language inference.

    Attributes:
        model: The encoder with a head for two labels, in evaluation mode.
        tokenizer: Its tokenizer.
        longest: Word pieces of a pair that are read; more are cut off the longer text.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    longest: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def load(cls, base: Path, adapter: Path, longest: int) -> Self:
        """The encoder with its adapter merged; arguments and errors as of `read_adapter`."""
        from transformers import AutoModelForSequenceClassification

        return cls(*read_adapter(AutoModelForSequenceClassification, base, adapter), longest)

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The probability of the second label for each pair, in [0, 1]."""
        import torch

        found: dict[int, float] = {}
        with self._lock, torch.inference_mode():  # a tokenizer serves one at a time
            for places in batches([len(one) + len(other) for one, other in pairs]):
                encoded = self.tokenizer(
                    [pairs[place][0] for place in places],
                    [pairs[place][1] for place in places],
                    truncation="longest_first",
                    max_length=self.longest,
                    padding=True,
                    return_tensors="pt",
                ).to(self.model.device)
                likely = self.model(**encoded).logits.float().softmax(-1)[:, 1].tolist()
                found |= dict(zip(places, likely, strict=True))
        return [found[place] for place in range(len(pairs))]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The indices of texts in batches of similar length, so that little is padded."""
    by_length = sorted(range(len(lengths)), key=lambda place: lengths[place])
    for first in range(0, len(by_length), BATCH):
        yield by_length[first : first + BATCH]


@contextmanager
def quietly() -> Iterator[None]:
    """Without what `transformers` tells of a model that it loads."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def read_adapter(
    model_class: Any, base: Path, adapter: Path
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """An encoder with an adapter and its head merged, in evaluation mode, and its tokenizer.

    Args:
        model_class: Of `transformers`, with the head.
        base: Directory of the encoder.
        adapter: Directory of the adapter.

    Raises:
        ModelError: The adapter is missing or does not fit.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    from control.engines.transformers import first_line, preferred_device, preferred_dtype

    try:
        with quietly():  # the packaged model has no such head: the adapter brings it
            model = model_class.from_pretrained(base)
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
            tokenizer = AutoTokenizer.from_pretrained(base)
    except Exception as error:  # peft raises anything from KeyError to RuntimeError
        raise ModelError(
            f"{adapter}: the adapter cannot be loaded ({first_line(error)})"
        ) from error
    return model.to(preferred_device(), preferred_dtype()).eval(), tokenizer
