"""The page: its tabs, theme and mounting."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.api.errors import ErrorLine, describe_error
from app.page import ask as page_ask
from app.page import compare, views
from app.page import documents as page_documents
from app.page import forgetting as page_forgetting
from app.page.conversation import SessionTasks
from app.page.guard import PageGuard
from app.page.tools import PageTools
from app.server.security import MEGABYTE
from control.engines.hub import RECOMMENDED
from foundation.files import temporary_directory
from foundation.threads import BackgroundThread

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.server.service import Service

HERE = Path(__file__).parent
EVERY = 1.0  # seconds between checks whether the model is loaded
SWEPT, UNUSED = 300, 3_600  # seconds between clean-ups of uploads, and until one is removed


NO_TOOLS = PageTools()


def build(service: "Service", running: SessionTasks, tools: PageTools = NO_TOOLS) -> gr.Blocks:
    """Build the page over a service, which may be loading or have failed.

    Args:
        service: Answers.
        running: Told who asks, and who has left.
        tools: What is measured on the page, if anything.
    """
    page = Page(title="Fulcrum", analytics_enabled=False, fill_width=True)
    page.error_line = service.error_line
    with page as blocks:
        gr.HTML(views.render("head"), apply_default_css=False, elem_id="head")
        state = gr.HTML(_state(service), apply_default_css=False, elem_id="state")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Ask", id="ask"):
                talk = page_ask.build(service, running)
            with gr.Tab("Side by side", id="side-by-side"):
                compare.build(service, running)
            with gr.Tab("Documents", id="documents") as documents:
                listed = page_documents.build(service)
            with gr.Tab("Forgetting", id="forgetting") as forgetting:
                forgotten = page_forgetting.build(service, running, talk, tools.attempts)
            for title, build_tab in tools.tabs:
                with gr.Tab(title, id=title.lower()):
                    build_tab(service, running)

        def look() -> tuple[Any, Any]:
            state = service.state
            active = state.name == "loading" or state.passing  # what is away is tried again
            return _state(service), gr.Timer(active=active)

        def left(request: gr.Request) -> None:
            running.leave(page_ask.session_of(request))

        timer = gr.Timer(EVERY)
        for event in (blocks.load, timer.tick):
            event(look, None, [state, timer], queue=False, **page_ask.QUIET)
        blocks.load(talk.restore, talk.kept, talk.restored, **page_ask.QUIET)
        blocks.unload(left)
        for tab, (draw, read, shown) in ((documents, listed), (forgetting, forgotten)):
            tab.select(draw, read, shown, **page_ask.QUIET)  # others may have changed it
    return blocks


class Page(gr.Blocks):
    """The page's blocks; an exception in an event becomes one line, without a traceback.

    Attributes:
        error_line: Gives what one of Fulcrum's own errors says.
    """

    error_line: ErrorLine

    async def process_api(self, *args: Any, **kwargs: Any) -> Any:
        """Run an event, as gradio does.

        Raises:
            gr.Error: It failed; the line says why.
        """
        try:
            return await super().process_api(*args, **kwargs)
        except Exception as error:
            own = str(error.message) if isinstance(error, gr.Error) else ""
            message = own or describe_error(error, self.error_line)[1]
            raise gr.Error(message, print_exception=False) from None


@contextmanager
def mount_page(
    app: "FastAPI", service: "Service", tools: PageTools = NO_TOOLS
) -> Iterator[PageGuard]:
    """Mount the page at ``/`` of an application; the result goes behind a `RequestGuard`.

    The browser stores a random cookie, and the conversation as `app.page.browser` seals it. Nothing
    is fetched from other hosts. Uploaded files are in a private directory until they are read or an
    hour has passed; it is removed with the page.
    """
    settings, running = service.settings, SessionTasks()
    with temporary_directory("page") as folder, _sweeping(Path(folder)):
        os.environ["GRADIO_TEMP_DIR"] = folder  # the one way to tell gradio
        blocks = build(service, running, tools)
        gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            show_error=False,
            max_file_size=settings.upload_limit * MEGABYTE,
            theme=theme(),
            css_paths=HERE / "page.css",
            head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        )
        # gradio checks which files an event may name only in blocks that were launched, and a
        # mounted page never is.
        blocks.has_launched = True
        most = settings.body_limit * MEGABYTE
        yield PageGuard(app, blocks, Path(folder), most, running.leave)


@contextmanager
def _sweeping(folder: Path) -> Iterator[None]:
    """Delete uploads that nobody has used for an hour, those that never came to their end too."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(SWEPT):
            oldest = time.time() - UNUSED
            for path in folder.rglob("*"):
                with suppress(OSError):
                    if path.is_file() and path.stat().st_mtime < oldest:
                        path.unlink()

    thread = BackgroundThread(sweep, "fulcrum-uploads", ended.set)
    try:
        yield
    finally:
        thread.finish()


# Of this typeface gradio brings all letters in these two weights; the others lack some.
TYPEFACE = gr.themes.LocalFont("IBM Plex Sans", (400, 700))


def theme() -> gr.themes.Base:
    """One typeface, few colours; the rest is in ``page.css``."""
    return gr.themes.Base(
        primary_hue="neutral",
        neutral_hue="stone",
        radius_size="lg",
        text_size="lg",
        font=[TYPEFACE, "system-ui", "sans-serif"],
        font_mono=[TYPEFACE, "system-ui", "sans-serif"],
    ).set(
        body_background_fill="#fbfaf8",
        body_background_fill_dark="#171614",
        body_text_color="#23211e",
        body_text_color_dark="#e9e6e0",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        input_background_fill="#ffffff",
        input_background_fill_dark="#211f1c",
        input_border_color="#d9d5cd",
        input_border_color_dark="#3d3934",
        input_shadow="none",
        button_primary_background_fill="#23211e",
        button_primary_background_fill_dark="#e9e6e0",
        button_primary_text_color="#fbfaf8",
        button_primary_text_color_dark="#171614",
    )


def _state(service: "Service") -> str:
    state, small = service.shown_state, service.settings.model is None
    notices = service.model_notices if state.name == "ready" else []
    return views.render("state", state=state, small=small, recommended=RECOMMENDED, notices=notices)
