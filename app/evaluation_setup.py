"""Builds the systems that `fulcrum eval` measures from settings."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from llama_index.core.schema import MetadataMode
from tqdm import tqdm

from app import factory, home
from app.settings import Settings
from control import prompts
from control.answer import Answer
from control.assistant import Assistant, reading_limit
from control.conflict.passage_claims import UNTITLED
from control.corrections import Correction, Corrections
from control.decoding.generate import Decoding
from control.engines.base import Engine
from control.engines.transformers import LanguageModel
from control.forgetting.ledger import Ledger
from control.forgetting.record import Record
from control.state import Query
from evaluation.datasets import questions, real_documents, sources
from evaluation.judges import leak
from evaluation.judges.described import JudgeWithModel
from evaluation.runner import digest
from evaluation.suites import tofu
from evaluation.suites.replies import MAX_NEW_TOKENS, AssistantSystem
from evaluation.suites.retrieval import Modules, ReservoirModules
from evaluation.suites.router import Route, RouterFactory
from evaluation.suites.sources.system import MAX_NEW_TOKENS as MAX_SOURCE_TOKENS
from evaluation.suites.sources.system import SourceSystem
from foundation import trace
from retrieval.filter import Judge, Logits
from retrieval.index import PassageIndex
from retrieval.reservoir import Reservoir
from retrieval.rewriter import ConditionalRewriter
from retrieval.search import CANDIDATES, MultiQueryRetriever, Rankings
from retrieval.trigger import Trigger, count_distinct, finds_answer
from training.reading import SearchedQuestion
from training.retrieval_modules import FoundPassages

MOST_FOUND = 7  # passages found that a training question is asked of
BUILT_IN = "built-in"  # of the sources of questions


def leak_judge(settings: Settings | None) -> leak.Judge:
    """The judge of leaks; with settings, their language model is its second stage."""
    if settings is None:
        return leak.leaked
    return JudgeWithModel(factory.language_model(settings))


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
        look = partial(finds_answer, trigger.search, factory.strict_filter(settings, model))
        conditional = ConditionalRewriter(rewrites, look)
        return (
            lambda question, history: conditional.run(question, {"history": history}),
            MultiQueryRetriever(trigger.search, CANDIDATES).retrieve,
        )

    @cache
    def assistant() -> Assistant:
        return factory.assistant(settings, model, index=index)

    def ask(queries: Sequence[Query], how: Decoding) -> list[Answer]:
        return assistant().ask_batch(queries, how)

    return Modules(
        lambda question, history: rewrites.run(question, {"history": history}),
        MultiQueryRetriever(search, CANDIDATES).retrieve,
        lambda found, asked: judge.postprocess_nodes(list(found), asked),
        with_reservoir,
        settings.top_k or reading_limit(model),
        ask,
    )


def filter_judges(settings: Settings, model: Engine) -> dict[str, tuple[Judge, float]]:
    """The judges of the Knowledge Filter, each with its threshold."""
    names = ["reader", "cosine", "cross-encoder"]
    if isinstance(model, LanguageModel):
        names.append("model")
    filters = {
        name: factory.knowledge_filter(settings.model_copy(update={"judge": name}), model)
        for name in names
    }
    return {name: (chosen.judge, chosen.threshold) for name, chosen in filters.items()}


def found_passages(
    settings: Settings, corpus: Path, target: Path, logits: Logits | None = None
) -> dict[str, FoundPassages]:
    """What searches find for the calibration questions, built-in and about real documents.

    Args:
        settings: The embedding model is taken from them.
        corpus: Of the real documents; built there if it is missing.
        target: Directory for the two indexes.
        logits: Of a model that has read question and passage; ``None`` if it is to do without.
    """
    split = real_documents.CALIBRATION
    real_documents.build(corpus)
    found = {}
    for source, documents in (
        (BUILT_IN, [questions.PASSAGES]),
        ("real documents", real_documents.folders(corpus, split)),
    ):
        index = _own_index(settings, target / source.replace(" ", "-"), documents)
        if source == BUILT_IN:
            items = questions.built_in(split)
        else:
            items = real_documents.questions(split, corpus, index.all_nodes())
        alone = [item for item in items if item.answers and not item.history]
        found[source] = _found(index, alone, logits)
    return found


def searched_questions(settings: Settings, corpus: Path, target: Path) -> list[SearchedQuestion]:
    """The training questions over real documents, with what a search finds for them.

    Args:
        settings: The embedding model is taken from them.
        corpus: Of the real documents; built there if it is missing.
        target: Directory for the index.
    """
    split = real_documents.TRAINING
    real_documents.build(corpus)
    index = _own_index(settings, target / "home", real_documents.folders(corpus, split))
    passages = index.all_nodes()
    items = real_documents.questions(split, corpus, passages)
    evidence = real_documents.evidence(split)
    by_id = {node.node_id: node for node in passages}
    rankings = index.retrieve_batch([item.question for item in items], MOST_FOUND)
    searched = []
    for item, ranking in zip(items, rankings, strict=True):
        # What leaves a question open says nothing of what else was found.
        found = [each.node_id for each in ranking] if item.answers else []
        nodes = [by_id[name] for name in dict.fromkeys([*found, *item.serving()])]
        texts = [(prompts.origin(node.metadata) or UNTITLED, node.get_content()) for node in nodes]
        searched.append(
            SearchedQuestion(item.question, item.answers, evidence[item.id], tuple(texts))
        )
    return searched


def ingest(index: PassageIndex, documents: Sequence[Path], title: str = "ingesting") -> None:
    """Add documents to an index, with a bar that shows how far it is."""
    with tqdm(desc=title, unit=" passages", delay=2) as bar:
        index.ingest(documents, bar.update)


def _own_index(settings: Settings, home: Path, documents: Sequence[Path]) -> PassageIndex:
    """An index of these documents alone, never the user's."""
    index = factory.passage_index(settings.model_copy(update={"home": home, "index": None}))
    ingest(index, documents, f"ingesting: {home.name}")
    return index


