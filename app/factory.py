"""Builds objects from settings: here the packages are put together."""

import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from app import home
from app.settings import Settings
from control.engines import gguf_files, transformers
from control.engines.hub import fetched, is_gguf_spec
from control.engines.transformers import LanguageModel, load
from control.question import FEWEST_READ
from data import DIRECTORY as DATA
from foundation.addresses import check_address
from foundation.errors import InputError, ModelError
from retrieval.stores.urls import check_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import Document, NodeWithScore
    from numpy.typing import NDArray

    from app.swept_index import SweptIndex
    from control.assistant import Assistant
    from control.conflict.calibration import Calibration
    from control.conflict.reader import Reader, Reading
    from control.conflict.support import Support
    from control.corrections import Corrections
    from control.engines.base import Engine
    from control.forgetting.classifier import FactClassifier
    from control.forgetting.clearing import Door
    from control.forgetting.ledger import Ledger
    from control.forgetting.redaction import Redactor
    from control.forgetting.suppressor import FactSuppressor
    from control.forgetting.vector_cache import EncryptedVectorCache
    from retrieval.embedding import CachedEmbedding, Vectors
    from retrieval.filter import EvidenceJudge, Judge, JudgeCalibration, KnowledgeFilter, Logits
    from retrieval.index import PassageIndex
    from retrieval.ingest.documents import ReadDocument, SkippedPath
    from retrieval.reservoir import Reservoir
    from retrieval.rewriter import QueryRewriter
    from retrieval.search import Rankings, Search

ADDRESS = re.compile(r"[\w.-]+:\d+(/|$)")  # of a server, without http://
TRANSFORMERS = "transformers"  # a value of the setting ``engine``
ADAPTERS = DATA / "adapters"
CALIBRATION = "calibration.json"  # in the directory of the run that measured it
COSINE_JUDGE = DATA / "calibrations" / "filter-cosine.json"
READER_JUDGE = DATA / "calibrations" / "filter-reader.json"


def language_model(settings: Settings) -> "Engine":
    """The language model that answers: behind a server, run by llama.cpp, or by transformers.

    Raises:
        InputError: An adapter is set for a model that takes none.
        ModelError: There is no such model, or it cannot be used.
    """
    check(settings)
    spec = settings.model or ""
    if _is_server(spec):
        from control.engines.endpoint import ServedModel
        from control.engines.servers import connect

        key = settings.model_key
        return ServedModel(partial(connect, spec, key.get_secret_value() if key else None))
    if _is_for_llama_cpp(settings):
        from control.engines.llama_cpp import EmbeddedModel

        gguf = fetched(spec) if is_gguf_spec(spec) else Path(spec).expanduser()
        return EmbeddedModel(gguf, settings.cache, settings.adapter)
    return local_model(settings)


def check(settings: Settings, local: bool = False) -> None:
    """Say what is wrong with the model, its files and the index before anything is loaded.

    It imports neither torch nor transformers, so that a mistake is told at once.

    Args:
        settings: The settings.
        local: Whether the model is to be run by transformers, as for `local_model`.

    Raises:
        InputError: Settings contradict each other, or one cannot be used.
        ModelError: There is no such model, adapter or calibration.
    """
    spec = settings.model or ""
    if local and _is_server(spec):
        raise InputError(
            f"--model {spec}: this needs a model in this process; give a Hugging Face id, a model "
            "directory or a .gguf file"
        )
    if settings.calibration is not None and not settings.calibration.is_file():
        raise ModelError(
            f"{settings.calibration}: no calibration that can be used (there is no such file); "
            "measure the model by: fulcrum eval dial --calibrate --out DIR"
        )
    check_url(settings.index)
    reads = settings.reader or ""
    if reads.startswith(("/", ".", "~")) and not Path(reads).is_dir():
        raise InputError(f"--reader {reads}: there is no directory of that name")
    if ADDRESS.match(spec):
        raise InputError(
            f"--model {spec}: is neither a file nor an id; for a server: http://{spec}"
        )
    if _is_server(spec):
        _check_server(settings, spec)
    elif local or not _is_for_llama_cpp(settings):
        if settings.engine == "llama.cpp" and not local:
            raise InputError("--engine llama.cpp runs .gguf files; give one by --model")
        transformers.check(settings.model, settings.adapter)
    elif not is_gguf_spec(spec):
        gguf_files.check(Path(spec).expanduser(), settings.adapter)


