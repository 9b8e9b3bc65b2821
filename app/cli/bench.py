"""The commands that time: `fulcrum bench`."""

import random
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import factory
from app import settings as settings_module
from app.cli.console import TIMES, Range, batch_size, count, example, model_settings, out
from foundation.errors import InputError
from retrieval.stores.urls import check_url

if TYPE_CHECKING:
    from rich.table import Table


@click.group()
def bench() -> None:
    """Time the parts that have to be fast."""


@bench.command(epilog=example("fulcrum bench decoding --out results/decoding"))
@count("--tokens", default=64, help="Tokens to decode.")
@batch_size(1)
@count("--rounds", default=7, help="Repetitions, interleaved.")
@TIMES
@click.pass_obj
def decoding(
    given: dict[str, Any], tokens: int, batch_size: int, rounds: int, target: Path | None
) -> None:
    """Two branches in one batch against plain generation and against two separate forwards."""
    settings = model_settings(given, local=True)

    from evaluation.bench import decoding as benchmark

    result = benchmark.decoding(factory.local_model(settings), tokens, rounds, batch_size)
    _report(result, benchmark.decoding_table(result), target)


@bench.command(name="dial", epilog=example("fulcrum bench dial --out results/dial-speed"))
@count("--tokens", default=64, help="Longest answer.")
@count("--limit", default=12, help="Questions.")
@count("--rounds", default=3, help="Repetitions, interleaved.")
@TIMES
@click.pass_obj
def bench_dial(
    given: dict[str, Any], tokens: int, limit: int, rounds: int, target: Path | None
) -> None:
    """The dial's answers against plain generation, with and without a conflict."""
    settings = model_settings(given, local=True)

    from evaluation.bench import decoding as benchmark
    from evaluation.datasets import conflicts

    items = conflicts.conflicts(conflicts.BUILT_IN_CONFLICTS, "calibration")
    model = factory.local_model(settings)
    result = benchmark.dial(
        model, factory.calibration(settings, model), conflicts.spread(items, limit), tokens, rounds
    )
    _report(result, benchmark.dial_table(result), target)


@bench.command(
    name="engine",
    epilog=example(
        "fulcrum --model model.gguf bench engine --baseline --out results/engine",
        "fulcrum --model http://127.0.0.1:8000/v1 bench engine --clients 1,16,64",
    ),
)
@click.option("--clients", default="1,16", help="Questions at once, with commas between.")
@count("--limit", default=16, help="Items, each asked with its false and its true passage.")
@count("--tokens", default=64, help="Longest answer.")
@click.option("--baseline", is_flag=True, help="Measure the default model too, in turns with it.")
@TIMES
@click.pass_obj
def bench_engine(
    given: dict[str, Any],
    clients: str,
    limit: int,
    tokens: int,
    baseline: bool,
    target: Path | None,
) -> None:
    """How fast the model answers, plain and with the dial, alone and many at once."""
    at_once = sorted(_sizes(clients, "--clients"))
    settings = model_settings(given)

    from evaluation.bench import engine as benchmark
    from evaluation.datasets import conflicts

    items = conflicts.conflicts(conflicts.BUILT_IN_CONFLICTS, "calibration")
    items = [item for item in items if item.true_context]
    measured = []
    default = settings.model_copy(update={"model": None, "adapter": None, "calibration": None})
    for chosen in (settings, *([default] if baseline else [])):
        model = factory.language_model(chosen)
        calibration = factory.calibration(chosen, model)
        measured.append(benchmark.Measured(model.name, model, calibration))
    result = benchmark.run(measured, conflicts.spread(items, limit), at_once, tokens)
    _report(result, benchmark.engine_table(result), target)


@bench.command(
    name="index",
    epilog=example(
        "fulcrum bench index --out results/index", "fulcrum bench index --sizes 10000,100000"
    ),
)
@click.option(
    "--sizes",
    help="Numbers of passages, with commas between.  "
    "[default: 10000,100000,1000000; in PostgreSQL the first two]",
)
@click.option(
    "--index", "url", help="Measure this store, an empty PostgreSQL database.  [default: local]"
)
@TIMES
@click.pass_obj
def bench_index(
    given: dict[str, Any], sizes: str | None, url: str | None, target: Path | None
) -> None:
    """Build time, memory, recall and speed of the passage index as it grows."""
    url = url or settings_module.load(**given).index
    check_url(url)
    local = url in (None, "faiss")
    wanted = _sizes(sizes or ("10000,100000,1000000" if local else "10000,100000"))

    from tqdm import tqdm

    from evaluation.bench import index as benchmark
    from retrieval.embedding import open_embedding
    from retrieval.index import open_store

    draws = {"like passages": benchmark.passage_like(open_embedding())}
    if local:  # another database would have to be emptied for it
        draws["uniform"] = benchmark.uniform(384)
    with tqdm(desc="storing", unit=" passages", delay=2, disable=None) as bar:
        result = benchmark.run(
            wanted,
            draws,
            lambda folder: open_store(folder, url, benchmark.EMBEDDING_NAME),
            kind="local" if local else "PostgreSQL",
            progress=bar.update,
        )
    _report(result, benchmark.table(result), target)


