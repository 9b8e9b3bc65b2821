"""The page's first tab: the conversation and the dial."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from app.page import conversation, export, lists, views
from app.page import dial as page_dial
from app.page.browser import NOTHING, ConversationSeal
from app.page.conversation import ConversationTurn, Reading, SessionTasks
from data import DIRECTORY as DATA
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.server.service import Service
    from control.conflict.sources import Policy

AT_ONCE = 32  # events at once; the service has its own queue
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
READINGS = [("my documents", "documents"), ("a passage", "passage"), ("memory alone", "memory")]
PASSAGE_LINES = 2
SETTINGS = 4  # that come back with a conversation: dial, only documents, policy, what is read
NO_SECRET = "sealed"  # the conversation is sealed by the server; this one the page knows


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
    """The tab's components that others use.

    Attributes:
        turns: The conversation.
        drawn: What changes with it, in the order of `blank`.
        kept: The conversation in the browser.
        restored: What comes back with it when the page is opened: the settings, and `drawn`.
        restore: Brings it back; takes `kept`, and gives the values of `restored`.
    """

    turns: gr.State
    drawn: list[gr.blocks.Block]
    kept: gr.BrowserState
    restored: list[gr.blocks.Block]
    restore: Callable[..., Any]


class _Events:
    """What happens on the tab; results are values of its components, in the order of `blank`."""

    def __init__(self, service: "Service", running: SessionTasks) -> None:
        self.examples = examples()
        self._service, self._running = service, running
        self._seal = ConversationSeal(service.settings.home)
        self._only_documents = service.settings.only_documents
        self._policy = service.settings.policy or page_dial.USUAL

    def _remembered(self, turns: list[ConversationTurn]) -> list[ConversationTurn]:
        """The turns without those that hold what was forgotten meanwhile."""
        return (
            conversation.without_forgotten(turns, self._service.ledger.records()) if turns else []
        )

    def _answered(
        self,
        turn: ConversationTurn,
        before: list[ConversationTurn],
        request: gr.Request,
        typed: bool = False,
    ) -> Iterator[tuple[Any, ...]]:
        """Answer a turn, which may come from the box."""
        session, before = session_of(request), self._remembered(before)
        event = self._running.begin(session)
        yield _values([*before, turn], first=True, typed=typed)
        for state in conversation.answer_turn(self._service, turn, before, event, session):
            if not self._running.is_current(session, event):
                return  # something newer is being drawn
            said = [*before, state]
            kept = None if state.live else self._seal.seal(self._remembered(said))
            yield _values(said, kept=kept)

    def ask(
        self,
        question: str,
        said: list[ConversationTurn],
        alpha: str,
        only: bool | None,
        policy: str | None,
        read: Reading,
        text: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """A question."""
        number = said[-1].number + 1 if said else 1
        turn = ConversationTurn(number, question, alpha, read, text or "")  # `None` until touched
        yield from self._answered(_settled(turn, only, policy), said, request, typed=True)

    def again(
        self,
        said: list[ConversationTurn],
        alpha: str,
        only: bool | None,
        policy: str | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """The latest question once more, with the settings as they are now."""
        if said:
            turn = _settled(_asked_again(said[-1], alpha), only, policy)
            yield from self._answered(turn, said[:-1], request)

    def settled(
        self,
        said: list[ConversationTurn],
        alpha: str,
        only: bool | None,
        policy: str | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """The same when the dial or what is beside it was touched, unless that changed nothing.

        Leaving the dial by keyboard releases it where it was.
        """
        as_set = _settled(replace(said[-1], dial=alpha), only, policy) if said else None
        if as_set and (as_set.dial, as_set.sources) != (said[-1].dial, said[-1].sources):
            yield from self.again(said, alpha, only, policy, request)
        else:
            yield tuple(gr.skip() for _ in blank())  # without a value all would be emptied

    def pressed(
        self,
        event: gr.EventData,
        said: list[ConversationTurn],
        alpha: str,
        only: bool | None,
        policy: str | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """A button below an answer."""
        button = lists.pressed_button(event)
        places = {str(turn.number): place for place, turn in enumerate(said)}
        at = places.get(button.id, len(said))
        if button.action in export.FORMATS:
            found = self._remembered(said if button.id == "all" else said[at : at + 1])
            yield (*(gr.skip() for _ in blank()), export.to_file(found, button.action))
        elif button.action in {"again", "edit"} and at < len(said):
            turn = _settled(_asked_again(said[at], alpha), only, policy)
            turn = replace(turn, question=button.value) if button.action == "edit" else turn
            for values in self._answered(turn, said[:at], request):
                yield (*values, gr.skip())
        else:
            raise InputError("there is no such answer; press a button of one that is shown")

    def example(
        self, chosen: gr.EventData, only: bool | None, policy: str | None, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """An example, which turns the dial and leaves alone what other questions read."""
        one = _example(self.examples, lists.pressed_button(chosen).id)
        turn = ConversationTurn(1, one.question, one.dial, one.reading, one.passage)
        for values in self._answered(_settled(turn, only, policy), [], request):
            yield (one.dial, *values)

    def stopped(self, request: gr.Request) -> None:
        """The answer is to end."""
        self._running.stop(session_of(request))

    def cleared(self, request: gr.Request) -> tuple[Any, ...]:
        """A new conversation, with the settings that the page began with."""
        self._running.leave(session_of(request))
        hidden = gr.update(value="", visible=False)
        only = gr.update(value=self._only_documents, interactive=True)
        policy = gr.update(value=self._policy, interactive=True)
        return (page_dial.START, only, policy, "documents", hidden, *blank())

    def restore(self, text: str, request: gr.Request) -> tuple[Any, ...]:
        """The page is opened, with a conversation in the browser and the settings of its end."""
        skips = tuple(gr.skip() for _ in range(SETTINGS + len(blank())))
        # What is asked while the page opens must not be emptied.
        if text in ("", NOTHING) or self._running.has_begun(session_of(request)):
            return skips
        found = self._remembered(self._seal.open(text))
        if not found:
            return (*skips[:SETTINGS], *blank())
        drawn, latest = _values(found, first=True, kept=self._seal.seal(found)), found[-1]
        only = self._only_documents if latest.only_documents is None else latest.only_documents
        reading = latest.reading if latest.reading == "memory" else "documents"
        return (latest.dial, only, latest.policy or self._policy, reading, *drawn)


def build(service: "Service", running: SessionTasks) -> AskComponents:
    """Build the tab."""
    events = _Events(service, running)
    turns = gr.State([])
    kept = gr.BrowserState(NOTHING, storage_key="fulcrum-conversation", secret=NO_SECRET)
    with gr.Column(elem_id="conversation"):
        with gr.Column(elem_id="start") as start:
            cards = lists.html_list("start", examples=events.examples)
        earlier = lists.html_list("turns", "earlier", turns=[], latest=False)
        latest = lists.html_list("turns", "latest", turns=[], latest=True)
    file = gr.HTML(elem_id="file", apply_default_css=False)
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
        with gr.Row(elem_id="settled"):
            only = page_dial.only_documents(service.settings.only_documents)
            policy = page_dial.policy(service.settings.policy)
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
            page_dial.more()
            clear = gr.Button("New conversation", size="sm", elem_id="clear", interactive=False)
    drawn = [earlier, latest, turns, start, box, clear, kept]
    settings = [dial, only, policy]
    chosen = [*settings, reading, passage]

    once: dict[str, Any] = {"concurrency_limit": AT_ONCE, **QUIET}
    many: dict[str, Any] = {**once, "trigger_mode": "multiple"}
    box.submit(events.ask, [box, turns, *chosen], drawn, **once)
    for set_anew in (dial.release, only.input, policy.input):
        # Once more behind it: of several turns in quick succession any may have been asked last.
        set_anew(events.settled, [turns, *settings], drawn, **many).then(
            events.settled, [turns, *settings], drawn, **many
        )
    for html in (earlier, latest):
        html.select(events.pressed, [turns, *settings], [*drawn, file], **many)
    cards.select(events.example, [only, policy], [dial, *drawn], **once)
    reading.change(_offered, reading, [passage, only, policy], queue=False, **QUIET)
    box.stop(events.stopped, None, None, queue=False, **QUIET)
    clear.click(events.cleared, None, [*chosen, *drawn], queue=False, **QUIET)
    return AskComponents(turns, [*drawn], kept, [*settings, reading, *drawn], events.restore)


def _offered(read: Reading | None) -> tuple[Any, Any, Any]:
    """What can be said about what is read: the passage, and what is beside the dial."""
    settled = gr.update(interactive=read != "memory")
    return gr.update(visible=read == "passage"), settled, settled


def blank() -> tuple[Any, ...]:
    """Return the values of the tab's components without a conversation."""
    start, clear = gr.update(visible=True), gr.update(interactive=False)
    return "", "", [], start, _box(live=False), clear, NOTHING


