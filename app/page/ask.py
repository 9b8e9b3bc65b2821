"""The page's first tab: the conversation and the dial."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.page import conversation, lists, views
from app.page import dial as page_dial
from app.page.conversation import ConversationTurn, Reading, SessionTasks
from data import DIRECTORY as DATA
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.server.service import Service

AT_ONCE = 32  # events at once; the service has its own queue
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
READINGS = [("my documents", "documents"), ("a passage", "passage"), ("memory alone", "memory")]
PASSAGE_LINES = 2


@dataclass(frozen=True)
class ExampleQuestion:
    """A question for the first screen; none of them needs documents.

    Attributes:
        question: The question.
        note: What it shows.
        reading: What the answer is read from.
        passage: The given text, if it is read from that.
        dial: Setting of the dial.
    """

    question: str
    note: str
    reading: Reading
    passage: str = ""
    dial: str = page_dial.START


def examples() -> list[ExampleQuestion]:
    """Return the examples, which need no documents."""
    wrong = (DATA / "demo.txt").read_text(encoding="utf-8").strip()
    library = (
        "The Harbour Library is run by volunteers. On Sundays it opens at noon and closes at six."
    )
    return [
        ExampleQuestion(
            "What is the capital of Norway?",
            "The passage is wrong. Turn the dial and watch the answer follow.",
            "passage",
            wrong,
        ),
        ExampleQuestion(
            "When does the Harbour Library open on Sundays?",
            "Memory cannot know this: even at its end of the dial the passage answers.",
            "passage",
            library,
            "1",
        ),
        ExampleQuestion(
            "What is the capital of Peru?",
            "Nothing is read: this comes from the model’s memory alone.",
            "memory",
        ),
    ]


def _example(shown: list[ExampleQuestion], number: str) -> ExampleQuestion:
    """Return the example of a button.

    Raises:
        InputError: There is no such example.
    """
    if number not in map(str, range(len(shown))):
        raise InputError("there is no such example; press one of the list")
    return shown[int(number)]


@dataclass(frozen=True)
class AskComponents:
    """The tab's components that other tabs use.

    Attributes:
        turns: The conversation.
        earlier: Shows its turns before the latest one.
        latest: Shows the latest one.
        start: The first screen, before a conversation.
    """

    turns: gr.State
    earlier: gr.HTML
    latest: gr.HTML
    start: gr.Column


def build(service: "Service", running: SessionTasks) -> AskComponents:
    """Build the tab."""
    shown = examples()
    turns = gr.State([])
    with gr.Column(elem_id="conversation"):
        with gr.Column(elem_id="start") as start:
            cards = lists.html_list("start", examples=shown)
        earlier = gr.HTML(elem_id="earlier", apply_default_css=False)
        latest = gr.HTML(elem_id="latest", apply_default_css=False)
    with gr.Column(elem_id="composer"):
        passage = gr.Textbox(
            label="Read this instead of my documents",
            placeholder="Paste a text here.",
            lines=PASSAGE_LINES,
            max_lines=PASSAGE_LINES,
            visible=False,
            elem_id="passage",
        )
        dial = page_dial.dial()
        box = gr.Textbox(
            label="Question",
            show_label=False,
            container=False,
            placeholder="Ask a question",
            max_lines=4,
            submit_btn="Ask",
            elem_id="question",
            html_attributes=gr.InputHTMLAttributes(autocomplete="off", enterkeyhint="send"),
        )
        with gr.Row(elem_id="choices"):
            reading = gr.Radio(
                READINGS,
                value="documents",
                label="What is read",
                show_label=False,
                container=False,
                elem_id="reading",
            )
            stop = gr.Button("Stop", size="sm", elem_id="stop", visible=False)
            clear = gr.Button("New conversation", size="sm", elem_id="clear", visible=False)
    parts = AskComponents(turns, earlier, latest, start)
    drawn = [earlier, latest, turns, start, stop, clear]
    chosen = [dial, reading, passage]

    def ask(
        question: str,
        said: list[ConversationTurn],
        alpha: str,
        read: Reading,
        text: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        turn = ConversationTurn(
            len(said) + 1, question, alpha, read, text or ""
        )  # `None` until touched
        for first, picture in _answer_turn(service, running, turn, said, request):
            yield ("" if first else gr.skip(), *picture)

    def again(
        said: list[ConversationTurn], alpha: str, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """The latest question once more, now that the dial has been turned."""
        if said:
            *before, last = said
            turn = ConversationTurn(last.number, last.question, alpha, last.reading, last.passage)
            for _, picture in _answer_turn(service, running, turn, before, request):
                yield picture

    def example(chosen: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        one = _example(shown, lists.pressed_button(chosen).id)
        turn = ConversationTurn(1, one.question, one.dial, one.reading, one.passage)
        box_of_passage = gr.update(value=one.passage, visible=bool(one.passage))
        for first, picture in _answer_turn(service, running, turn, [], request):
            at = (one.dial, one.reading, box_of_passage) if first else (gr.skip(),) * 3
            yield (*at, *picture)

    def stopped(request: gr.Request) -> None:
        running.stop(session_of(request))

    def cleared(request: gr.Request) -> tuple[Any, ...]:
        running.leave(session_of(request))
        shown, hidden = gr.update(visible=True), gr.update(visible=False)
        return "", "", [], shown, hidden, hidden

    box.submit(ask, [box, turns, *chosen], [box, *drawn], concurrency_limit=AT_ONCE, **QUIET)
    dial.release(
        again, [turns, dial], drawn, concurrency_limit=AT_ONCE, trigger_mode="multiple", **QUIET
    )
    cards.select(example, None, [*chosen, *drawn], concurrency_limit=AT_ONCE, **QUIET)
    reading.change(
        lambda read: gr.update(visible=read == "passage"), reading, passage, queue=False, **QUIET
    )
    stop.click(stopped, queue=False, **QUIET)
    clear.click(cleared, None, drawn, queue=False, **QUIET)
    return parts


def _answer_turn(
    service: "Service",
    running: SessionTasks,
    turn: ConversationTurn,
    before: list[ConversationTurn],
    request: gr.Request,
) -> Iterator[tuple[bool, tuple[Any, ...]]]:
    """Answer a turn: yield whether this is its first update, and the components' values."""
    session = session_of(request)
    event = running.begin(session)
    yield True, _component_values([*before, turn], first=True)
    for state in conversation.answer_turn(service, turn, before, event, session):
        if not running.is_current(session, event):
            return  # something newer is being drawn
        yield False, _component_values([*before, state])


def _component_values(turns: list[ConversationTurn], first: bool = False) -> tuple[Any, ...]:
    """Return values for the earlier turns, the latest, the state, the first screen and the buttons.

    The earlier turns change with the first update only, so that they keep what is unfolded there.
    """
    live = turns[-1].live
    draw = views.render
    return (
        draw("turns", turns=turns[:-1], latest=False) if first else gr.skip(),
        draw("turns", turns=turns[-1:], latest=True),
        turns,
        gr.update(visible=False) if first else gr.skip(),
        gr.update(visible=live) if first or not live else gr.skip(),
        gr.update(visible=not live) if first or not live else gr.skip(),
    )


def session_of(request: gr.Request) -> str:
    """Return the full name of a visitor's session, set by `app.page.guard`."""
    return request.session_hash or ""
