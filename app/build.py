"""Settings in, objects out: the one place where the storeys are joined."""

from pathlib import Path
from typing import TYPE_CHECKING

from app.settings import Settings
from control import calibration as calibrations
from control.assistant import Assistant
from control.calibration import Calibration
from control.model import LanguageModel, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.schema import NodeWithScore

    from retrieval.documents import Skipped
    from retrieval.index import PassageIndex


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
    from retrieval.embedding import open_embedding
    from retrieval.index import open_index

    return open_index(settings.home, settings.index, open_embedding(), top_k=settings.top_k)


def assistant(settings: Settings) -> Assistant:
    """The whole pipeline."""
    index = passage_index(settings)  # first: what is wrong with it shows at once
    model = language_model(settings)
    return Assistant(model, calibration(settings, model), index)


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
