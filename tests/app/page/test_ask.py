"""What is chosen beside the dial, by the events of the page's first tab."""

from types import SimpleNamespace

import gradio as gr
import pytest
from starlette.exceptions import HTTPException

from app.page import ask as page_ask
from app.page.browser import ConversationSeal
from app.page.conversation import ConversationTurn, SessionTasks
from app.page.guard import PageGuard
from control.answer import Answer
from control.conflict.sources import SourceOptions

REQUEST = SimpleNamespace(session_hash="mine")


class Service:
    """Remembers how what the sources claim was to be settled."""

    def __init__(self, home, only_documents=False, policy=None):
        self.settings = SimpleNamespace(home=home, only_documents=only_documents, policy=policy)
        self.ledger = SimpleNamespace(records=list)
        self.asked = []

    def error_line(self, error):
        return str(error)

    def stream(self, query, how, cancelled, client=""):
        self.asked.append(query.sources)
        yield Answer(query.question, query.question, [], "Oslo.", how.alpha, False, None, [], [])


class Tab:
    """The tab: `send` has one of its events happen, and returns what it sets by component."""

    def __init__(self, service):
        with gr.Blocks() as self.blocks:
            self.talk = page_ask.build(service, SessionTasks())
        self.by_id = {each.elem_id: each for each in self.blocks.blocks.values()}
        self.turns = []

    def send(self, elem_id, happened, *inputs):
        component = self.by_id[elem_id]
        [event] = [
            each for each in self.blocks.fns.values() if (component._id, happened) in each.targets
        ]
        given = [self.turns if isinstance(each, gr.State) else None for each in event.inputs]
        left = iter(inputs)
        given = [next(left) if value is None else value for value in given]
        takes = {"request": REQUEST} if happened != "change" else {}
        said = event.fn(*given, **takes)
        steps = list(said) if hasattr(said, "__next__") else [said]
        set_to = {}
        for step in steps:
            for output, value in zip(event.outputs, step, strict=True):
                if value == gr.skip():
                    continue
                set_to[output.elem_id] = value
                if isinstance(output, gr.State):
                    self.turns = value
        return set_to

    def ask(self, only=False, policy="usual", read="documents"):
        return self.send("question", "submit", "Capital?", "0.5", only, policy, read, "A text.")


def test_a_question_is_asked_with_what_is_chosen_and_its_turn_says_so(tmp_path):
    service = Service(tmp_path)
    tab = Tab(service)
    drawn = tab.ask(only=True, policy="newest")
    assert service.asked == [SourceOptions("newest", only_documents=True)]
    assert "only documents · where documents disagree: the newest" in drawn["latest"]
    plain = tab.ask()
    assert service.asked[1] == SourceOptions(only_documents=False)
    assert "only documents" not in plain["latest"]
    assert "disagree" not in plain["latest"]


def test_memory_alone_is_asked_in_spite_of_it_and_it_is_not_offered_there(tmp_path):
    service = Service(tmp_path, only_documents=True)
    tab = Tab(service)
    drawn = tab.ask(only=True, policy="all", read="memory")
    assert service.asked == [SourceOptions(only_documents=False)]
    assert "only documents" not in drawn["latest"]
    assert tab.send("policy", "input", "0.5", False, "newest") == {}  # nothing to ask again
    for read, offered in (("memory", False), ("documents", True), ("passage", True)):
        drawn = tab.send("reading", "change", read)
        assert drawn["only-documents"]["interactive"] is offered
        assert drawn["policy"]["interactive"] is offered


def test_a_change_asks_the_latest_question_again(tmp_path):
    service = Service(tmp_path)
    tab = Tab(service)
    assert tab.send("policy", "input", "0.5", False, "all") == {}  # nothing was asked yet
    tab.ask()
    tab.ask()
    tab.send("only-documents", "input", "0.5", True, "usual")
    tab.send("policy", "input", "0.5", True, "majority")
    assert service.asked[2:] == [
        SourceOptions(only_documents=True),
        SourceOptions("majority", only_documents=True),
    ]
    tab.send("dial", "release", "1", True, "majority")
    assert service.asked[-1] == service.asked[-2]
    asked = len(service.asked)
    tab.send("dial", "release", "1", True, "majority")  # it was left where it is
    assert len(service.asked) == asked
    assert [turn.number for turn in tab.turns] == [1, 2]
    assert (tab.turns[0].only_documents, tab.turns[0].policy) == (False, None)


def test_they_begin_as_the_home_is_set_and_a_new_conversation_resets_them(tmp_path):
    usual, strict = Tab(Service(tmp_path)), Tab(Service(tmp_path, True, "newest"))
    for tab, only, policy in ((usual, False, "usual"), (strict, True, "newest")):
        assert tab.by_id["only-documents"].value is only
        assert tab.by_id["policy"].value == policy
        reset = tab.send("clear", "click")
        assert (reset["only-documents"]["value"], reset["policy"]["value"]) == (only, policy)
    assert usual.by_id["policy"].choices[0] == ("the trusted or newest", "usual")
    assert "usual" not in [value for _, value in strict.by_id["policy"].choices]


@pytest.mark.parametrize("policy", [None, "all"])
@pytest.mark.parametrize(
    ("read", "comes_back"),
    [("documents", "documents"), ("passage", "documents"), ("memory", "memory")],
)
def test_a_reload_brings_them_back(tmp_path, policy, read, comes_back):
    tab = Tab(Service(tmp_path))
    turn = ConversationTurn(
        1, "Capital?", "auto", read, only_documents=True, policy=policy, live=False
    )
    values = tab.talk.restore(ConversationSeal(tmp_path).seal([turn]), REQUEST)
    restored = dict(zip([each.elem_id for each in tab.talk.restored], values, strict=True))
    assert restored["dial"] == "auto"
    assert restored["only-documents"] is True
    assert restored["policy"] == (policy or "usual")
    assert restored["reading"] == comes_back
    assert len(tab.talk.restore("none", REQUEST)) == len(tab.talk.restored)


def test_what_was_asked_before_the_conversation_came_back_stays(tmp_path):
    tab = Tab(Service(tmp_path))
    turn = ConversationTurn(1, "Capital?", live=False)
    tab.ask()
    for kept in (ConversationSeal(tmp_path).seal([turn]), page_ask.NOTHING, ""):
        values = tab.talk.restore(kept, REQUEST)
        assert all(value == gr.skip() for value in values)
        assert len(values) == len(tab.talk.restored)


def test_a_page_that_opens_with_no_conversation_empties_nothing(tmp_path):
    tab = Tab(Service(tmp_path))  # the first question may be on its way
    assert all(value == gr.skip() for value in tab.talk.restore(page_ask.NOTHING, REQUEST))
    assert any(value != gr.skip() for value in tab.talk.restore("not ours", REQUEST))


def test_only_what_the_page_offers_is_taken_from_a_browser(tmp_path):
    tab = Tab(Service(tmp_path))
    guard = PageGuard(None, tab.blocks, tmp_path, 1_000)
    for name, right, wrong in (
        ("only-documents", (True, False, None), (1, "true", [], {})),
        ("policy", ("usual", "all", None), ("oldest", 1, ["all"], {})),
    ):
        check = guard._check(tab.by_id[name])
        assert all(check({}, value) == value for value in right)
        for value in wrong:
            with pytest.raises(HTTPException):
                check({}, value)
