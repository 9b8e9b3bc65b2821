"""What training takes of memory, told before it starts."""

import logging
import resource
import sys

from control.engines.transformers import LanguageModel
from foundation.errors import ModelError

log = logging.getLogger(__name__)

ROWS = {"sft": 8, "dpo": 4}  # examples read at once: a pair is two texts
GIB = 2**30
# Bytes that training keeps per token, layer and unit of the hidden size: the activations of a
# transformer block with grouped queries and a gated feed-forward of about three times the width.
ACTIVATION_BYTES = 90
TOKENS = 420  # of four passages with question and answer
OVERHEAD = 1.0 * GIB  # libraries, and what allocators keep


def needed_bytes(language_model: LanguageModel, batch: int) -> int:
    """Memory that training takes, in bytes: an estimate from the model's shape, on the high side.

    Args:
        language_model: The base model.
        batch: Examples a step, of which at most `ROWS` are read at once.
    """
    config = language_model.model.config
    weights = sum(each.numel() * each.element_size() for each in language_model.model.parameters())
    layers, width = config.num_hidden_layers, config.hidden_size
    tokens = 2 * min(batch, ROWS["dpo"]) * TOKENS
    return int(weights + tokens * layers * width * ACTIVATION_BYTES + OVERHEAD)


def check_memory(language_model: LanguageModel, batch: int) -> None:
    """Refuse before anything has been done what would be killed half-way.

    Raises:
        ModelError: The estimate is more than is free.
    """
    import psutil
    import torch

    needed, device = needed_bytes(language_model, batch), language_model.model.device
    free = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available
    )
    log.info("training needs about %.1f GB, %.1f GB are free", needed / GIB, free / GIB)
    if needed > free:
        raise ModelError(
            f"training {language_model.name} needs about {needed / GIB:.1f} GB at {batch} pairs a "
            f"step, but {free / GIB:.1f} GB are free; close other programs, give a smaller "
            "--batch-size, or a smaller model"
        )


def peak_bytes() -> int:
    """Most memory that the process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
