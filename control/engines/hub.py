"""A ``.gguf`` file of the Hugging Face hub, named as in llama.cpp: ``owner/repository:Q4_K_M``."""

import re
from pathlib import Path

from foundation.errors import ModelError

RECOMMENDED = "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF:Q4_K_M"
SPEC = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<quantisation>[\w.-]+)")
PART = re.compile(r"-(\d+)-of-\d+\.gguf$")


def is_gguf_spec(spec: str) -> bool:
    """Whether it names a repository and a quantisation."""
    return SPEC.fullmatch(spec) is not None


def fetched(spec: str) -> Path:
    """The file in the hub's cache, downloaded with a progress bar at its first use.

    Args:
        spec: Repository and quantisation, with a colon between.

    Raises:
        ModelError: The hub cannot be reached, or the repository has no such file, or several.
    """
    from huggingface_hub import snapshot_download

    match = SPEC.fullmatch(spec)
    if match is None:
        raise ModelError(f"--model {spec}: name a repository and a quantisation, as {RECOMMENDED}")
    repository, wanted = match["repository"], match["quantisation"]
    patterns = [f"*{form}*.gguf" for form in {wanted, wanted.lower(), wanted.upper()}]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # of the hub's client, of the network, of the file system
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ModelError(
            f"--model {spec}: cannot be fetched ({reason}); check name and network, or give a "
            ".gguf file"
        ) from error
    found = sorted(path for path in folder.rglob("*.gguf") if wanted.lower() in path.name.lower())
    whole = [
        path for path in found if (part := PART.search(path.name)) is None or int(part[1]) == 1
    ]
    if len(whole) != 1:
        names = ", ".join(path.name for path in whole) or "none"
        raise ModelError(
            f"--model {spec}: the files of {repository} that match are: {names}; name one "
            "quantisation"
        )
    return whole[0]