def _check_server(settings: Settings, spec: str) -> None:
    if settings.engine != "auto":
        raise InputError(
            f"--engine {settings.engine}: {spec} is a server, which runs it; leave it out"
        )
    if settings.adapter is not None:
        raise InputError(
            f"--adapter {settings.adapter}: {spec} is a server, which puts its own adapters on "
            "its models; start it with the adapter and name that model after a #"
        )
    check_address(f"--model {spec}", spec.partition("#")[0], "FULCRUM_MODEL_KEY")


def _is_server(spec: str) -> bool:
    return spec.startswith(("http://", "https://"))


def _is_for_llama_cpp(settings: Settings) -> bool:
    spec = settings.model or ""
    of_file = spec.lower().endswith(".gguf") and settings.engine != TRANSFORMERS
    return of_file or is_gguf_spec(spec)


def local_model(settings: Settings) -> LanguageModel:
    """The model run by transformers, for training, token rules and hidden states.

    Raises:
        InputError: It is behind a server.
        ModelError: There is no such model, or it cannot be loaded.
    """
    check(settings, local=True)
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes a second
    logging.set_verbosity_error()
    return load(settings.model, settings.cache, settings.adapter)


def calibration(settings: Settings, model: "Engine") -> "Calibration":
    """The model's calibration: the one given, the one measured here, or the packaged one."""
    from control.conflict import calibration as calibrations

    if settings.calibration is not None:
        return calibrations.fitting(settings.calibration, model)
    return calibrations.find(model, settings.cache)


def keep(measured: "Calibration", model: "Engine", settings: Settings, target: Path) -> Path:
    """Store a calibration for the model, with a copy in ``target``; returns where it is stored."""
    from control.conflict import calibration as calibrations

    stored = calibrations.stored(model, settings.cache)
    for path in (target / CALIBRATION, stored):
        measured.save(path)
    return stored


def passage_index(settings: Settings) -> "PassageIndex":
    """The passage index of this home."""
    from retrieval.index import open_index

    home.prepare(settings.home)
    return open_index(
        settings.home,
        settings.index,
        embedding(settings),
        top_k=settings.top_k or FEWEST_READ,
        read_document=_document_reader(settings),
    )


def swept_index(settings: Settings) -> "SweptIndex":
    """The passage index of this home; new passages are swept for what is forgotten."""
    from app.swept_index import SweptIndex
    from retrieval.index import open_store

    home.prepare(settings.home)
    embed_model = embedding(settings)
    return SweptIndex(
        settings,
        open_store(settings.home / "index", settings.index, embed_model.model_name),
        embed_model,
        top_k=settings.top_k or FEWEST_READ,
        read_document=_document_reader(settings),
    )


def _document_reader(settings: Settings) -> "ReadDocument | None":
    from control.conflict.reader import read_document

    return None if "reader" in settings.without else partial(read_document, LazyReader(settings))


def embedding(settings: Settings) -> "CachedEmbedding":
    """The embedding model of passages and queries, one for all that embed them.

    Raises:
        ModelError: There is no such model, or its server cannot be asked for its name.
    """
    from retrieval.embedding import PACKAGED_ALIASES

    name, key = settings.embedding, settings.embedding_key
    if not name or name in PACKAGED_ALIASES:
        return packaged_embedding()
    return _embedding(name, key.get_secret_value() if key else None)


@cache
def _embedding(name: str, key: str | None) -> "CachedEmbedding":
    from retrieval.embedding import open_embedding

    return open_embedding(name, key)


@cache
def packaged_embedding() -> "CachedEmbedding":
    """The packaged embedding model, whichever one the settings name for the passages.

    What was fitted or measured on its vectors stays on it: the filter's cross-encoder, all that
    recognises forgotten facts, and the contexts that are built for evaluation and training.
    """
    from retrieval.embedding import open_embedding

    return open_embedding()


