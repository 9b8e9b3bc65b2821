"""What all training runs share: arguments, checkpoints, and how an adapter is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.files import replacing

SAVE_STEPS = 50


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
