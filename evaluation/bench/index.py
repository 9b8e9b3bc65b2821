"""Build time, memory, recall and speed of a passage index as it grows."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from numpy.typing import NDArray
from rich.table import Table

from data import DIRECTORY as DATA
from evaluation import report
from foundation.errors import InputError
from retrieval.embedding import embed_texts
from retrieval.ingest.chunking import passage
from retrieval.stores.base import PassageStore

logger = logging.getLogger(__name__)

EMBEDDING_NAME = "bench"
QUERIES = 200
DELETIONS = 20
TOP_K = 10
WARM_UP = 10  # queries that are not timed
BATCH = 10_000  # passages for one call of the store's `add`
BASE_PASSAGES = 2000  # of the packaged ones, evenly drawn; embedding them takes 20 s
MIXED_SHARE = 0.5  # of the difference of two other passages
NOISE = 0.2  # its expected length, beside vectors of length 1
VOCABULARY = 100_000
TEXT_WORDS = 60
QUERY_WORDS = 6
PASSAGES = DATA / "passages.jsonl"

Vectors = NDArray[np.float32]
Draw = Callable[[np.random.Generator, int], Vectors]
Opener = Callable[[Path], PassageStore]
Progress = Callable[[int], object]


def passage_like(embed_model: BaseEmbedding) -> Draw:
    """Return how to draw vectors that resemble those of passages.

    Each is the vector of a packaged passage, plus half the difference of two others, plus white
    noise of expected length 0.2, brought to length 1. The differences have the covariance of real
    passages, and the first part keeps their clusters: the nearest of 10^6 lies at a cosine of about
    0.8, as between passages on one matter.
    """
    lines = PASSAGES.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines[:: max(1, len(lines) // BASE_PASSAGES)]]
    texts = [f"{record['title']}\n\n{record['text']}" for record in records]
    base = np.asarray(embed_texts(embed_model, texts, lambda _: None), np.float32)

    def draw(generator: np.random.Generator, count: int) -> Vectors:
        own, one, other = generator.integers(0, len(base), (3, count))
        noise = generator.standard_normal((count, base.shape[1]), np.float32)
        noise *= np.float32(NOISE / base.shape[1] ** 0.5)
        return _unit(base[own] + MIXED_SHARE * (base[one] - base[other]) + noise)

    return draw


def uniform(dimension: int) -> Draw:
    """Return how to draw vectors uniformly from the sphere, the worst case of any index."""
    return lambda generator, count: _unit(generator.standard_normal((count, dimension), np.float32))


def run(
    sizes: Sequence[int],
    draws: dict[str, Draw],
    opener: Opener,
    *,
    kind: str,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Fill a store to each size in turn and measure it there.

    The store grows, so that what it took to reach a size counts from empty. Texts are words drawn
    by Zipf's law from a vocabulary of 100,000. Queries are drawn apart, in the same ways.

    Args:
        sizes: Numbers of passages.
        draws: Ways to draw vectors by their names. The first is measured at all sizes, the
            others at the largest alone.
        opener: Opens an empty store; it may use the directory it is given.
        kind: What to call the store in the report. Of one that leaves its directory empty, being
            the client of a server, memory and disk are unknown.
        progress: Called with the number of passages just stored.
    """
    rows = []
    for place, (name, draw) in enumerate(draws.items()):
        with TemporaryDirectory(prefix="fulcrum-bench-") as folder:
            store = opener(Path(folder))
            if not store.is_empty():
                raise InputError("the index to be measured holds passages; give an empty database")
            steps = sorted(set(sizes)) if place == 0 else [max(sizes)]
            for row in _grow(store, Path(folder), draw, steps, progress):
                logger.info("%s: %s", name, row)
                rows.append({"vectors": name, **row})
    return {
        "store": kind,
        "top_k": TOP_K,
        "queries": QUERIES,
        "deletions": DELETIONS,
        "batch": BATCH,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """The rows, for a terminal."""
    columns = {  # of the report: their heading and form
        "vectors": ("vectors", "{}"),
        "passages": ("passages", "{:,}"),
        "build_seconds": ("build s", "{:.0f}"),
        "memory_mb": ("MB", "{:,.0f}"),
        "disk_mb": ("disk MB", "{:,.0f}"),
        "recall_at_10": ("recall", "{:.3f}"),
        "query_ms_p50": ("p50 ms", "{:.1f}"),
        "query_ms_p95": ("p95 ms", "{:.1f}"),
        "query_cpu_ms_p95": ("CPU ms", "{:.1f}"),
        "words_ms_p95": ("words ms", "{:.1f}"),
        "gone_ms_p95": ("gone ms", "{:.1f}"),
    }
    return report.table(
        f"{result['store']}, {result['queries']} queries one at a time",
        [heading for heading, _ in columns.values()],
        (
            [
                "" if row[name] is None else form.format(row[name])
                for name, (_, form) in columns.items()
            ]
            for row in result["rows"]
        ),
        "recall@10 against exact search; p95 of CPU time, of search by words, and from a removal "
        "to the next answer without it",
    )


def _grow(
    store: PassageStore, folder: Path, draw: Draw, sizes: Sequence[int], progress: Progress
) -> Iterator[dict[str, Any]]:
    before = resident_bytes()
    fill, query = np.random.default_rng(1), np.random.default_rng(2)
    words = np.array([f"w{number}" for number in range(VOCABULARY)])
    questions = draw(query, QUERIES + WARM_UP)
    exact = _Exact(questions)
    seconds, count = 0.0, 0
    for size in sizes:
        while count < size:
            vectors = draw(fill, min(BATCH, size - count))
            nodes = _nodes(count, vectors, _texts(fill, words, len(vectors), TEXT_WORDS))
            exact.add(vectors, count)
            started = time.perf_counter()
            store.add(nodes)
            seconds += time.perf_counter() - started
            count += len(vectors)
            progress(len(vectors))
        started = time.perf_counter()
        store.finish()
        seconds += time.perf_counter() - started
        yield {
            "passages": size,
            "build_seconds": seconds,
            **_measure_queries(store, questions, exact),
            **_measure_word_search(
                store, questions, _texts(query, words, len(questions), QUERY_WORDS)
            ),
            **_measure_space(folder, before),
            **_measure_removal(store, nodes),
        }


def _measure_space(folder: Path, before: int) -> dict[str, float | None]:
    """Memory since a moment and disk; None for a server's, whose room its client cannot see."""
    files = [file.stat().st_size for file in folder.rglob("*")]
    return {
        "memory_mb": (resident_bytes() - before) / 1e6 if files else None,
        "disk_mb": sum(files) / 1e6 if files else None,
    }


def _measure_queries(store: PassageStore, questions: Vectors, exact: "_Exact") -> dict[str, float]:
    seconds, busy, hits = [], [], 0
    for question, right in zip(questions, exact.ids, strict=True):
        started, started_busy = time.perf_counter(), time.thread_time()
        [result] = store.search_vectors([question.tolist()], TOP_K)
        seconds.append(time.perf_counter() - started)
        busy.append(time.thread_time() - started_busy)
        hits += len(set(result.ids or ()) & right)
    found = sum(len(right) for right in exact.ids)
    return {
        "recall_at_10": hits / found,
        **percentiles("query_ms", seconds),
        # What other programs on the machine do not change; of this process alone.
        **percentiles("query_cpu_ms", busy),
        "load_average": os.getloadavg()[0],
    }


def _measure_word_search(
    store: PassageStore, questions: Vectors, texts: Sequence[str]
) -> dict[str, float]:
    seconds = []
    for question, text in zip(questions, texts, strict=True):
        started = time.perf_counter()
        store.search_words([text], [question.tolist()], TOP_K)
        seconds.append(time.perf_counter() - started)
    return percentiles("words_ms", seconds)


def _measure_removal(store: PassageStore, nodes: Sequence[TextNode]) -> dict[str, Any]:
    """Time from the removal of a passage to the answer of the next query, which must lack it.

    The passages are put back after.
    """
    seconds, still_found = [], 0
    taken = nodes[:: max(1, len(nodes) // DELETIONS)][:DELETIONS]
    for node in taken:
        started = time.perf_counter()
        store.remove_document(node.ref_doc_id or node.node_id)
        [result] = store.search_vectors([node.get_embedding()], TOP_K)
        seconds.append(time.perf_counter() - started)
        still_found += node.node_id in (result.ids or ())
    store.add(taken)
    return {**percentiles("gone_ms", seconds, warm_up=0), "found_after_deletion": still_found}


def _nodes(start: int, vectors: Vectors, texts: Sequence[str]) -> list[TextNode]:
    nodes = []
    for number, (vector, text) in enumerate(zip(vectors.tolist(), texts, strict=True), start):
        name = f"p{number}"
        node = passage(name, name, text, {"title": f"Entry {number}", "content_hash": name})
        node.embedding = vector
        nodes.append(node)
    return nodes


def _texts(
    generator: np.random.Generator, words: NDArray[np.str_], count: int, length: int
) -> list[str]:
    # The inverse of Zipf's cumulative distribution, taken as continuous.
    places = VOCABULARY ** generator.random((count, length))
    return [" ".join(row) for row in words[places.astype(np.int64) - 1]]


class _Exact:
    """The true nearest of each query among the vectors seen so far."""

    def __init__(self, queries: Vectors) -> None:
        self._queries = queries
        self._cosines = np.full((len(queries), TOP_K), -np.inf, np.float32)
        self._numbers = np.full((len(queries), TOP_K), -1, np.int64)

    def add(self, vectors: Vectors, start: int) -> None:
        cosines = np.hstack([self._cosines, self._queries @ vectors.T])
        new = np.arange(start, start + len(vectors))
        numbers = np.hstack([self._numbers, np.broadcast_to(new, (len(cosines), len(new)))])
        best = np.argpartition(-cosines, TOP_K - 1, axis=1)[:, :TOP_K]
        self._cosines = np.take_along_axis(cosines, best, axis=1)
        self._numbers = np.take_along_axis(numbers, best, axis=1)

    @property
    def ids(self) -> list[set[str]]:
        return [{f"p{number}" for number in row if number >= 0} for row in self._numbers.tolist()]


def percentiles(name: str, seconds: Sequence[float], warm_up: int = WARM_UP) -> dict[str, float]:
    """Milliseconds at the 50th and the 95th percentile; the first ``warm_up`` do not count."""
    timed = 1000 * np.asarray(seconds[warm_up:])
    return {f"{name}_p{share}": float(np.percentile(timed, share)) for share in (50, 95)}


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


def resident_bytes() -> int:
    """Resident size of this process in bytes: now on Linux, else the largest so far."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()
