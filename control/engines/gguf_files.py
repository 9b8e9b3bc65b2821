"""Files for llama.cpp, checked before anything is loaded."""

import struct
from mmap import ACCESS_READ, mmap
from pathlib import Path

from foundation.errors import ModelError

MAGIC = b"GGUF"
METADATA = 64 * 2**20  # bytes that a file's metadata take at most
SPARE = 1.2  # memory needed for each byte of the file, caches included
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")


def check(gguf: Path, adapter: Path | None = None) -> None:
    """Say what is wrong with a file, and with an adapter for it, before they are loaded.

    Raises:
        ModelError: It is missing, no GGUF, cut off, or larger than memory; or the adapter is
            none.
    """
    if gguf.is_dir():
        raise ModelError(f"--model {gguf}: is a directory; give the .gguf file in it")
    if not gguf.is_file():
        raise ModelError(f"--model {gguf}: no such file; give a .gguf file that exists")
    try:
        with gguf.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise ModelError(
            f"--model {gguf}: cannot be read ({error.strerror}); give a file that can"
        ) from error
    if head[:4] != MAGIC or struct.unpack("<I", head[4:].ljust(4, b"\0"))[0] == 0:
        raise ModelError(f"--model {gguf}: is no GGUF file; give another one")
    if not _has_template(gguf):
        if "cut off" in (what := fault(gguf)):
            raise ModelError(f"--model {gguf}: {what}; give another .gguf file")
        raise ModelError(
            f"--model {gguf}: has no chat template; give a model tuned for chats, or run this one "
            "by --engine transformers"
        )
    size, free = gguf.stat().st_size, _free_memory()
    if free is not None and size * SPARE > free:
        raise ModelError(
            f"--model {gguf}: needs about {size * SPARE / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} are free; give a smaller model or one with fewer bits"
        )
    if adapter is not None:
        _check_adapter(adapter)


def _check_adapter(adapter: Path) -> None:
    if adapter.suffix.lower() == ".gguf" and adapter.is_file():
        if not _is_adapter(adapter):
            raise ModelError(
                f"--adapter {adapter}: is no LoRA adapter; give one, or a PEFT directory"
            )
    elif not all((adapter / name).is_file() for name in PEFT_FILES):
        raise ModelError(
            f"--adapter {adapter}: holds no {' and '.join(PEFT_FILES)}; "
            "give a PEFT adapter directory, or a .gguf file"
        )


def fault(gguf: Path) -> str:
    """What is wrong with a file that cannot be loaded; llama.cpp itself tells only its log."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
        architecture = reader.fields["general.architecture"].contents()
    except Exception:  # the reader raises whatever the damage leads to
        return "the file is cut off or damaged"
    return (
        f"it may not know the architecture {architecture}, not in this version, or its chat "
        "template may be damaged"
    )


def _has_template(gguf: Path) -> bool:
    """Whether the metadata, at the beginning of the file, hold a chat template."""
    with gguf.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(b"tokenizer.chat_template", 0, METADATA) >= 0


def _is_adapter(gguf: Path) -> bool:
    """Whether a file holds a LoRA adapter, as its metadata say."""
    from gguf import GGUFReader

    try:
        field = GGUFReader(gguf).fields.get("general.type")
    except Exception:  # the reader raises whatever the damage leads to
        return False
    return field is not None and field.contents() == "adapter"


def _free_memory() -> int | None:
    """Bytes that can be had, as the operating system tells; ``None`` if it does not."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
