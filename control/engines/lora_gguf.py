"""LoRA adapters of PEFT, converted for llama.cpp."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from foundation.errors import ModelError
from foundation.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREFIX, KINDS = "base_model.model.", {"lora_A": "lora_a", "lora_B": "lora_b"}
# llama.cpp keeps the rows of queries and keys of these architectures in another order.
PERMUTED, PLAIN = ("llama", "smollm3"), ("qwen2", "qwen3")


def converted(adapter: Path, gguf: Path, cache: Path) -> Path:
    """The ``.gguf`` file of an adapter, converted at its first use.

    Args:
        adapter: A directory of PEFT's, or a ``.gguf`` file, which is returned as it is; checked
            by `control.engines.gguf_files.check`.
        gguf: The model's file, which tells the architecture.
        cache: Directory for converted adapters.

    Raises:
        ModelError: It cannot be converted for this model.
    """
    if adapter.suffix.lower() == ".gguf" and adapter.is_file():
        return adapter
    weights = adapter / "adapter_model.safetensors"
    config = (adapter / "adapter_config.json").read_bytes()
    of = f"{gguf.name} {gguf.stat().st_size}".encode()
    digest = hashlib.sha256(weights.read_bytes() + config + of).hexdigest()[:16]
    target = cache / "adapters" / f"{digest}.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(target) as new:
                _convert(adapter, gguf, new)
        except (AttributeError, LookupError, TypeError, ValueError, SafetensorError) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise ModelError(
                f"--adapter {adapter}: is damaged ({what}); give a PEFT adapter of this model"
            ) from error
    return target


def _convert(adapter: Path, gguf: Path, target: Path) -> None:
    from gguf import MODEL_ARCH_NAMES, GGUFReader, GGUFWriter, get_tensor_name_map
    from safetensors.numpy import load_file

    fields = GGUFReader(gguf).fields
    architecture = fields["general.architecture"].contents()
    if architecture not in (*PERMUTED, *PLAIN):
        raise ModelError(
            f"--adapter {adapter}: adapters for the architecture {architecture} are not converted "
            "here; convert it by llama.cpp's convert_lora_to_gguf.py and give the .gguf file"
        )

    def number(name: str) -> int:
        return int(fields[f"{architecture}.{name}"].contents())

    kinds = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(kinds[architecture], number("block_count"))
    heads = {"q_proj": number("attention.head_count"), "k_proj": number("attention.head_count_kv")}
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(target, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    for name, weights in load_file(adapter / "adapter_model.safetensors").items():
        module, kind = _parts(name)
        found = names.get_name(module)
        if kind not in KINDS or found is None or config.get("use_dora") or config.get("use_rslora"):
            raise ModelError(f"--adapter {adapter}: llama.cpp takes plain LoRA only, not {name}")
        count = heads.get(module.rpartition(".")[2])
        rows = count if kind == "lora_B" and architecture in PERMUTED else None
        ordered = weights if rows is None else _permuted(weights, rows)
        writer.add_tensor(f"{found}.weight.{KINDS[kind]}", ordered.astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _parts(name: str) -> tuple[str, str]:
    """Module and kind of a tensor, as in ``base_model.model.model.layers.0.mlp.up_proj.lora_A``."""
    module, _, kind = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
    return module, kind


def _permuted(weights: "NDArray[Any]", heads: int) -> "NDArray[Any]":
    """Rows of queries or keys in llama.cpp's order: the halves of each head interleaved."""
    rows = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return rows.swapaxes(1, 2).reshape(weights.shape)
