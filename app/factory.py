"""Builds objects from settings: here the packages are put together."""

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from app import home
from app.settings import Settings
from control.assistant import Assistant
from control.conflict import calibration as calibrations
from control.conflict.calibration import Calibration
from control.engines.transformers import LanguageModel, load
from control.forgetting.suppressor import FactSuppressor
from data import DIRECTORY as DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import NodeWithScore

    from control.forgetting.ledger import Ledger
    from control.forgetting.vector_cache import EncryptedVectorCache
    from retrieval.embedding import SentenceEmbedding, Vectors
    from retrieval.filter import Judge, KnowledgeFilter
    from retrieval.index import PassageIndex
    from retrieval.ingest.documents import SkippedPath
    from retrieval.reservoir import Reservoir
    from retrieval.rewriter import QueryRewriter, SearchCheck
    from retrieval.search import Rankings, Search

ADAPTERS = DATA / "adapters"


def language_model(settings: Settings) -> LanguageModel:
    """The language model, with its adapter if one is set."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes a second
    logging.set_verbosity_error()
    return load(settings.model, settings.cache, settings.adapter)


def calibration(settings: Settings, model: LanguageModel) -> Calibration:
    """The model's calibration: the one given, the one measured here, or the packaged one."""
    if settings.calibration is not None:
        return calibrations.fitting(settings.calibration, model)
    return calibrations.find(model, settings.cache)


def keep(measured: Calibration, model: LanguageModel, settings: Settings, target: Path) -> Path:
    """Store a calibration for the model, with a copy in ``target``; returns where it is stored."""
    stored = calibrations.stored(model, settings.cache)
    for path in (target / "calibration.json", stored):
        measured.save(path)
    return stored


def passage_index(settings: Settings) -> "PassageIndex":
    """The passage index of this home; a document removed from it is erased from the reservoir."""
    from retrieval.index import open_index

    home.prepare(settings.home)
    open_reservoir = cache(partial(reservoir, settings))  # opened only when something is removed
    return open_index(
        settings.home,
        settings.index,
        embedding(),
        top_k=settings.top_k,
        on_removed=lambda document_ids: open_reservoir().erase(document_ids),
    )


@cache
def embedding() -> "SentenceEmbedding":
    """The embedding model, shared by all its users."""
    from retrieval.embedding import open_embedding

    return open_embedding()


def vectors(texts: "Sequence[str]") -> "Vectors":
    """Unit vectors of texts by the embedding model, shape (texts, dimension)."""
    from retrieval.embedding import unit_vectors

    return unit_vectors(embedding().get_text_embedding_batch(list(texts)))


def assistant(
    settings: Settings,
    model: LanguageModel | None = None,
    forgets: bool = True,
    index: "PassageIndex | None" = None,
) -> Assistant:
    """The whole pipeline, without the modules that the settings exclude.

    Args:
        settings: The settings.
        model: One that is loaded already; by default it is loaded here.
        forgets: Whether forgotten facts are suppressed; ``False`` only to measure what that
            changes.
        index: One that is open already; by default it is opened here.
    """
    from retrieval.rewriter import ConditionalRewriter
    from retrieval.search import CANDIDATES, MultiQueryRetriever
    from retrieval.trigger import ReservoirWriter, Trigger, finds_answer

    index = index or passage_index(settings)  # first, so that its errors come before any loading
    suppressor = FactSuppressor()
    if forgets:
        suppressor = fact_suppressor(home.ledger(settings), settings.cache, vector_cache(settings))
    model = model or language_model(settings)
    judge = None if "filter" in settings.without else knowledge_filter(settings, model)
    candidates = settings.top_k if judge is None else max(CANDIDATES, settings.top_k)
    query_rewriter = None if "rewriter" in settings.without else rewriter(settings, model)
    processors: list[BaseNodePostprocessor] = [] if judge is None else [judge]
    search: Search = lambda _, queries: index.retrieve_batch(queries, candidates)  # noqa: E731
    checks: list[SearchCheck] = []
    strict_judge = judge.stricter() if judge else None
    if "reservoir" not in settings.without:
        passage_reservoir = reservoir(settings)
        trigger = Trigger(
            index,
            passage_reservoir,
            embedding(),
            judge=judge,
            strict_judge=strict_judge,
            top_k=candidates,
        )
        search = trigger.search
        processors.append(ReservoirWriter(passage_reservoir))
        checks.append(trigger.can_serve)
    if strict_judge is not None:
        checks.append(partial(finds_answer, index, strict_judge))

    def redacted_search(question: str, queries: "Sequence[str]") -> "Rankings":
        """The search, redacted, so that no chained query contains a forgotten fact."""
        return [suppressor.redact_passages(ranking) for ranking in search(question, queries)]

    return Assistant(
        model,
        calibration(settings, model),
        MultiQueryRetriever(redacted_search, candidates),
        ConditionalRewriter(query_rewriter, *checks)
        if query_rewriter and judge
        else query_rewriter,
        processors,
        settings.top_k,
        suppressor,
    )


