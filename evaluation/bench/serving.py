"""What a server gives many clients: tokens a second, and how long each of them waits."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.table import Table

from evaluation import report
from evaluation.bench.index import percentiles
from foundation.errors import ModelError

PATIENCE = 300.0  # seconds for an answer
TOKENS = 64  # of an answer at most
DONE = "data: [DONE]"
COLUMNS = (
    *("clients", "answers", "tokens/s", "ratio", "first token, p50 / p95", "answer, p50 / p95"),
    "errors",
)


@dataclass
class StreamTiming:
    """What clients heard.

    Attributes:
        first: Seconds from each question to the first text of its answer.
        whole: Seconds to its end.
        tokens: Tokens said in all.
        errors: How often there was no answer, by what there was instead.
        lock: Held by the client that writes.
    """

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def run(
    url: str,
    questions: Sequence[str],
    clients: Sequence[int],
    seconds: float,
    key: str = "none",
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Let so many clients ask for so long, one number of them after the other.

    Args:
        url: Of the server.
        questions: Asked in turn.
        clients: Numbers of clients, each of which asks one question after the other.
        seconds: For each number; questions under way then are waited for.
        key: The reading key.
        progress: Told each answer.

    Raises:
        ModelError: There was no answer at all.

    Returns:
        A row for each number of clients; ``ratio`` is its tokens a second against the first row's.
    """
    rows: list[dict[str, Any]] = []
    turn = itertools.cycle(questions)  # so that what was asked by few is not soon asked by many
    with httpx.Client(
        base_url=url,
        timeout=PATIENCE,
        headers={"Authorization": f"Bearer {key}"},
        limits=httpx.Limits(max_connections=None),
    ) as client:
        _ask(client, questions[0], StreamTiming())  # what only the first question of a server takes
        for number in clients:
            heard, elapsed = _ask_concurrently(client, turn, number, seconds, progress)
            rows.append(_row(number, heard, elapsed))
            rows[-1]["ratio"] = rows[-1]["tokens_per_second"] / rows[0]["tokens_per_second"]
    return {"seconds": seconds, "questions": len(questions), "rows": rows}


def table(result: dict[str, Any]) -> Table:
    """The result as a table for a terminal."""
    return report.table(
        f"{result['seconds']:g} seconds each",
        COLUMNS,
        (
            (
                str(row["clients"]),
                str(row["answers"]),
                f"{row['tokens_per_second']:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['first_ms_p50']:,.0f} / {row['first_ms_p95']:,.0f} ms",
                f"{row['answer_ms_p50']:,.0f} / {row['answer_ms_p95']:,.0f} ms",
                ", ".join(f"{count} {name}" for name, count in row["errors"].items()) or "0",
            )
            for row in result["rows"]
        ),
        left=(),
    )


def _ask_concurrently(
    client: httpx.Client,
    questions: Iterator[str],
    number: int,
    seconds: float,
    progress: Callable[[], object],
) -> tuple[StreamTiming, float]:
    started, heard, taking = time.perf_counter(), StreamTiming(), threading.Lock()

    def ask() -> None:
        while time.perf_counter() - started < seconds:
            with taking:
                question = next(questions)
            _ask(client, question, heard)
            progress()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard, time.perf_counter() - started


def _ask(client: httpx.Client, question: str, heard: StreamTiming) -> None:
    """Ask one question and listen to its end."""
    body = {
        "model": "fulcrum",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, first, last = time.perf_counter(), 0.0, ""
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            for line in filter(None, answer.iter_lines()):
                if line == DONE:
                    break
                last = line
                if not first and _says(line):
                    first = time.perf_counter() - started
        tokens = _event(last)["usage"]["completion_tokens"]
    except (httpx.HTTPError, KeyError, ValueError) as error:
        with heard.lock:
            heard.errors[type(error).__name__] += 1
        return
    whole = time.perf_counter() - started
    with heard.lock:
        heard.tokens += tokens
        heard.whole.append(whole)
        heard.first.append(first or whole)


def _says(line: str) -> bool:
    return any(choice["delta"].get("content") for choice in _event(line)["choices"])


def _event(line: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return event


def _row(number: int, heard: StreamTiming, elapsed: float) -> dict[str, Any]:
    if not heard.whole:
        raise ModelError(f"the server gave no answer to {number} clients: {dict(heard.errors)}")
    return {
        "clients": number,
        "answers": len(heard.whole),
        "tokens_per_second": heard.tokens / elapsed,
        **percentiles("first_ms", heard.first, warm_up=0),
        **percentiles("answer_ms", heard.whole, warm_up=0),
        "errors": dict(heard.errors),
    }
