"""The page's tab for documents: list, add and remove."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.page import access, lists, views
from app.page.ask import QUIET
from app.server.security import is_administrator
from control.conflict.sources import NEUTRAL_TRUST
from foundation.errors import InputError
from foundation.files import temporary_directory
from retrieval.ingest.readers import READERS

if TYPE_CHECKING:
    from app.page.lists import Refresh
    from app.server.service import Service

SHOWN = 50  # documents listed at once
PREVIEWED = 20  # passages of a document shown at once
AT_ONCE = 4  # uploads; the index takes one after the other


@dataclass(frozen=True)
class ListView:
    """What of the documents is listed.

    Attributes:
        limit: So many at most.
        search: Those whose title, file or date holds this.
        opened: Id of the document whose passages are shown; empty for none.
    """

    limit: int = SHOWN
    search: str = ""
    opened: str = ""


class _Events:
    """What happens on the tab."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    def _listed(self, now: ListView, request: gr.Request) -> str:
        may = is_administrator(request)
        found = self._service.documents.listed(limit=now.limit + 1, search=now.search, paths=may)
        texts = self._service.documents.passages(now.opened, PREVIEWED) if now.opened else []
        return views.render(
            "documents",
            found=found[: now.limit],
            count=self._service.documents.count(),
            more=len(found) > now.limit,
            may=may,
            view=now,
            texts=[views.passage_html(text) for text in texts],
        )

    def added(
        self, paths: list[str] | None, trusted: float, now: ListView, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Files were dropped."""
        stated = None if trusted == NEUTRAL_TRUST else trusted
        try:
            access.check(request)
            with _taken(paths) as taken:
                for so_far in self._service.documents.ingest(taken, stated):
                    yield gr.skip(), views.render("progress", now=so_far), gr.skip()
            yield None, gr.skip(), self._listed(now, request)
        except Exception as error:
            yield None, views.error(error, self._service), gr.skip()

    def chosen(self, event: gr.EventData, now: ListView, request: gr.Request) -> tuple[Any, ...]:
        """A button of the list."""
        try:
            button = lists.pressed_button(event)
            if button.action == "remove":
                access.check(request)
                self._service.documents.remove(button.id)
            elif button.action == "more":
                now = replace(now, limit=now.limit + SHOWN)
            elif button.action == "preview":
                now = replace(now, opened="" if now.opened == button.id else button.id)
            return now, "", self._listed(now, request)
        except Exception as error:
            return now, views.error(error, self._service), gr.skip()

    def searched(self, text: str, request: gr.Request) -> tuple[Any, ...]:
        """Something was typed into the box."""
        now = ListView(search=text or "")
        return now, "", self._listed(now, request)

    def drawn(self, text: str, request: gr.Request) -> tuple[Any, ...]:
        """The tab is opened: others may have changed the list."""
        now = ListView(search=text or "")
        return now, gr.skip(), self._listed(now, request)


def build(service: "Service") -> "Refresh":
    """Build the tab; return how its list is rendered again, from the beginning."""
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
    with gr.Column(elem_classes="form-column"):
        search = gr.Textbox(
            label="Search", placeholder="Title, file or date", max_lines=1, elem_id="search"
        )
    view = gr.State(ListView())
    documents = lists.html_list(
        "documents", "documents", found=[], count=0, more=False, may=True, view=ListView(), texts=[]
    )

    events = _Events(service)
    files.upload(
        events.added,
        [files, trust, view],
        [files, progress, documents],
        concurrency_limit=AT_ONCE,
        **QUIET,
    )
    shown = [view, progress, documents]
    documents.select(events.chosen, view, shown, **QUIET)
    search.change(events.searched, search, shown, trigger_mode="always_last", **QUIET)
    return events.drawn, [search], shown


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
