"""What forgetting costs: milliseconds a question and a token, as the records grow."""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeWithScore, TextNode
from rich.table import Table

from control import prompts
from control.decoding import generate
from control.decoding.generate import Decoding
from control.engines.transformers import LanguageModel
from control.forgetting.guard import WatchedFacts
from control.forgetting.ledger import Ledger, open_ledger
from control.forgetting.questions import with_questions
from control.forgetting.record import Record
from control.forgetting.suppressor import FactSuppressor
from control.forgetting.vector_cache import EncryptedVectorCache, open_vector_cache
from evaluation import report
from evaluation.bench.index import percentiles, resident_bytes
from evaluation.datasets import questions as asked
from evaluation.datasets.conflicts import spread

SIZES = (1, 100, 10_000, 100_000)
QUESTIONS = 100  # of each kind
PASSAGES = 10  # redacted for a question
ADDS = 20
TOKENS, ROUNDS = 64, 7
RELATIONS = ("capital", "currency", "author", "place of birth", "employer", "occupation")
OTHER = "What does {} think of the {}?"  # about a forgotten subject, not what is forgotten
ONSETS, NUCLEI, CODAS = (
    ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"],
    ["a", "e", "i", "o", "u"],
    ["l", "n", "r", "s", "x"],
)

MakeSuppressor = Callable[[Ledger, EncryptedVectorCache], FactSuppressor]