def vectors(texts: "Sequence[str]") -> "Vectors":
    """Texts as unit vectors of the packaged embedding model, shape (texts, dimension).

    It chooses passages of the same topic for evaluation and training, which are to be the same
    whatever the index uses.
    """
    from retrieval.embedding import unit_vectors

    return unit_vectors(packaged_embedding().get_text_embedding_batch(list(texts)))


def assistant(
    settings: Settings,
    model: "Engine | None" = None,
    forgets: bool = True,
    index: "PassageIndex | None" = None,
) -> "Assistant":
    """The whole pipeline, without the modules that the settings exclude.

    Args:
        settings: The settings.
        model: One that is loaded already; by default it is loaded here.
        forgets: Whether forgotten facts are suppressed; ``False`` only to measure what that
            changes.
        index: One that is open already; by default it is opened here.
    """
    from control.assistant import Assistant
    from control.conflict.sources import SourceOptions
    from control.forgetting.suppressor import FactSuppressor
    from retrieval.rewriter import ConditionalRewriter
    from retrieval.search import CANDIDATES, MultiQueryRetriever
    from retrieval.trigger import Trigger, finds_answer

    index = index or passage_index(settings)  # first, so that its errors come before any loading
    suppressor = FactSuppressor()
    if forgets:
        suppressor = fact_suppressor(home.ledger(settings), vector_cache(settings))
    model = model or language_model(settings)
    judge = None if "filter" in settings.without else knowledge_filter(settings, model)
    candidates = max(CANDIDATES, settings.top_k or 0)
    if judge is None and settings.top_k is not None:
        candidates = settings.top_k
    query_rewriter = None if "rewriter" in settings.without else rewriter(settings, model)
    processors: list[BaseNodePostprocessor] = [] if judge is None else [judge]
    search: Search = lambda _, queries: index.retrieve_batch(queries, candidates)  # noqa: E731
    if "reservoir" not in settings.without:
        trigger = Trigger(index, reservoir(settings), embedding(settings), top_k=candidates)
        search = trigger.search

    def redacted_search(question: str, queries: "Sequence[str]") -> "Rankings":
        """The search, redacted, so that no chained query contains a forgotten fact."""
        return [suppressor.redact_passages(ranking) for ranking in search(question, queries)]

    rewrites: BaseQueryTransform | None = query_rewriter
    if query_rewriter and judge:
        first_look = partial(finds_answer, search, strict_filter(settings, model))
        rewrites = ConditionalRewriter(query_rewriter, first_look)
    reads = "reader" not in settings.without
    return Assistant(
        model,
        calibration(settings, model),
        MultiQueryRetriever(redacted_search, candidates),
        rewrites,
        processors,
        settings.top_k,
        suppressor,
        reader(settings) if reads else None,
        support() if reads else None,
        corrections(settings, suppressor.ledger) if reads and suppressor.ledger else None,
        SourceOptions(settings.policy, only_documents=settings.only_documents),
        embed_model=packaged_embedding() if reads else None,
    )


def reader(settings: Settings) -> "Reader":
    """What finds the claims of passages and answers.

    Raises:
        ModelError: The one that the settings name cannot be used.
    """
    return _reader(settings.reader)


@cache
def _reader(name: str | None) -> "Reader":
    from control.conflict import reader as readers
    from retrieval.embedding import packaged_model

    return (
        readers.open_reader(name) if name else readers.load(packaged_model(), ADAPTERS / "reader")
    )


@cache
def support() -> "Support":
    """What finds the passages that support a sentence, on the packaged embedding model."""
    from control.conflict import support as supports
    from retrieval.embedding import packaged_model

    return supports.load(packaged_model(), ADAPTERS / "support")


@cache
def fact_classifier() -> "FactClassifier":
    """What tells whether forgotten facts are asked for or stated, on the packaged encoder."""
    from control.forgetting import classifier
    from retrieval.embedding import packaged_model

    return classifier.load(packaged_model(), ADAPTERS / "facts")


