"""How well answers read: how much they repeat themselves and how much they surprise the model."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from control.engines.transformers import LanguageModel
from foundation.text import normalise

if TYPE_CHECKING:
    from control.engines.base import Engine

ORDER = 3  # words; a sequence of three that comes back is a repetition
BATCH = 32  # texts


def repetition(texts: Sequence[str]) -> float:
    """Share of the 3-grams of words that stood in the same text before, in percent (seq-rep-3).

    After Welleck et al. 2020 (arXiv:1908.04319, section 6), over all texts together.
    """
    total = again = 0
    for text in texts:
        said = normalise(text).split()
        grams = [tuple(said[at : at + ORDER]) for at in range(len(said) - ORDER + 1)]
        total += len(grams)
        again += len(grams) - len(set(grams))
    return 100 * again / total if total else 0.0


@torch.inference_mode()
def perplexity(language_model: "Engine", texts: Sequence[str]) -> float | None:
    """Perplexity per token of all texts together, read by the model without any prompt.

    The first token of each text counts only as context; ``None`` where there are no others,
    and for a model behind a server.
    """
    if not isinstance(language_model, LanguageModel):
        return None
    model, tokenizer = language_model.model, language_model.tokenizer
    loss, count = 0.0, 0
    ordered = sorted((text for text in texts if text), key=len)
    for start in range(0, len(ordered), BATCH):
        encoded = tokenizer(
            ordered[start : start + BATCH],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        ).to(model.device)
        mask = encoded.attention_mask
        logits = model(**encoded, position_ids=(mask.cumsum(dim=1) - 1).clamp_min(0)).logits[:, :-1]
        told = (mask[:, 1:] * mask[:, :-1]).bool()  # padding stands on the left
        log_p = logits.float().log_softmax(dim=-1)
        said = log_p.gather(2, encoded.input_ids[:, 1:, None])[..., 0]
        loss -= float(said[told].sum())
        count += int(told.sum())
    return math.exp(loss / count) if count else None