def run(
    sizes: Sequence[int],
    make_suppressor: MakeSuppressor,
    embed_model: BaseEmbedding,
    language_model: LanguageModel,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Time what forgetting adds to a question and to a token, at each size of the ledger.

    Args:
        sizes: Numbers of records, ascending.
        make_suppressor: Builds the fact suppressor of a ledger; takes also a vector cache.
        embed_model: To be warmed up.
        language_model: Whose tokens the guard watches.
        progress: Told how many records were added.
    """
    embed_model.get_text_embedding_batch(["warm", "up"])
    rows = list[dict[str, Any]]()
    with TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder))
        invented, before = _records(), resident_bytes()
        held = list[Record]()
        vectors = open_vector_cache(Path(folder), None, embed_model.model_name)
        forgetting = make_suppressor(ledger, vectors)
        for size in sizes:
            started = time.perf_counter()
            held += ledger.add(list(itertools.islice(invented, size - len(held))))
            filled = time.perf_counter() - started
            progress(size)
            started = time.perf_counter()
            forgetting.route("Is anybody there?")
            taken_in = time.perf_counter() - started
            forgetting.wait()
            rows.append(
                {
                    "records": size,
                    "fill_seconds": filled,
                    "taken_in_seconds": taken_in,
                    **_time_questions(forgetting, held, len(rows), embed_model),
                    **percentiles("add_ms", _time_adds(ledger, forgetting, invented, held), 0),
                    "memory_mb": (resident_bytes() - before) / 1e6,
                    "token_ratio": _token_ratio(language_model, forgetting, held[0]),
                }
            )
    return {
        "questions": QUESTIONS,
        "passages": PASSAGES,
        "model": language_model.name,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """The rows, for a terminal."""
    columns = {
        "records": ("records", "{:,}"),
        "route_ms_p50": ("route p50", "{:.1f}"),
        "route_ms_p95": ("p95 ms", "{:.1f}"),
        "redact_ms_p95": ("redact p95", "{:.1f}"),
        "both_ms_p95": ("both p95", "{:.1f}"),
        "shared_ms_p95": ("shared p95", "{:.1f}"),
        "both_cpu_ms_p95": ("CPU p95", "{:.1f}"),
        "named_ms_p95": ("subject named p95", "{:.1f}"),
        "token_ratio": ("a token", "{:.3f}x"),
        "add_ms_p95": ("add p95", "{:.0f}"),
        "memory_mb": ("MB", "{:,.0f}"),
    }
    return report.table(
        f"forgetting, {result['questions']} questions one at a time",
        [heading for heading, _ in columns.values()],
        ([form.format(row[name]) for name, (_, form) in columns.items()] for row in result["rows"]),
        f"route: the question; redact: {result['passages']} passages; shared: both, where the "
        "question's vector is made already, as retrieval needs it too; named: both, where a "
        "forgotten subject is in play; add: until another question sees it",
        left=(),
    )


def _records() -> Iterator[Record]:
    """Made-up facts, each of a subject of its own."""
    names = ("".join(parts).capitalize() for parts in _syllables())
    answers = ("".join(parts).capitalize() for parts in _syllables())
    for number, (first, last) in enumerate(
        itertools.product(itertools.islice(names, 400), answers)
    ):
        relation = RELATIONS[number % len(RELATIONS)]
        answer = f"{last}ville {first}sen"
        subject = f"{first} {last}"
        yield with_questions(Record(subject, relation=relation, answers=(answer,)))


def _syllables() -> Iterator[tuple[str, ...]]:
    return itertools.product(ONSETS, NUCLEI, ONSETS, NUCLEI, CODAS)


def _time_questions(
    forgetting: FactSuppressor, held: Sequence[Record], turn: int, embed_model: BaseEmbedding
) -> dict[str, float]:
    """Times of questions that were not asked at another size: what is asked again is cached."""
    fresh = spread(asked.built_in("calibration"), 2 * QUESTIONS * len(SIZES))[turn :: len(SIZES)]
    items, others = fresh[::2], fresh[1::2]
    lines = asked.PASSAGES.read_text(encoding="utf-8").splitlines()[: len(items) + PASSAGES]
    texts, titles = zip(
        *((row["text"], row["title"]) for row in map(json.loads, lines)), strict=True
    )
    subjects = [record.subject for record in spread(list(held), len(items))]
    route, redact, named, cpu = list[float](), list[float](), list[float](), list[float]()
    for number, item in enumerate(items):
        passages = texts[number : number + PASSAGES]
        busy = time.process_time()
        timed = _time_question(forgetting, item.question, item.history, passages)
        cpu.append(time.process_time() - busy)
        route.append(timed[0])
        redact.append(timed[1])
        subject = subjects[number % len(subjects)]
        about = [f"{subject} was seen in town {number}. {text}" for text in passages]
        named.append(
            sum(_time_question(forgetting, OTHER.format(subject, titles[number]), (), about))
        )
    shared = list[float]()
    for number, item in enumerate(others):
        embed_model.get_query_embedding(item.question)
        passages = texts[number : number + PASSAGES]
        shared.append(sum(_time_question(forgetting, item.question, item.history, passages)))
    both = [sum(pair) for pair in zip(route, redact, strict=True)]
    return {
        **percentiles("route_ms", route),
        **percentiles("redact_ms", redact),
        **percentiles("both_ms", both),
        **percentiles("shared_ms", shared),
        **percentiles("both_cpu_ms", cpu),
        **percentiles("named_ms", named),
    }


def _time_question(
    forgetting: FactSuppressor,
    question: str,
    history: Sequence[tuple[str, str]],
    passages: Sequence[str],
) -> tuple[float, float]:
    """Seconds of routing and of redacting passages, none of them seen before.

    As in the assistant, which routes a question twice: as it was asked, and once it is clear what
    is asked; and which looks for the subjects that the passages name.
    """
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in passages]
    started = time.perf_counter()
    facts = forgetting.route(question, history)
    routed = time.perf_counter() - started
    nodes = forgetting.redact_passages(nodes)
    redacted = time.perf_counter() - started - routed
    started = time.perf_counter()
    forgetting.activate_from_passages(forgetting.route(question, before=facts), nodes)
    return routed + time.perf_counter() - started, redacted


def _time_adds(
    ledger: Ledger, forgetting: FactSuppressor, invented: Iterator[Record], held: list[Record]
) -> list[float]:
    """Seconds from the request to a question that takes it into account."""
    seconds = []
    for record in itertools.islice(invented, ADDS):
        started = time.perf_counter()
        held += ledger.add([record])
        refused = forgetting.route(record.questions[0]).refused
        seconds.append(time.perf_counter() - started)
        if refused is None:
            raise RuntimeError(f"{record.subject} was added and is not refused")
    return seconds


def _token_ratio(
    language_model: LanguageModel, forgetting: FactSuppressor, record: Record
) -> float:
    """Time of a token with a watched record, over that without."""
    question = "Tell me about the mountains of the world."
    prompt = prompts.build(language_model, question, (), language_model.room(TOKENS))
    how = Decoding(rule="plain", max_new_tokens=TOKENS)
    watch = replace(forgetting.watch(forgetting.route(question)), records=(record,))

    def seconds(watches: Sequence[WatchedFacts] | None) -> float:
        started = time.perf_counter()
        [trace] = generate.generate(language_model, [prompt], how, watches=watches)
        return (time.perf_counter() - started) / len(trace.ids)

    seconds(None)
    return statistics.median(seconds([watch]) / seconds(None) for _ in range(ROUNDS))