def fact_suppressor(
    ledger: "Ledger", cache: Path | None = None, vectors: "EncryptedVectorCache | None" = None
) -> FactSuppressor:
    """The suppressor of a ledger's facts; log messages are redacted too.

    Args:
        ledger: The forgotten facts.
        cache: Directory for vectors that do not depend on the ledger.
        vectors: Cache of the vectors of this ledger's records.
    """
    from control.forgetting.logs import redact_logs
    from control.forgetting.redaction import Redactor
    from control.forgetting.router import Router

    redactor = Redactor(ledger, embedding(), vectors)
    redact_logs(redactor)
    router = Router(ledger, embedding(), cache=cache, vector_cache=vectors)
    return FactSuppressor(ledger, router, redactor)


def rewriter(settings: Settings, model: LanguageModel) -> "QueryRewriter":
    """Query Rewriter+: with its adapter on the packaged model, by prompt only on other models."""
    from control.engines.adapters import read
    from control.module_models import ModuleLLM
    from retrieval.rewriter import END, QueryRewriter

    directory = settings.rewriter or (ADAPTERS / "rewriter" if settings.model is None else None)
    adapter = read(model, directory) if directory else None
    return QueryRewriter(ModuleLLM(model, adapter, stop=END), trained=adapter is not None)


def knowledge_filter(settings: Settings, model: LanguageModel) -> "KnowledgeFilter":
    """The Knowledge Filter with the judge that the settings name."""
    from retrieval import filter as filters

    if settings.judge == "model":
        threshold = filters.JudgeCalibration.load(ADAPTERS / "filter").threshold
        return filters.KnowledgeFilter(_model_judge(model), threshold)
    cross_encoder = filters.CrossEncoderJudge(ADAPTERS / "cross-encoder", embedding())
    return filters.KnowledgeFilter(cross_encoder, cross_encoder.judgement.threshold)


def _model_judge(model: LanguageModel) -> "Judge":
    from control.engines.adapters import read
    from control.module_models import label_probabilities
    from retrieval.filter import LABELS, judge_prompt

    adapter = read(model, ADAPTERS / "filter")

    def judge(question: str, passages: "Sequence[str]") -> list[float]:
        prompts = [judge_prompt(question, passage) for passage in passages]
        return label_probabilities(model, prompts, LABELS, adapter)

    return judge


def vector_cache(settings: Settings) -> "EncryptedVectorCache":
    """The encrypted cache of the vectors of this home's forgotten facts."""
    from control.forgetting.vector_cache import open_vector_cache

    key = settings.ledger_key
    return open_vector_cache(
        settings.home, None if key is None else key.get_secret_value(), embedding().model_name
    )


def reservoir(settings: Settings) -> "Reservoir":
    """The reservoir: useful passages of earlier questions."""
    from retrieval.reservoir import Reservoir

    return Reservoir(settings.home, embedding())


def given_passages(
    paths: list[Path], on_skipped: "Callable[[SkippedPath], None]"
) -> "list[NodeWithScore]":
    """The passages of documents given with the question, in reading order."""
    from llama_index.core.schema import NodeWithScore

    from retrieval.ingest.chunking import split
    from retrieval.ingest.documents import read

    return [
        NodeWithScore(node=node) for document in read(paths, on_skipped) for node in split(document)
    ]
