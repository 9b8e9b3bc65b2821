"""llama.cpp in this process: a ``.gguf`` file as it is, quantised, with batching of its own.

The package ``xllamacpp`` brings llama.cpp's server as a library. It listens on a free port of
127.0.0.1, behind a key that only this process has, and is asked as any `LlamaServer`.
"""

import hashlib
import secrets
from functools import partial
from pathlib import Path
from typing import Any

import torch

from control.engines import gguf_files
from control.engines.endpoint import ServedModel
from control.engines.lora_gguf import converted
from control.engines.servers import connect
from foundation.errors import ModelError

TOKENS = 32_768  # that all requests under way may hold together
PARALLEL = 32  # requests at once
CACHE_MIB = 512  # prompts kept in memory once their place is taken


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
        gguf_files.check(gguf, adapter)
        lora = None if adapter is None else converted(adapter, gguf, cache)
        self._library, key = _load(gguf, lora)
        address = f"{self._library.listening_address}/v1"
        # Without a limit on the wait: it runs in this process, which a busy machine only slows.
        super().__init__(partial(connect, address, key, patient=True))
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
            f"--model {gguf}: llama.cpp cannot load it: {gguf_files.fault(gguf)}; give another "
            ".gguf file"
        ) from error
