"""Builds the systems that `fulcrum eval` measures from settings."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from app import factory, home
from app.settings import Settings
from control.assistant import reading_limit
from control.decoding.generate import Decoding
from control.engines.base import Engine
from control.forgetting.ledger import Ledger
from control.forgetting.record import Record
from evaluation.datasets import real_documents
from evaluation.suites.replies import MAX_NEW_TOKENS, AssistantSystem
from evaluation.suites.retrieval import Modules, ReservoirModules
from evaluation.suites.router import Route, RouterFactory
from foundation import trace
from retrieval.filter import Judge
from retrieval.index import PassageIndex
from retrieval.reservoir import Reservoir
from retrieval.rewriter import ConditionalRewriter
from retrieval.search import CANDIDATES, MultiQueryRetriever, Rankings
from retrieval.trigger import Trigger, count_distinct, finds_answer
from training import verdicts
from training.verdicts import VerdictExample


def retrieval_modules(settings: Settings, index: PassageIndex, model: Engine) -> Modules:
    """The modules of the retrieval pipeline, to be measured one by one."""
    judge, rewrites = (factory.knowledge_filter(settings, model), factory.rewriter(settings, model))

    def search(_: str, queries: Sequence[str]) -> Rankings:
        found = index.retrieve_batch(queries, CANDIDATES)
        trace.count("passages_external", count_distinct(found))
        return found

    def with_reservoir(folder: Path, tau: float) -> ReservoirModules:
        embed_model = factory.embedding(settings)
        trigger = Trigger(index, Reservoir(folder), embed_model, tau=tau, top_k=CANDIDATES)
        look = partial(finds_answer, trigger.search, judge.stricter())
        conditional = ConditionalRewriter(rewrites, look)
        return (
            lambda question, history: conditional.run(question, {"history": history}),
            MultiQueryRetriever(trigger.search, CANDIDATES).retrieve,
        )

    return Modules(
        lambda question, history: rewrites.run(question, {"history": history}),
        MultiQueryRetriever(search, CANDIDATES).retrieve,
        lambda found, asked: judge.postprocess_nodes(list(found), asked),
        with_reservoir,
        settings.top_k or reading_limit(model),
    )


def filter_judges(settings: Settings, model: Engine) -> dict[str, tuple[Judge, float]]:
    """Both judges of the Knowledge Filter, each with its threshold."""
    filters = {
        name: factory.knowledge_filter(settings.model_copy(update={"judge": name}), model)
        for name in ("cross-encoder", "model")
    }
    return {name: (chosen.judge, chosen.threshold) for name, chosen in filters.items()}


def filter_examples(
    index: PassageIndex, corpus: Path
) -> tuple[list[VerdictExample], list[VerdictExample]]:
    """Examples for the filter from real documents: to learn from, and to calibrate it on."""
    passages = index.all_nodes()
    by_id = {node.node_id: node for node in passages}
    examples = []
    for split, build in (
        (real_documents.TRAINING, verdicts.build_contrasts),
        (real_documents.CALIBRATION, verdicts.build_found_examples),
    ):
        items = [
            item
            for item in real_documents.questions(split, corpus, passages)
            if item.kind != real_documents.UNANSWERED
        ]
        found = index.retrieve_batch([item.question for item in items], CANDIDATES)
        examples.append(
            [
                example
                for item, ranking in zip(items, found, strict=True)
                for example in build(
                    item.question,
                    [by_id[name] for name in item.serving()],
                    [each.node for each in ranking],
                )
            ]
        )
    return examples[0], examples[1]


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
