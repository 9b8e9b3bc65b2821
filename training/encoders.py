"""Trains low-rank adapters of the packaged embedding model that read two texts together."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from control.engines.transformers import preferred_device, preferred_dtype
from foundation.errors import InputError, ModelError
from foundation.files import replacing
from training.runs import arguments, keep, last_checkpoint

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEARNING_RATE = 1e-3
BATCH = 32
SMOKE = 48  # examples of a trial run
ENCODERS = ("QUESTION_ANS", "SEQ_CLS")  # names in `peft` of what encoders are trained for
EPOCHS_ON = 1  # where training goes on from an adapter, at half the learning rate
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts as unit vectors, shape (texts, dimension)"""
ORIGIN = """\
`training/reading.py` builds the examples, from passages and questions written for it
(`training/reading.jsonl`). What it is worth: `docs/sources.md`."""


@dataclass(frozen=True)
class EncoderTask:
    """What is trained.

    Attributes:
        name: Of the command and the adapter.
        model_class: Of `transformers`, with the head.
        kind: The task's name in `peft`.
        head: The name of the head, which is trained as a whole.
        labels: Names of the columns that hold what is to be learned.
        rank: Of the adapter; its scale is 1.
        epochs: Passes over the examples.
        learning_rate: The highest one.
        origin: What the examples are, and where it is told what the adapter is worth.
        encoder: An adapter of this rank whose encoder is gone on from, with a new head.
        base: Hugging Face id or directory of the encoder; by default the packaged embedding model.
        sampling: Of the batches, as in `transformers`: those of like length are read faster, but
            follow each other, which harms where the labels depend on the length.
    """

    name: str
    model_class: Any
    kind: str
    head: str
    labels: tuple[str, ...]
    rank: int
    epochs: int
    learning_rate: float = LEARNING_RATE
    origin: str = ORIGIN
    encoder: Path | None = None
    sampling: str = "group_by_length"
    base: str | None = None

    @property
    def base_name(self) -> str:
        """The encoder's name, as the adapter's card tells it."""
        from retrieval.embedding import PACKAGED_NAME

        return Path(self.base).name if self.base else PACKAGED_NAME


def check_adapter(directory: Path, name: str) -> None:
    """Check that a directory holds an adapter, before anything that takes long.

    Args:
        directory: What is to be gone on from.
        name: What is trained, for the message.

    Raises:
        ModelError: It holds none.
    """
    if not (directory / "adapter_config.json").is_file():
        raise _no_adapter(directory, name)


def _no_adapter(directory: Path, name: str) -> ModelError:
    return ModelError(
        f"{directory} holds no adapter to go on from; give the folder adapter of a run of "
        f"train {name}"
    )


