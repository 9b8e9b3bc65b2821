"""Forgotten facts on the page: their list, removing one, attempts to get it, and the audit."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from app import described
from app.page import access, views
from app.page import lists as page_list
from app.page.ask import QUIET, session_of
from app.page.conversation import SessionTasks
from app.server.security import is_administrator

if TYPE_CHECKING:
    from app.page.lists import Refresh
    from app.page.tools import MakeAttempts
    from app.server.service import Service

TASK = "attempts"
SHOWN = 50  # facts or events listed at once
WHO = "page"  # asks, where nobody says who
AT_ONCE = 4  # users who try to get a fact


def build(
    service: "Service", running: SessionTasks, said: gr.HTML, attempt: "MakeAttempts | None"
) -> "Refresh":
    """Build the lists; return how the facts are rendered again.

    Args:
        service: With the ledger.
        running: Cancels attempts when newer ones start.
        said: Shows the result of an action.
        attempt: Makes attempts to get a fact; ``None``: the list has no button for it.
    """
    facts = page_list.html_list("facts", "facts", records=[], count=0, may=True, may_attempt=False)
    attempts = gr.HTML(apply_default_css=False, elem_id="attempts")
    with gr.Accordion("Audit", open=False, elem_id="audit") as audit:
        events = gr.HTML(apply_default_css=False, elem_id="events")

    def chosen(event: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        try:
            access.check(request)
            button = page_list.pressed_button(event)
            if button.action == "remove":
                record = service.unforget(button.id, who=WHO)
                text = f"{described.fact(record)}: may be said again."
                yield views.render("said", text=text), drawn(request), ""
                return
            if attempt is None:
                return
            session = session_of(request)
            stop = running.begin(session, TASK)
            record = service.ledger.record(button.id)
            for so_far in attempt(service, record, stop, session):
                if not running.is_current(session, stop, TASK):
                    return
                yield "", gr.skip(), views.render("attempts", **so_far)
        except Exception as error:
            yield views.error(error, service), drawn(request), gr.skip()

    def audited(request: gr.Request) -> str:
        try:
            access.check(request)
            found = service.ledger.events()
            fault = service.ledger.verify()
        except Exception as error:
            return views.error(error, service)
        newest = found[: -SHOWN - 1 : -1]
        return views.render("events", events=newest, count=len(found), fault=fault)

    def drawn(request: gr.Request) -> str:
        return listed(service, request, attempt is not None)

    facts.select(
        chosen,
        None,
        [said, facts, attempts],
        concurrency_limit=AT_ONCE,
        trigger_mode="multiple",
        **QUIET,
    )
    audit.expand(audited, None, events, **QUIET)
    return drawn, [], [facts]


def listed(service: "Service", request: gr.Request, may_attempt: bool) -> str:
    """Render the list of the newest facts, with buttons to attempt to get them where possible."""
    may = is_administrator(request)
    records = service.ledger.records() if may else []
    newest = records[: -SHOWN - 1 : -1]
    return views.render(
        "facts", records=newest, count=len(records), may=may, may_attempt=may_attempt
    )
