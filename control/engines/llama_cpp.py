"""llama.cpp in this process: a ``.gguf`` file as it is, quantised, with batching of its own.

The package ``xllamacpp`` brings llama.cpp's server as a library. It listens on a free port of
127.0.0.1, behind a key that only this process has, and is asked as any `LlamaServer`.
"""

import hashlib
import secrets
import struct
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import torch

from control.engines.endpoint import ServedModel
from control.engines.lora_gguf import converted
from control.engines.servers import connect
from foundation.errors import ModelError

TOKENS = 32_768  # that all requests under way may hold together
PARALLEL = 32  # requests at once
CACHE_MIB = 512  # prompts kept in memory once their place is taken
MAGIC = b"GGUF"
METADATA = 64 * 2**20  # bytes that a file's metadata take at most
SPARE = 1.2  # memory needed for each byte of the file, caches included


class EmbeddedModel(ServedModel):
    """A ``.gguf`` file run by llama.cpp in this process."""

    def __init__(self, gguf: Path, cache: Path, adapter: Path | None = None) -> None:
        """Load it.

        Args:
            gguf: The file.
            cache: Directory for converted adapters.
            adapter: A PEFT adapter directory, or a LoRA adapter as ``.gguf``.

        Raises:
            ModelError: The file is missing, damaged, larger than memory, or of an architecture that
                llama.cpp does not know; or the adapter does not fit it.
        """
        _check(gguf)
        lora = None if adapter is None else converted(adapter, gguf, cache)
        if lora is not None and lora == adapter and not _is_adapter(lora):
            raise ModelError(
                f"--adapter {adapter}: is no LoRA adapter; give one, or a PEFT directory"
            )
        self._library, key = _load(gguf, lora)
        address = f"{self._library.listening_address}/v1"
        # Without a limit on the wait: it runs in this process, which a busy machine only slows.
        super().__init__(partial(connect, address, key, None))
        if lora is not None:
            told = self.identity.encode() + lora.read_bytes()
            self.identity = hashlib.sha256(told).hexdigest()[:16]


def _load(gguf: Path, adapter: Path | None) -> "tuple[Any, str]":
    try:
        import xllamacpp
    except ImportError as error:
        raise ModelError(
            f"--model {gguf}: .gguf files need llama.cpp; run: pip install xllamacpp"
        ) from error
    parameters, key = xllamacpp.CommonParams(), secrets.token_urlsafe(32)
    parameters.model.path = str(gguf)
    parameters.n_ctx, parameters.n_parallel, parameters.kv_unified = TOKENS, PARALLEL, True
    parameters.api_keys, parameters.ui, parameters.verbosity = [key], False, -1
    parameters.cache_ram_mib = CACHE_MIB
    threads = torch.get_num_threads()  # as OMP_NUM_THREADS says, else one for each core
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    if adapter is not None:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    try:
        return xllamacpp.Server(parameters), key
    except Exception as error:  # the binding raises RuntimeError and whatever llama.cpp throws
        raise ModelError(
            f"--model {gguf}: llama.cpp cannot load it: {_fault(gguf)}; give another .gguf file"
        ) from error


def _fault(gguf: Path) -> str:
    """What is wrong with a file that cannot be loaded; llama.cpp itself tells only its log."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
        architecture = reader.fields["general.architecture"].contents()
    except Exception:  # the reader raises whatever the damage leads to
        return "the file is cut off or damaged"
    return f"it may not know the architecture {architecture}, or not in this version"


def _check(gguf: Path) -> None:
    """Say what is wrong with a file before it is loaded.

    Raises:
        ModelError: It is missing, no GGUF, cut off, or larger than memory.
    """
    if gguf.is_dir():
        raise ModelError(f"--model {gguf}: is a directory; give the .gguf file in it")
    if not gguf.is_file():
        raise ModelError(f"--model {gguf}: no such file; give a .gguf file that exists")
    with gguf.open("rb") as stream:
        head = stream.read(8)
    if head[:4] != MAGIC or struct.unpack("<I", head[4:].ljust(4, b"\0"))[0] == 0:
        raise ModelError(f"--model {gguf}: is no GGUF file; give another one")
    if not _has_template(gguf):
        if "cut off" in (fault := _fault(gguf)):
            raise ModelError(f"--model {gguf}: {fault}; give another .gguf file")
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