def tune(
    task: EncoderTask,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, Any]],
    target: Path,
    seed: int,
    smoke: bool = False,
    start: Path | None = None,
) -> Path:
    """Train an adapter. Interrupted, the same call goes on from the last checkpoint.

    Args:
        task: What is trained.
        tokenizer: Of the packaged embedding model.
        rows: Pairs of texts as word pieces, with what is to be learned.
        target: Directory of the run.
        seed: Of the training.
        smoke: A few steps only.
        start: An adapter of the same form to go on from.

    Returns:
        The adapter's directory, the folder ``adapter`` of ``target``.

    Raises:
        ModelError: ``start`` is no such adapter.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

    started = time.monotonic()
    set_seed(seed)  # before the head is drawn
    base = task.model_class.from_pretrained(encoder(task.base))
    if start is not None:
        try:
            model = PeftModel.from_pretrained(base, str(start), is_trainable=True)
        except Exception as error:  # peft raises anything from KeyError to RuntimeError
            raise _no_adapter(start, task.name) from error
    else:
        config = LoraConfig(
            r=task.rank,
            lora_alpha=task.rank,
            target_modules=_linear_layers(base, task.head),
            modules_to_save=[task.head],
            task_type=task.kind,
        )
        model = get_peft_model(base, config)
        if task.encoder is not None:
            _copy_encoder(task.encoder, model)
    runs, epochs = target / "checkpoints", 1 if smoke else task.epochs
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **arguments(runs, epochs, seed) | {"train_sampling_strategy": task.sampling},
            per_device_train_batch_size=BATCH,
            learning_rate=task.learning_rate,
            bf16=preferred_dtype() == torch.bfloat16,
            use_cpu=preferred_device().type == "cpu",  # else bf16 is refused there
            label_names=list(task.labels),
        ),
        train_dataset=Dataset.from_list(list(rows)),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    card = CARD.format(
        name=task.name,
        base=task.base_name,
        minutes=(time.monotonic() - started) / 60,
        count=len(rows),
        rank=task.rank,
        epochs=epochs,
        seed=seed,
        batch=BATCH,
        origin=task.origin,
        rate=task.learning_rate,
    )
    keep(model.to(torch.float16), target / "adapter", task.base_name, card)
    shutil.rmtree(runs, ignore_errors=True)
    return target / "adapter"


def average(adapters: Sequence[Path], target: Path) -> Path:
    """Write the mean of adapters that were trained on from one another, weight by weight.

    A uniform model soup (Wortsman et al. 2022, arXiv:2203.05482, recipe 1), of the low-rank weights
    and the head. Adapters that have nothing in common give a mean that is worth nothing.

    Args:
        adapters: Directories of two or more adapters of an encoder, all of the same form.
        target: The adapter's directory; it is new, or holds another adapter, which is replaced.

    Returns:
        ``target``.

    Raises:
        InputError: ``target`` is one of them, or holds something else.
        ModelError: One of them is no adapter of an encoder, or is not of the form of the first.
    """
    import torch
    from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    if any(target.resolve() == adapter.resolve() for adapter in adapters):
        raise InputError(f"{target} is one of the adapters to average; give another directory")
    kept = target.exists() and not (target / CONFIG_NAME).exists() and any(target.iterdir())
    if kept or target.is_symlink():
        raise InputError(f"{target} holds something that is no adapter; give a new directory")
    read = [_read(adapter) for adapter in adapters]
    first, config = _form(*read[0]), read[0][0]
    for adapter, each in zip(adapters, read, strict=True):
        if _form(*each) != first:
            raise ModelError(
                f"{adapter} is not of the form of {adapters[0]}; give adapters that were trained "
                "on from one another"
            )
    mean = {
        name: torch.stack([weights[name].float() for _, weights in read]).mean(0).half()
        for name in read[0][1]
    }
    with replacing(target) as new:
        config.save_pretrained(str(new))
        save_file(mean, new / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        names = "\n".join(f"- {adapter.name}" for adapter in adapters)
        (new / "README.md").write_text(MEAN_CARD.format(names=names), encoding="utf-8")
    return target


def _read(adapter: Path) -> "tuple[PeftConfig, dict[str, Tensor]]":
    """The configuration and the weights of an adapter of an encoder."""
    from peft import PeftConfig
    from peft.utils import CONFIG_NAME, load_peft_weights

    if not (adapter / CONFIG_NAME).exists():
        raise ModelError(f"{adapter} holds no adapter; give the folder of one")
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        weights = load_peft_weights(str(adapter), device="cpu")
    except Exception as error:  # peft raises anything from KeyError to ValueError
        raise ModelError(f"the adapter in {adapter} is damaged; train it again") from error
    if config.task_type not in ENCODERS:
        raise ModelError(
            f"{adapter} is an adapter of a language model, which keeps a record of the facts it "
            "was trained on; only those of encoders are averaged"
        )
    if not all(bool(each.isfinite().all()) for each in weights.values()):
        raise ModelError(f"the adapter in {adapter} holds numbers that are none; train it again")
    return config, weights


def _form(config: "PeftConfig", weights: "dict[str, Tensor]") -> tuple[Any, ...]:
    """What adapters have in common that can be averaged."""
    shapes = {name: each.shape for name, each in weights.items()}
    return config.task_type, config.r, config.lora_alpha, shapes


def encoder(base: str | None) -> str:
    """Hugging Face id or directory of an encoder; by default of the packaged embedding model."""
    from retrieval.embedding import packaged_model

    return base or str(packaged_model())


def _linear_layers(model: "PreTrainedModel", head: str) -> list[str]:
    """Names of the parts of a model's layers that get low-rank weights: all linear ones."""
    from torch.nn import Linear

    names = {
        name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, Linear)
    }
    return sorted(names - {head})


def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts as unit vectors of the packaged embedding model, shape (texts, dimension)."""
    from retrieval.embedding import open_embedding, unit_vectors

    return unit_vectors(open_embedding().get_text_embedding_batch(list(texts)))


def _copy_encoder(adapter: Path, model: "PeftModel") -> None:
    """Copy the low-rank weights of an adapter, whatever its head is, into a model."""
    import torch
    from peft.utils import load_peft_weights

    own = model.state_dict()
    with torch.no_grad():
        for name, weights in load_peft_weights(str(adapter), device="cpu").items():
            layer, found, side = name.rpartition(".lora_")
            if found:
                kind, _, rest = side.partition(".")
                own[f"{layer}.lora_{kind}.default.{rest}"].copy_(weights)


CARD = """\
# Adapter of {base}

Written by `fulcrum train {name} --out DIR --seed {seed}` in {minutes:.0f} minutes: LoRA of rank
{rank} and a head, {epochs} epochs over {count:,} examples, batch {batch}, learning rate {rate:g}
(cosine). {origin}
"""
MEAN_CARD = """\
# Mean of adapters

Written by `fulcrum train average`: the mean, weight by weight, of

{names}
"""
