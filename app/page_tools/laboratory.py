"""The page's laboratory: what the dial does to one's own questions, as a curve."""

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.page import access, views
from app.page.ask import QUIET, session_of
from app.page.conversation import SessionTasks
from app.page_tools import curve as curves
from evaluation.datasets import conflicts as datasets
from evaluation.suites import dial as evaluation
from foundation.threads import BackgroundThread

if TYPE_CHECKING:
    from app.server.service import Service

TASK = "measurement"
LIMITS = (4, 100, 20)  # least, most and usual number of conflicts
BATCH = 4  # questions at a time: who asks meanwhile waits for so many
ROUNDS = 3  # each fact is asked closed-book, by plain RAG, and by the dial
ENDINGS = [".jsonl", ".json"]
CLIENT = "laboratory"


class Stopped(Exception):  # noqa: N818 - no error
    """The measurement is no longer wanted."""


def build(service: "Service", running: SessionTasks) -> None:
    """Lay the tab out and wire it."""
    with gr.Column(elem_classes="form-column"):
        gr.HTML(views.render("laboratory"), apply_default_css=False)
        data = gr.File(
            label="Conflicts, one a line; without a file the built-in ones are measured",
            file_types=ENDINGS,
            height=120,
            elem_id="conflicts",
            elem_classes="drop",
        )
        least, most, usual = LIMITS
        limit = gr.Slider(least, most, usual, step=1, label="How many", buttons=[], elem_id="limit")
        with gr.Row():
            go = gr.Button("Measure", variant="primary", elem_id="measure")
            stop = gr.Button("Stop", elem_id="stop-measure")
    report = gr.HTML(apply_default_css=False, elem_id="report")

    def measure(path: str | None, wanted: float, request: gr.Request) -> Iterator[str]:
        session = session_of(request)
        event = running.begin(session, TASK)
        try:
            access.check(request)
            items, name = _items(path, int(wanted))
            for done, result in _measured(service, items, event):
                if not running.is_current(session, event, TASK):
                    return
                if result is None:
                    steps = ROUNDS * -(-len(items) // BATCH) + ROUNDS
                    yield views.render("measuring", done=min(done, steps - 1), steps=steps)
                else:
                    curve = curves.curve(result)
                    yield views.render("report", report=result, curve=curve, name=name)
        except Stopped:
            yield views.render("said", text="Stopped; nothing was kept.")
        except Exception as error:
            yield views.error(error, service)

    def stopped(request: gr.Request) -> None:
        running.stop(session_of(request), TASK)

    go.click(measure, [data, limit], report, concurrency_limit=2, trigger_mode="multiple", **QUIET)
    stop.click(stopped, queue=False, **QUIET)


def _items(path: str | None, limit: int) -> tuple[list[datasets.Conflict], str]:
    """The conflicts of a file, or built-in ones, and what they are called."""
    if path is None:
        items = datasets.conflicts(datasets.BUILT_IN_CONFLICTS, "test")
        return datasets.spread(items, limit), "the built-in conflicts"
    return datasets.spread(datasets.conflicts(Path(path)), limit), Path(path).name


def _measured(
    service: "Service", items: list[datasets.Conflict], stop: threading.Event
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """How many pieces of work are done, again and again, and at last the report.

    The model is used in turns with whoever asks questions meanwhile. What it answers is not shown
    and not kept, since nothing is kept back here.

    Raises:
        Stopped: It was stopped.
    """
    news: queue.SimpleQueue[dict[str, Any] | BaseException | None] = queue.SimpleQueue()

    def run_step(work: Callable[[], Any]) -> Any:
        if stop.is_set():
            raise Stopped
        result = service.run(work, CLIENT)
        news.put(None)
        return result

    def run() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="fulcrum-laboratory-") as folder:
                news.put(
                    evaluation.run(
                        service.language_model,
                        items,
                        Path(folder),
                        batch_size=BATCH,
                        calibration=service.calibration,
                        known_only=True,
                        run_step=run_step,
                    )
                )
        except BaseException as error:  # raised where it is waited for
            news.put(error)

    BackgroundThread(run, "fulcrum-laboratory", stop.set)
    done = 0
    yield done, None
    while True:
        item = news.get()
        if isinstance(item, BaseException):
            raise item
        done += item is None
        yield done, item
        if item is not None:
            return