def _found(
    index: PassageIndex, items: Sequence[questions.RetrievalQuestion], logits: Logits | None
) -> FoundPassages:
    rankings = index.retrieve_batch([item.question for item in items], CANDIDATES)
    rows = [
        (each.score, rank, each.node_id.split(":")[0] in serving or each.node_id in serving)
        for item, ranking in zip(items, rankings, strict=True)
        for serving in (set(item.serving()),)
        for rank, each in enumerate(ranking, start=1)
    ]
    read = [
        logits(item.question, [each.node.get_content(MetadataMode.EMBED) for each in ranking])
        for item, ranking in tqdm(
            list(zip(items, rankings, strict=True)), desc="reading", unit="question", delay=2
        )
        if logits is not None
    ]
    scores, ranks, answers = map(np.array, zip(*rows, strict=True))
    return FoundPassages(scores, ranks, answers, np.concatenate(read) if read else None)


def router_factory(settings: Settings) -> RouterFactory:
    """Builds routers over given records, which replace those in the home's ledger."""

    def route_over(records: Sequence[Record]) -> Route:
        ledger = home.ledger(settings)
        for old in ledger.records():
            ledger.remove(old.id)
        ledger.add(records)
        suppressor = factory.fact_suppressor(ledger, factory.vector_cache(settings))
        suppressor.wait()
        assert suppressor.router is not None  # noqa: S101 - built above
        return suppressor.router.route

    return route_over


def guarded_assistant(
    settings: Settings, documents: Sequence[Path], rule: str, longest: int = MAX_NEW_TOKENS
) -> tuple[AssistantSystem, Ledger]:
    """The assistant over these documents, and its ledger of forgotten facts."""
    # First, so that a wrong rule fails before any loading.
    how = Decoding(rule=rule, max_new_tokens=longest)
    if documents:
        factory.passage_index(settings).ingest(list(documents))
    assistant = factory.assistant(settings)
    return AssistantSystem(assistant, how), assistant.forgetting.ledger or home.ledger(settings)


def tofu_systems(
    settings: Settings, everything: Path, retained: Path, rule: str
) -> tuple[AssistantSystem, AssistantSystem, Ledger]:
    """The assistant over all documents, over those retained, and the ledger of the first.

    Neither has a reservoir, so that each arm reads what is found in it.
    """
    settings = settings.model_copy(update={"without": settings.without | {"reservoir"}})
    system, ledger = guarded_assistant(settings, [everything], rule, tofu.LONGEST)
    own = _own_index(settings, settings.home / retained.stem, [retained])
    assistant = factory.assistant(settings, system.assistant.model, index=own)
    return system, replace(system, assistant=assistant), ledger


def source_system(settings: Settings, corpus: bool) -> SourceSystem:
    """The assistant whose claims, verdicts and citations are measured.

    It remembers no earlier searches, so that no answer depends on which questions came before.

    Args:
        settings: The settings.
        corpus: Whether its index is to hold the documents of `evaluation.datasets.sources`.
    """
    settings = settings.model_copy(update={"without": settings.without | {"reservoir"}})
    index = factory.passage_index(settings)
    if corpus:
        ingest(index, [sources.CORPUS])
    assistant = factory.assistant(settings, index=index)
    how = Decoding(max_new_tokens=MAX_SOURCE_TOKENS)
    pin, corrections = None, assistant.corrections
    if corrections is not None:
        for left in corrections.all():  # by a run that was killed
            corrections.withdraw(left.id)
        pin = partial(_pinned, corrections)
    weights = [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("reader", "support")
        for path in sorted((factory.ADAPTERS / name).rglob("*"))
        if path.is_file() and assistant.reader is not None
    ]
    weights.append(settings.reader or "")
    system = SourceSystem(assistant, how, digest(weights), pin, factory.vectors)

    def over(documents: Path) -> SourceSystem:
        own = _own_index(settings, settings.home / documents.name, [documents])
        return replace(system, assistant=factory.assistant(settings, assistant.model, index=own))

    return replace(system, over=over)


@contextmanager
def _pinned(corrections: Corrections, statement: str) -> Iterator[None]:
    """Pin a correction while the context lasts."""
    pinned = corrections.add(Correction(statement))
    try:
        yield
    finally:
        corrections.withdraw(pinned.correction.id)