@bench.command(name="forgetting", epilog=example("fulcrum bench forgetting --out results"))
@click.option(
    "--sizes",
    default="1,100,10000,100000",
    show_default=True,
    help="Numbers of records, with commas between.",
)
@TIMES
@click.pass_obj
def bench_forgetting(given: dict[str, Any], sizes: str, target: Path | None) -> None:
    """What forgetting adds to a question and to a token, as the records grow."""
    wanted = sorted(_sizes(sizes))
    settings = model_settings(given, local=True)

    from tqdm import tqdm

    from evaluation.bench import forgetting as benchmark

    model = factory.local_model(settings)
    with tqdm(desc="forgetting", total=wanted[-1], unit=" records", delay=2, disable=None) as bar:
        result = benchmark.run(
            wanted,
            factory.fact_suppressor,
            factory.packaged_embedding(),
            model,
            lambda size: bar.update(size - bar.n),
        )
    _report(result, benchmark.table(result), target)


@bench.command(
    name="serving",
    epilog=example(
        "fulcrum bench serving --out results/serving",
        "fulcrum bench serving --url http://127.0.0.1:7860 --clients 1,4,16 --seconds 180",
    ),
)
@click.option("--url", help="Ask this server.  [default: one of its own, over this home]")
@click.option(
    "--clients",
    default="1,16",
    show_default=True,
    help="Numbers of clients at once, with commas between.",
)
@click.option(
    "--seconds",
    type=Range(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="For each number.",
)
@count("--limit", default=128, help="Questions of each kind, in random order.")
@TIMES
@click.pass_obj
def bench_serving(
    given: dict[str, Any],
    url: str | None,
    clients: str,
    seconds: float,
    limit: int,
    target: Path | None,
) -> None:
    """Tokens a second of a server and how long its clients wait, the more of them there are."""
    numbers = _sizes(clients, "--clients")
    settings = model_settings(given)

    from tqdm import tqdm

    from app.server import site
    from evaluation.bench import serving as benchmark
    from evaluation.datasets import questions as datasets

    questions = [
        item.question for item in datasets.built_in("calibration", limit) if not item.history
    ]
    random.Random(0).shuffle(questions)  # noqa: S311 - an order, no secret
    key = settings.read_key.get_secret_value() if settings.read_key else "none"
    with (
        nullcontext(url) if url else site.run_server(settings) as address,
        tqdm(desc="asking", unit=" answers", delay=2, disable=None) as bar,
    ):
        result = benchmark.run(address, questions, numbers, seconds, key, bar.update)
    _report(result, benchmark.table(result), target)


@bench.command(name="page", epilog=example("fulcrum bench page --out results/page"))
@click.option("--url", help="Open this server's page.  [default: one of its own, over this home]")
@count("--rounds", default=20, help="Times to open it, each with an empty cache.")
@TIMES
@click.pass_obj
def bench_page(given: dict[str, Any], url: str | None, rounds: int, target: Path | None) -> None:
    """How soon the page is painted, in a headless Chromium (needs Playwright)."""
    settings = model_settings(given)

    from tqdm import tqdm

    from app.page_tools import TOOLS
    from app.server import site
    from evaluation.bench import page as benchmark

    with (
        nullcontext(url) if url else site.run_server(settings, page=True, tools=TOOLS) as address,
        tqdm(desc="opening", total=rounds + 1, delay=2, disable=None) as bar,
    ):
        result = benchmark.run(address, rounds, bar.update)
    _report(result, benchmark.table(result), target)


def _report(result: dict[str, Any], table: "Table", target: Path | None) -> None:
    """Print the table; write ``report.json`` where a directory is given."""
    from evaluation import report

    out.print(table)
    if target is not None:
        report.write_json(result, target)


def _sizes(text: str, option: str = "--sizes") -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise InputError(f"{option} {text}: give numbers from 1 up, such as 1,16")
    return sizes
