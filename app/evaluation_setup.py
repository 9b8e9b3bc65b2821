"""Builds the systems that `fulcrum eval` measures from settings."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app import factory, home
from app.settings import Settings
from control.assistant import FEWEST_READ
from control.decoding.generate import Decoding
from control.engines.base import Engine
from control.forgetting.ledger import Ledger
from control.forgetting.record import Record
from evaluation.suites.replies import MAX_NEW_TOKENS, AssistantSystem
from evaluation.suites.retrieval import Modules, ReservoirModules
from evaluation.suites.router import Route, RouterFactory
from foundation import trace
from retrieval.filter import Judge
from retrieval.index import PassageIndex
from retrieval.reservoir import Reservoir
from retrieval.rewriter import ConditionalRewriter
from retrieval.search import CANDIDATES, MultiQueryRetriever, Rankings
from retrieval.trigger import ReservoirWriter, Trigger, count_distinct, finds_answer


def retrieval_modules(settings: Settings, index: PassageIndex, model: Engine) -> Modules:
    """The modules of the retrieval pipeline, to be measured one by one."""
    judge, rewrites = (factory.knowledge_filter(settings, model), factory.rewriter(settings, model))
    stricter = judge.stricter()

    def search(_: str, queries: Sequence[str]) -> Rankings:
        found = index.retrieve_batch(queries, CANDIDATES)
        trace.count("passages_external", count_distinct(found))
        return found

    def with_reservoir(
        folder: Path, tau: float | None, theta: int | None, looks: bool
    ) -> ReservoirModules:
        reservoir = Reservoir(folder, factory.embedding(settings))
        given = {"tau": tau, "theta": theta}
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        trigger = Trigger(
            index,
            reservoir,
            factory.embedding(settings),
            judge=judge,
            strict_judge=stricter,
            top_k=CANDIDATES,
            **chosen,
        )
        look = [partial(finds_answer, index, stricter)] if looks else []
        conditional = ConditionalRewriter(rewrites, trigger.can_serve, *look)
        remember = ReservoirWriter(reservoir)
        return (
            lambda question, history: conditional.run(question, {"history": history}),
            MultiQueryRetriever(trigger.search, CANDIDATES).retrieve,
            lambda found, asked: remember.postprocess_nodes(
                judge.postprocess_nodes(list(found), asked), asked
            ),
        )

    return Modules(
        lambda question, history: rewrites.run(question, {"history": history}),
        MultiQueryRetriever(search, CANDIDATES).retrieve,
        lambda found, asked: judge.postprocess_nodes(list(found), asked),
        with_reservoir,
        settings.top_k or FEWEST_READ,
    )


def filter_judges(settings: Settings, model: Engine) -> dict[str, tuple[Judge, float]]:
    """Both judges of the Knowledge Filter, each with its threshold."""
    filters = {
        name: factory.knowledge_filter(settings.model_copy(update={"judge": name}), model)
        for name in ("cross-encoder", "model")
    }
    return {name: (chosen.judge, chosen.threshold) for name, chosen in filters.items()}


def router_factory(settings: Settings) -> RouterFactory:
    """Builds routers over given records, which replace those in the home's ledger."""

    def route_over(records: Sequence[Record]) -> Route:
        ledger = home.ledger(settings)
        for old in ledger.records():
            ledger.remove(old.id)
        ledger.add(records)
        suppressor = factory.fact_suppressor(ledger, settings.cache, factory.vector_cache(settings))
        suppressor.wait()
        assert suppressor.router is not None  # noqa: S101 - built above
        return suppressor.router.route

    return route_over


def guarded_assistant(
    settings: Settings, documents: Sequence[Path], rule: str
) -> tuple[AssistantSystem, Ledger]:
    """The assistant over these documents, and its ledger of forgotten facts."""
    # First, so that a wrong rule fails before any loading.
    how = Decoding(rule=rule, max_new_tokens=MAX_NEW_TOKENS)
    if documents:
        factory.passage_index(settings).ingest(list(documents))
    assistant = factory.assistant(settings)
    return AssistantSystem(assistant, how), assistant.forgetting.ledger or home.ledger(settings)