@cache
def common_words() -> frozenset[str]:
    """The words of the packaged encoder's vocabulary, none of which is a misspelled name."""
    from tokenizers import Tokenizer

    from retrieval.embedding import packaged_model

    vocabulary = Tokenizer.from_file(str(packaged_model() / "tokenizer.json")).get_vocab()
    return frozenset(filter(str.isalpha, vocabulary))


def fact_suppressor(
    ledger: "Ledger", vectors: "EncryptedVectorCache | None" = None
) -> "FactSuppressor":
    """The suppressor of a ledger's facts; log messages are redacted too.

    Args:
        ledger: The forgotten facts.
        vectors: Cache of the vectors of this ledger's records.
    """
    from control.forgetting.logs import redact_logs
    from control.forgetting.router import Router
    from control.forgetting.suppressor import FactSuppressor

    judge = LazyFactClassifier()
    router = Router(ledger, packaged_embedding(), judge, vectors, common_words())
    suppressor = FactSuppressor(ledger, router, redactor(ledger), judge)
    redact_logs(suppressor.door)
    return suppressor


def door(settings: Settings) -> "Door":
    """What clears all that leaves this home of its forgotten facts; logs are cleared by it too.

    Raises:
        IndexStateError: The ledger cannot be read.
    """
    from control.forgetting.clearing import Door
    from control.forgetting.logs import redact_logs

    if not home.has_ledger(settings):
        return Door()
    facts = home.ledger(settings)
    opened = Door(redactor(facts), facts)
    redact_logs(opened)
    return opened


def corrections(settings: Settings, ledger: "Ledger") -> "Corrections":
    """The pinned corrections of a ledger; nothing is loaded before a statement has to be read."""
    from control.corrections import Corrections

    reads, judge = LazyReader(settings), LazyFactClassifier()
    return Corrections(ledger, packaged_embedding(), reads, judge, redactor(ledger))


def redactor(ledger: "Ledger") -> "Redactor":
    """What redacts a ledger's facts; the classifier is loaded when the first text is judged."""
    from control.forgetting.redaction import Redactor

    return Redactor(ledger, LazyFactClassifier())


@dataclass(frozen=True)
class LazyReader:
    """The reader, loaded when the first text is read: a list of corrections needs none.

    Attributes:
        settings: Name it.
    """

    settings: Settings

    def read(self, asked: "Sequence[tuple[str, str]]") -> "list[Reading]":
        """Read pairs of question and text; see `control.conflict.reader.Reader`."""
        return reader(self.settings).read(asked)


class LazyFactClassifier:
    """The classifier of forgotten facts, loaded when the first text has to be judged."""

    def asks(self, pairs: "Sequence[tuple[str, str]]") -> list[float]:
        """How likely messages ask for facts; as `FactClassifier.asks`."""
        return fact_classifier().asks(pairs)

    def states(self, pairs: "Sequence[tuple[str, str]]") -> list[float]:
        """How likely sentences state facts; as `FactClassifier.states`."""
        return fact_classifier().states(pairs)


def rewriter(settings: Settings, model: "Engine") -> "QueryRewriter":
    """Query Rewriter+: with its adapter on the packaged model, by prompt only on other models."""
    from control.engines.adapters import read
    from control.module_models import ModuleLLM
    from retrieval.rewriter import END, QueryRewriter

    directory = settings.rewriter or (ADAPTERS / "rewriter" if settings.model is None else None)
    adapter = read(_adaptable(model), directory) if directory else None
    return QueryRewriter(ModuleLLM(model, adapter, stop=END), trained=adapter is not None)


