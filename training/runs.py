"""What all training runs share: the memory they take, arguments, checkpoints, kept adapters."""

import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control.engines.transformers import LanguageModel
from foundation.errors import ModelError
from foundation.files import replacing

log = logging.getLogger(__name__)

SAVE_STEPS = 50
ROWS = {"sft": 8, "dpo": 4}  # examples read at once: a pair is two texts
GIB = 2**30
# Bytes that training keeps per token, layer and unit of the hidden size: the activations of a
# transformer block with grouped queries and a gated feed-forward of about three times the width.
ACTIVATION_BYTES = 90
TOKENS = 420  # of four passages with question and answer
OVERHEAD = 1.0 * GIB  # libraries, and what allocators keep


def arguments(runs: Path, epochs: float, seed: int) -> dict[str, Any]:
    """Arguments of a trainer; trl's own defaults assume an accelerator."""
    return {
        "output_dir": str(runs),
        "num_train_epochs": epochs,
        "seed": seed,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 20,
        "logging_steps": 10,
        "save_steps": SAVE_STEPS,
        "save_total_limit": 1,
        "report_to": [],
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "group_by_length",
    }


def last_checkpoint(runs: Path) -> str | None:
    """Where an interrupted run is to go on."""
    found = sorted(runs.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return str(found[-1]) if found else None


def keep(model: Any, adapter: Path, base: str, card: str) -> None:
    """Write an adapter and its card; of the base model, its name and never where it lay."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    with replacing(adapter) as new:
        model.save_pretrained(str(new), selected_adapters=["default"])
        (new / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def learned_tokens_scored() -> Iterator[None]:
    """Let trl score the tokens that are learned from alone, on any device.

    Off an accelerator it weighs the whole vocabulary at every token of the prompt, too, and then
    leaves that out of the loss: of a prompt with four passages and a short answer that is nearly
    all of the work. The loss is the same.
    """
    from trl.trainer import utils

    scores_sparsely = getattr(utils, "_use_triton", None)
    if scores_sparsely is None:  # another version of trl, which decides this in another way
        yield
        return
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = scores_sparsely


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
