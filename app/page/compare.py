"""The page's second tab: the same question at three settings of the dial, side by side."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import gradio as gr

from app.page import ask, conversation, views
from app.page.conversation import ConversationTurn, SessionTasks

if TYPE_CHECKING:
    from app.server.service import Service

TASK = "comparison"
SETTINGS = (("0", "Documents"), ("0.5", "Both"), ("1", "Memory"))


def build(service: "Service", running: SessionTasks) -> None:
    """Build the tab."""
    example = ask.examples()[0]
    with gr.Column(elem_classes="form-column"):
        question = gr.Textbox(
            example.question, label="Question", lines=1, max_lines=4, elem_id="compare-question"
        )
        passage = gr.Textbox(
            example.passage,
            label="Passage to read; leave it empty to read my documents",
            lines=2,
            max_lines=6,
            elem_id="compare-passage",
        )
        go = gr.Button("Compare", variant="primary", elem_id="compare")
    columns = gr.HTML(render_columns([]), apply_default_css=False, elem_id="columns")

    def compare(asked: str, text: str, request: gr.Request) -> Iterator[str]:
        reading = "passage" if text.strip() else "documents"
        turns = [
            ConversationTurn(number, asked, dial, reading, text)  # type: ignore[arg-type]
            for number, (dial, _) in enumerate(SETTINGS, start=1)
        ]
        session = ask.session_of(request)
        event = running.begin(session, TASK)
        yield render_columns(turns)
        for place, turn in enumerate(turns):
            # The event also ends with its answer, so that each needs one of its own.
            event = running.begin(session, TASK) if place else event
            for state in conversation.answer_turn(service, turn, (), event, session):
                if not running.is_current(session, event, TASK):
                    return
                turns[place] = state
                yield render_columns(turns)

    for happens in (go.click, question.submit):
        happens(
            compare,
            [question, passage],
            columns,
            concurrency_limit=ask.AT_ONCE,
            trigger_mode="multiple",
            **ask.QUIET,
        )


def render_columns(turns: Sequence[ConversationTurn]) -> str:
    """Render the three answers and the passages."""
    done = [turn for turn in turns if turn.answer]
    return views.render(
        "columns",
        titles=SETTINGS,
        turns=turns,
        passages=done[0].passages if done else [],
        unread=done[0].unread if done else [],
    )
