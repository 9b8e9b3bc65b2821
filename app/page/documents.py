"""The page's tab for documents: list, add and remove."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.page import access, lists, views
from app.page.ask import QUIET
from control.conflict.verdict import NEUTRAL_TRUST
from foundation.errors import InputError
from foundation.files import temporary_directory
from retrieval.ingest.readers import READERS

if TYPE_CHECKING:
    from app.page.lists import Refresh
    from app.server.service import Service

SHOWN = 50  # documents listed at once
AT_ONCE = 4  # uploads; the index takes one after the other


def build(service: "Service") -> "Refresh":
    """Build the tab; return how its list is rendered again."""
    with gr.Column(elem_classes="form-column"):
        files = gr.File(
            label="Add documents: " + " ".join(READERS),
            file_count="multiple",
            file_types=list(READERS),
            height=150,
            elem_id="files",
            elem_classes="drop",
        )
        trust = gr.Slider(
            0,
            1,
            NEUTRAL_TRUST,
            step=0.05,
            label="How far they are trusted against memory (0.5: as any other)",
            buttons=[],
            elem_id="trust",
        )
    progress = gr.HTML(apply_default_css=False, elem_id="progress")
    shown = gr.State(SHOWN)
    documents = lists.html_list("documents", "documents", found=[], count=0, more=False, may=True)

    def listed(limit: int, request: gr.Request) -> str:
        found = service.documents(limit=limit + 1)
        return views.render(
            "documents",
            found=found[:limit],
            count=service.count(),
            more=len(found) > limit,
            may=access.is_administrator(request),
        )

    def added(
        paths: list[str] | None, trusted: float, limit: int, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        stated = None if trusted == NEUTRAL_TRUST else trusted
        try:
            access.check(request)
            with _taken(paths) as taken:
                for now in service.ingest(taken, stated):
                    yield gr.skip(), views.render("progress", now=now), gr.skip()
            yield None, gr.skip(), listed(limit, request)
        except Exception as error:
            yield None, views.error(error), gr.skip()

    def chosen(event: gr.EventData, limit: int, request: gr.Request) -> tuple[Any, ...]:
        try:
            button = lists.pressed_button(event)
            if button.action == "remove":
                access.check(request)
                service.remove_document(button.id)
        except Exception as error:
            return limit, views.error(error), gr.skip()
        limit += SHOWN if button.action == "more" else 0
        return limit, "", listed(limit, request)

    def drawn(request: gr.Request) -> str:
        return listed(SHOWN, request)

    files.upload(
        added,
        [files, trust, shown],
        [files, progress, documents],
        concurrency_limit=AT_ONCE,
        **QUIET,
    )
    documents.select(chosen, shown, [shown, progress, documents], **QUIET)
    return drawn, documents


@contextmanager
def _taken(paths: list[str] | None) -> Iterator[list[Path]]:
    """Move the uploaded files where no request can name them; remove them afterwards.

    Raises:
        InputError: One is no longer there.
    """
    with temporary_directory("upload") as folder:
        taken = []
        for number, path in enumerate(map(Path, paths or [])):
            target = Path(folder) / str(number) / path.name
            target.parent.mkdir()
            try:
                shutil.move(path, target)
            except FileNotFoundError:
                raise InputError(f"{path.name} is no longer there; upload it again") from None
            taken.append(target)
        yield taken
