"""Settings in, objects out: the one place where the storeys are joined."""

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
    from retrieval.embedding import CachedEmbedding, Vectors
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
    """The model's calibration: the one named, the one measured here, or the one shipped."""
    if settings.calibration is not None:
        return calibrations.fitting(settings.calibration, model)
    return calibrations.find(model, settings.cache)


def keep(measured: Calibration, model: LanguageModel, settings: Settings, target: Path) -> Path:
    """Keep a calibration for the model, with a copy in ``target``; where it is kept."""
    kept = calibrations.stored(model, settings.cache)
    for path in (target / "calibration.json", kept):
        measured.save(path)
    return kept


def passage_index(settings: Settings) -> "PassageIndex":
    """The passage index of this home; what leaves it leaves the reservoir too."""
    from retrieval.index import open_index

    home.prepare(settings.home)
    held = cache(partial(reservoir, settings))  # not opened before something leaves
    return open_index(
        settings.home,
        settings.index,
        embedding(settings),
        top_k=settings.top_k,
        on_removed=lambda document_ids: held().erase(document_ids),
    )


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
    model: LanguageModel | None = None,
    forgets: bool = True,
    index: "PassageIndex | None" = None,
) -> Assistant:
    """The whole pipeline, without the modules that the settings leave out.

    Args:
        settings: The settings.
        model: One that is loaded already.
        forgets: Whether it keeps forgotten facts back, as everywhere but in measuring what that
            changes.
        index: One that is open already.
    """
    from retrieval.rewriter import ConditionalRewriter
    from retrieval.search import CANDIDATES, MultiQueryRetriever
    from retrieval.trigger import ReservoirWriter, Trigger, finds_answer

    index = index or passage_index(settings)  # first: what is wrong with it shows at once
    keeping = FactSuppressor()
    if forgets:
        keeping = layers(home.ledger(settings), settings.cache, shelf(settings))
    model = model or language_model(settings)
    judge = None if "filter" in settings.without else knowledge_filter(settings, model)
    wanted = settings.top_k if judge is None else max(CANDIDATES, settings.top_k)
    rewrites = None if "rewriter" in settings.without else rewriter(settings, model)
    processors: list[BaseNodePostprocessor] = [] if judge is None else [judge]
    search: Search = lambda _, queries: index.retrieve_batch(queries, wanted)  # noqa: E731
    served: list[SearchCheck] = []
    strict_judge = judge.stricter() if judge else None
    if "reservoir" not in settings.without:
        held = reservoir(settings)
        trigger = Trigger(
            index, held, embedding(settings), judge=judge, strict_judge=strict_judge, top_k=wanted
        )
        search = trigger.search
        processors.append(ReservoirWriter(held))
        served.append(trigger.can_serve)
    if strict_judge is not None:
        served.append(partial(finds_answer, index, strict_judge))

    def redacted(question: str, queries: "Sequence[str]") -> "Rankings":
        """Nothing forgotten leaves the search, for a chained one to build on."""
        return [keeping.redacted(ranking) for ranking in search(question, queries)]

    return Assistant(
        model,
        calibration(settings, model),
        MultiQueryRetriever(redacted, wanted),
        ConditionalRewriter(rewrites, *served) if rewrites and judge else rewrites,
        processors,
        settings.top_k,
        keeping,
    )


def layers(
    facts: "Ledger", cache: Path | None = None, kept: "EncryptedVectorCache | None" = None
) -> FactSuppressor:
    """What keeps the facts of a ledger back, in the logs too.

    Its thresholds were fitted on the packaged embedding model, which is the one that it uses.

    Args:
        facts: The ledger.
        cache: Directory for vectors that any ledger needs.
        kept: Where the vectors of this one's facts are kept.
    """
    from control.forgetting.logs import redact_logs
    from control.forgetting.redaction import Redactor
    from control.forgetting.router import Router

    embed_model = packaged_embedding()
    redactor = Redactor(facts, embed_model, kept)
    redact_logs(redactor)
    return FactSuppressor(facts, Router(facts, embed_model, cache=cache, shelf=kept), redactor)


def rewriter(settings: Settings, model: LanguageModel) -> "QueryRewriter":
    """Query Rewriter+: with its adapter on the packaged model, by prompt alone on others."""
    from control.engines.adapters import read
    from control.module_models import ModuleLLM
    from retrieval.rewriter import END, QueryRewriter

    directory = settings.rewriter or (ADAPTERS / "rewriter" if settings.model is None else None)
    adapter = read(model, directory) if directory else None
    return QueryRewriter(ModuleLLM(model, adapter, stop=END), trained=adapter is not None)


def knowledge_filter(settings: Settings, model: LanguageModel) -> "KnowledgeFilter":
    """The Knowledge Filter, judging in the way that the settings say.

    The cross-encoder is an adapter of the packaged embedding model and weighs that model's cosines.
    """
    from retrieval import filter as filters

    if settings.judge == "model":
        threshold = filters.JudgeCalibration.load(ADAPTERS / "filter").threshold
        return filters.KnowledgeFilter(_model_judge(model), threshold)
    cross_encoder = filters.CrossEncoderJudge(ADAPTERS / "cross-encoder", packaged_embedding())
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


def shelf(settings: Settings) -> "EncryptedVectorCache":
    """Where the vectors of this home's forgotten facts are kept."""
    from control.forgetting.vector_cache import open_shelf

    key = settings.ledger_key
    return open_shelf(
        settings.home,
        None if key is None else key.get_secret_value(),
        packaged_embedding().model_name,
    )


def reservoir(settings: Settings) -> "Reservoir":
    """What earlier questions found."""
    from retrieval.reservoir import Reservoir

    return Reservoir(settings.home, embedding(settings))


def given_passages(
    paths: list[Path], on_skipped: "Callable[[SkippedPath], None]"
) -> "list[NodeWithScore]":
    """The passages of documents that the user hands over with the question, in reading order."""
    from llama_index.core.schema import NodeWithScore

    from retrieval.ingest.chunking import split
    from retrieval.ingest.documents import read

    return [
        NodeWithScore(node=node) for document in read(paths, on_skipped) for node in split(document)
    ]