def _values(
    turns: list[ConversationTurn],
    first: bool = False,
    typed: bool = False,
    kept: str | None = None,
) -> tuple[Any, ...]:
    """Return the values of the tab's components, in the order of `blank`.

    Args:
        turns: The conversation.
        first: Whether it has a new turn. Only then do the earlier ones change, so that they keep
            what is unfolded there.
        typed: Whether that comes from the box, which is emptied.
        kept: The conversation for the browser; ``None`` leaves what it has.
    """
    live = turns[-1].live
    draw = views.render
    return (
        draw("turns", turns=turns[:-1], latest=False) if first else gr.skip(),
        draw("turns", turns=turns[-1:], latest=True),
        turns,
        gr.update(visible=False) if first else gr.skip(),
        _box(live, typed) if first or not live else gr.skip(),
        gr.update(interactive=True) if first else gr.skip(),
        gr.skip() if kept is None else kept,
    )


def _box(live: bool, emptied: bool = False) -> Any:
    """The question's box: its button asks, or stops what is being answered."""
    buttons = gr.update(submit_btn=not live and "Ask", stop_btn=live and "Stop")
    return buttons | {"value": ""} if emptied else buttons


def _asked_again(turn: ConversationTurn, alpha: str) -> ConversationTurn:
    return ConversationTurn(turn.number, turn.question, alpha, turn.reading, turn.passage)


def _settled(turn: ConversationTurn, only: bool | None, policy: str | None) -> ConversationTurn:
    """The turn with what is chosen beside the dial."""
    chosen = None if policy == page_dial.USUAL else cast("Policy | None", policy)
    return replace(turn, only_documents=bool(only), policy=chosen)


def session_of(request: gr.Request) -> str:
    """Return the full name of a visitor's session, set by `app.page.guard`."""
    return request.session_hash or ""