def knowledge_filter(settings: Settings, model: "Engine") -> "KnowledgeFilter":
    """The Knowledge Filter with the judge that the settings name.

    By default a model that reads many passages has them judged by the reader, if it is not left
    out. One that reads few answers no better with what the reader keeps for it. All judges but the
    language model weigh cosines of the packaged embedding model.
    """
    from control.assistant import reading_limit
    from retrieval.filter import (
        NEAR_BEST,
        NEAR_BEST_OF_FEW,
        EvidenceJudge,
        JudgeCalibration,
        KnowledgeFilter,
    )

    few = reading_limit(model) == FEWEST_READ
    name = settings.judge or ("cosine" if few or "reader" in settings.without else "reader")
    make = partial(KnowledgeFilter, near_best=NEAR_BEST_OF_FEW if few else NEAR_BEST)
    if name == "model":
        return make(_model_judge(model), _calibration_of("filter").threshold)
    if name == "cross-encoder":
        return make(_cross_encoder(), _calibration_of("cross-encoder").threshold)
    logits = answer_logits(settings) if name == "reader" else None
    fitted = JudgeCalibration.load(READER_JUDGE if logits else COSINE_JUDGE)
    judge = EvidenceJudge(fitted, packaged_embedding(), logits)
    return make(judge, fitted.threshold, fitted.rank)


def answer_logits(settings: Settings) -> "Logits":
    """How likely the reader finds an answer to a question in each of some passages, as logits.

    The reader is loaded at the first question.
    """
    from retrieval.filter import reader_logits

    def logits(question: str, passages: "Sequence[str]") -> "NDArray[np.float64]":
        found = reader(settings).read([(question, passage) for passage in passages])
        return reader_logits([reading.answers for reading in found])

    return logits


def _calibration_of(adapter: str) -> "JudgeCalibration":
    from retrieval.filter import JUDGEMENT, JudgeCalibration

    return JudgeCalibration.load(ADAPTERS / adapter / JUDGEMENT)


def strict_filter(settings: Settings, model: "Engine") -> "KnowledgeFilter":
    """A filter that keeps only what surely answers a question as it was asked.

    By the cross-encoder: it tells a passage for one half of a question from one for all of it,
    which cosines do not.
    """
    from retrieval.filter import STRICT_THRESHOLD, KnowledgeFilter

    judge = _model_judge(model) if settings.judge == "model" else _cross_encoder()
    return KnowledgeFilter(judge, STRICT_THRESHOLD)


@cache
def _cross_encoder() -> "EvidenceJudge":
    from retrieval.filter import CrossEncoderLogits, EvidenceJudge

    logits = CrossEncoderLogits(ADAPTERS / "cross-encoder")
    return EvidenceJudge(_calibration_of("cross-encoder"), packaged_embedding(), logits)


def _model_judge(model: "Engine") -> "Judge":
    from control.engines.adapters import read
    from control.module_models import label_probabilities
    from retrieval.filter import LABELS, judge_prompt

    adapter = read(_adaptable(model), ADAPTERS / "filter")

    def judge(question: str, passages: "Sequence[str]") -> list[float]:
        prompts = [judge_prompt(question, passage) for passage in passages]
        return label_probabilities(_adaptable(model), prompts, LABELS, adapter)

    return judge


def _adaptable(model: "Engine") -> LanguageModel:
    if not isinstance(model, LanguageModel):
        raise InputError(
            f"{model.name} takes no adapter here; leave out --rewriter and --judge model, or give "
            "a model directory or Hugging Face id"
        )
    return model


def vector_cache(settings: Settings) -> "EncryptedVectorCache":
    """The encrypted cache of the vectors of this home's forgotten facts."""
    from control.forgetting.vector_cache import open_vector_cache

    key = settings.ledger_key
    return open_vector_cache(
        settings.home,
        None if key is None else key.get_secret_value(),
        packaged_embedding().model_name,
    )


def reservoir(settings: Settings) -> "Reservoir":
    """The reservoir of earlier searches."""
    from retrieval.reservoir import Reservoir

    return Reservoir(settings.home)


def given_passages(
    settings: Settings, paths: list[Path], on_skipped: "Callable[[SkippedPath], None]"
) -> "list[NodeWithScore]":
    """The passages of documents given with the question, in reading order."""
    from llama_index.core.schema import NodeWithScore

    from retrieval.ingest.chunking import split
    from retrieval.ingest.documents import date_documents, read

    documents: Iterable[Document] = read(paths, on_skipped)
    if reads := _document_reader(settings):
        documents = date_documents(documents, reads)
    return [NodeWithScore(node=node) for document in documents for node in split(document)]
