"""Settings in, objects out: the one place where the storeys are joined."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from app.settings import Settings
from control import calibration as calibrations
from control.assistant import Assistant
from control.calibration import Calibration
from control.model import LanguageModel, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.schema import NodeWithScore

    from retrieval.documents import Skipped
    from retrieval.embedding import SentenceEmbedding
    from retrieval.filter import Judge, KnowledgeFilter
    from retrieval.index import PassageIndex
    from retrieval.pipeline import Pipeline
    from retrieval.reservoir import Reservoir
    from retrieval.rewriter import QueryRewriter
    from retrieval.trigger import Remember

ADAPTERS = Path(__file__).parent.parent / "data" / "adapters"


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
    """The passage index of this home."""
    from retrieval.index import open_index

    return open_index(settings.home, settings.index, embedding(), top_k=settings.top_k)


@cache
def embedding() -> "SentenceEmbedding":
    """The embedding model, one for all that embed."""
    from retrieval.embedding import open_embedding

    return open_embedding()


def assistant(settings: Settings) -> Assistant:
    """The whole pipeline."""
    index = passage_index(settings)  # first: what is wrong with it shows at once
    model = language_model(settings)
    judge = None if "filter" in settings.without else knowledge_filter(settings, model)
    retriever, remember = _retriever(settings, index, judge)
    return Assistant(
        model,
        calibration(settings, model),
        retriever,
        None if "rewriter" in settings.without else rewriter(settings, model),
        [processor for processor in (judge, remember) if processor is not None],
        settings.top_k,
    )


def rewriter(settings: Settings, model: LanguageModel) -> "QueryRewriter":
    """Query Rewriter+: with its adapter on the packaged model, by prompt alone on others."""
    from control.adapters import read
    from control.modules import ModuleLLM
    from retrieval.rewriter import QueryRewriter
    from retrieval.rewriting import END

    directory = settings.rewriter or (ADAPTERS / "rewriter" if settings.model is None else None)
    adapter = read(model, directory) if directory else None
    return QueryRewriter(ModuleLLM(model, adapter, stop=END), trained=adapter is not None)


def knowledge_filter(settings: Settings, model: LanguageModel) -> "KnowledgeFilter":
    """The Knowledge Filter, judging in the way that the settings say."""
    from retrieval import filter as filters

    if settings.judge == "model":
        return filters.KnowledgeFilter(_model_judge(model), filters.MODEL_THRESHOLD)
    cross_encoder = filters.CrossEncoderJudge(ADAPTERS / "cross-encoder")
    return filters.KnowledgeFilter(cross_encoder, filters.CROSS_ENCODER_THRESHOLD)


def _model_judge(model: LanguageModel) -> "Judge":
    from control.adapters import read
    from control.modules import label_probabilities
    from retrieval.filter import LABELS, premise

    adapter = read(model, ADAPTERS / "filter")

    def judge(question: str, passages: "Sequence[str]") -> list[float]:
        prompts = [premise(question, passage) for passage in passages]
        return label_probabilities(model, prompts, LABELS, adapter)

    return judge


def _retriever(
    settings: Settings, index: "PassageIndex", judge: "KnowledgeFilter | None"
) -> "tuple[Pipeline, Remember | None]":
    """What finds passages for a question's searches, and what remembers those of use."""
    from retrieval.pipeline import CANDIDATES, Pipeline
    from retrieval.trigger import Remember, Trigger

    wanted = settings.top_k if judge is None else max(CANDIDATES, settings.top_k)
    if "reservoir" in settings.without:
        return Pipeline(lambda _, queries: index.retrieve_batch(queries, wanted), wanted), None
    held = reservoir(settings)
    trigger = Trigger(index, held, embedding(), judge=judge, top_k=wanted)
    return Pipeline(trigger.search, wanted), Remember(held)


def reservoir(settings: Settings) -> "Reservoir":
    """What earlier questions found."""
    from retrieval.reservoir import Reservoir

    return Reservoir(settings.home, embedding())


def given_passages(
    paths: list[Path], on_skipped: "Callable[[Skipped], None]"
) -> "list[NodeWithScore]":
    """The passages of documents that the user hands over with the question, in reading order."""
    from llama_index.core.schema import NodeWithScore

    from retrieval.documents import read
    from retrieval.passages import split

    return [
        NodeWithScore(node=node) for document in read(paths, on_skipped) for node in split(document)
    ]
