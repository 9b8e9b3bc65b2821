"""All settings, validated once."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from control.conflict.sources import Policy
from foundation.errors import InputError

PREFIX = "FULCRUM_"  # of the environment variables

Module = Literal["rewriter", "filter", "reservoir", "reader"]


def _read_list(value: object) -> object:
    """Return the words of a text, which are separated by commas or a list in JSON."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [word.strip() for word in value.split(",") if word.strip()]
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("give words separated by commas, or a list in JSON") from None


class Settings(BaseSettings):
    """What the global options and the environment (``FULCRUM_HOME``, ...) say."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, protected_namespaces=())

    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("fulcrum")),
        description="directory that holds all state",
    )
    cache: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("fulcrum")),
        description="directory for converted models; may be deleted at any time",
    )
    model: str | None = Field(
        None,
        description="Hugging Face id, model directory, .gguf file, or URL of an OpenAI-compatible "
        "server; default: the packaged one",
    )
    model_key: SecretStr | None = Field(None, description="key of the server of the model")
    engine: Literal["auto", "transformers", "llama.cpp"] = Field(
        "auto", description="what runs a .gguf file; auto: llama.cpp"
    )
    embedding: str | None = Field(
        None,
        description="embedding model: Hugging Face id, directory that sentence-transformers saved, "
        "or URL of an OpenAI-compatible server; default: the packaged one",
    )
    embedding_key: SecretStr | None = Field(
        None, description="what has to be shown to the server of the embedding model"
    )
    reader: str | None = Field(
        None,
        description="what reads claims: Hugging Face id or directory of a model for extractive "
        "question answering, trained also on questions without an answer (SQuAD 2.0); default: "
        "the packaged one",
    )
    adapter: Path | None = Field(None, description="PEFT adapter directory for the model")
    calibration: Path | None = Field(
        None, description="calibration file of the dial; default: the model's own"
    )
    index: str | None = Field(None, description="URL of the passage index; default: in the home")
    ledger: str | None = Field(
        None, description="URL of the ledger of forgotten facts; default: in the home"
    )
    ledger_key: SecretStr | None = Field(
        None, description="its key, 64 hexadecimal digits; default: the file ledger.key in the home"
    )
    ledger_checkpoint: Path | None = Field(
        None,
        description="file, such as on another disk, that also holds how far the ledger goes, so "
        "that its removal is found; default: only in the home and beside the index",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1_024,
        description="threads that this process computes with; default: OMP_NUM_THREADS, else the "
        "cores that are free when it starts, for a server all cores",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=100,
        description="passages read for a question at most; default: as the model's window allows",
    )
    without: Annotated[frozenset[Module], NoDecode, BeforeValidator(_read_list)] = Field(
        frozenset(),
        description="modules to leave out, separated by commas: rewriter, filter, reservoir, "
        "reader",
    )
    policy: Policy | None = Field(
        None,
        description="which documents an answer follows where they disagree: newest, trusted, "
        "majority, or all; default: the trusted or else the newest ones, if that can be told",
    )
    only_documents: bool = Field(
        False, description="answer only what a document claims, and nothing from memory"
    )
    rewriter: Path | None = Field(
        None, description="rewriter adapter; default: the shipped one, for the packaged model"
    )
    judge: Literal["reader", "cosine", "cross-encoder", "model"] | None = Field(
        None,
        description="what the filter judges passages with; default: for a model that reads many of "
        "them the reader, cosine and rank, for others the last two",
    )
    host: str = Field("127.0.0.1", min_length=1, description="address that a server binds to")
    port: int = Field(7860, ge=0, le=65535, description="port of a server; 0 is a free one")
    read_key: SecretStr | None = Field(
        None, description="what who asks a server questions has to show"
    )
    admin_key: SecretStr | None = Field(
        None, description="what who adds documents or forgets facts there has to show"
    )
    token_limit: int = Field(
        1_024, ge=1, description="longest answer that may be asked of a server, in tokens"
    )
    replicas: int = Field(
        1, ge=1, le=1_000, description="copies of the assistant behind a server, by Ray Serve"
    )
    waiting: int = Field(64, ge=1, le=10_000, description="questions that may wait in a server")
    body_limit: int = Field(1, ge=1, le=100, description="largest request but uploads, in MB")
    upload_limit: int = Field(50, ge=1, le=2_000, description="largest uploaded file, in MB")
    upload_seconds: float = Field(60.0, gt=0, description="longest reading of one uploaded file")
    upload_memory: int = Field(
        1_500, ge=100, description="memory that reading an uploaded file may take, in MB"
    )


def load(**given: Any) -> Settings:
    """Settings from the environment, overridden by those of ``given`` that are not ``None``.

    Raises:
        InputError: A value is out of its range or of the wrong kind.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name, *_ = map(str, first["loc"])
        told = name.replace("_", "-") if given.get(name) is not None else f"{PREFIX}{name.upper()}"
        why = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{told} is {first['input']!r}: {why}") from error
