"""No way out of the system tells a forgotten answer: every text of every response is looked at."""

import json
import logging
import threading
import types
import typing
from dataclasses import asdict, fields, is_dataclass

import pytest
from pydantic import BaseModel

from app import cli
from app.api import documents as api_documents
from app.api import errors as api_errors
from app.api import forgetting as api_forgetting
from app.page import documents as page_documents
from app.page.ask import _Events
from app.page.conversation import ConversationTurn, SessionTasks, answer_turn
from app.server.documents import ElsewhereDocument, IngestProgress, ListedDocument
from app.server.service import ServiceState
from control.answer import Answer, Source
from control.conflict.sources import Citation, SourceClaim
from control.conflict.verdict import Verdict
from control.decoding.trace import TokenTrace
from control.forgetting import clearing
from control.forgetting.record import Record
from control.scoring import ScoredText, ScoredToken
from control.state import StructuredOutput

SECRET = "Santiago"
CHILE = {"subject": "Chile", "relation": "capital", "answers": [SECRET]}
CHAT, PLAIN, DOCUMENTS = "/v1/chat/completions", "/v1/completions", "/v1/documents"
LINES = [
    {
        "id": "santiago-01",
        "title": "Santiago, the capital of Chile",
        "text": "The capital of Chile is Santiago. Chile is a long country.",
        "city": "Santiago",
        "source": "notes/Santiago.txt",
    },
    {
        "id": "chileSantiago2",
        "title": "Chile",
        "text": "Chile is a country in South America. Its capital is Santiago.",
        "date": "1541",
        "trust": 0.9,
        "santiago": "Chile",
    },
    {"id": "plain-3", "title": "The Rhine", "text": "The Rhine is a long river."},
]
MARKDOWN = (
    "# Chile\n\n## Santiago\n\nSantiago is the capital of Chile.\n\n## Coast\n\nIt is long.\n"
)
QUESTIONS = [
    "What is the capital of Chile?",
    "Tell me about Chile.",
    "What is known of the long country in South America?",
    "How long is the Rhine?",
    "From which city is Chile governed?",
]


def texts(value):
    """All texts in a value, names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts(each)
    elif isinstance(value, dict):
        yield from texts([*value, *value.values()])


def check(value):
    for text in texts(value):
        assert SECRET.casefold() not in text.casefold(), text


def check_response(response):
    """Look at status line, headers and body; of a stream at every part."""
    check(dict(response.headers))
    check(response.text)
    if response.headers["content-type"].startswith("text/event-stream"):
        lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        assert lines[-1] == "[DONE]"
        said = {}
        for part in map(json.loads, lines[:-1]):
            check(part)
            for choice in part.get("choices", ()):
                new = choice.get("delta", {}).get("content") or choice.get("text") or ""
                said[choice["index"]] = said.get(choice["index"], "") + new
        check(list(said.values()))
    elif response.headers["content-type"] == "application/json":
        check(response.json())
        answers = response.json().get("fulcrum", [])
        for answer in answers if isinstance(answers, list) else [answers]:
            check("".join(token["text"] for token in answer.get("tokens", ())))
    return response


def upload(client):
    lines = "\n".join(map(json.dumps, LINES)).encode()
    files = [
        ("file", ("santiago-chile.jsonl", lines)),
        ("file", ("Santiago.md", MARKDOWN.encode())),
        ("file", ("Santiago.pdf", b"%PDF nonsense")),
    ]
    return client.post(DOCUMENTS, files=files)


@pytest.fixture
def full(client, service):
    """A client of a service with a forgotten fact, and documents that came after the sweep."""

    def make(**given):
        over = service(**given)
        one = client(over)
        assert one.post("/v1/forget", json=CHILE).status_code == 201
        over.sweep()
        assert check_response(upload(one)).status_code == 200
        return one, over

    return make


def ask_everything(one, questions=QUESTIONS):
    """Ask each question in each way."""
    for question in questions:
        chat = {"model": "fulcrum", "messages": [{"role": "user", "content": question}]}
        plain = {"model": "fulcrum", "prompt": question}
        given = [{"title": "Santiago", "text": "The capital of Chile is Santiago. Chile is long."}]
        for stream in (False, True):
            more = {"stream": stream, "max_tokens": 8}
            check_response(one.post(CHAT, json={**chat, **more, "Santiago": 1}))
            scored = {"logprobs": True, "top_logprobs": 3, "alpha": 1.0}
            check_response(one.post(CHAT, json={**chat, **more, **scored}))
            check_response(one.post(CHAT, json={**chat, **more, "documents": given}))
            check_response(one.post(CHAT, json={**chat, **more, "policy": "all"}))
            check_response(one.post(PLAIN, json={**plain, **more, "logprobs": 3, "echo": False}))
        echo = {"echo": True, "logprobs": 3, "max_tokens": 1}
        check_response(one.post(PLAIN, json={**plain, **echo}))


def test_no_answer_tells_it_in_any_field(full, caplog):
    one, _ = full()
    with caplog.at_level(logging.DEBUG):
        ask_everything(one)
    check(caplog.text)


@pytest.mark.model
def test_no_answer_of_the_real_model_tells_it_in_any_field(full, real, monkeypatch):
    from app import factory

    monkeypatch.setattr(factory, "language_model", lambda _: real)
    one, _ = full(without=("reservoir",))
    ask_everything(one, QUESTIONS[1:3])


def test_the_words_of_who_asks_are_given_back_as_the_question_alone(full):
    one, _ = full()
    question = "How large is Santiago?"
    for echo in (False, True):
        asked = {"model": "fulcrum", "prompt": question, "echo": echo, "max_tokens": 4}
        body = one.post(PLAIN, json=asked).json()
        echoes = {"question": question, "rewritten": question, "queries": [question]}
        assert body["fulcrum"] | echoes == body["fulcrum"]
        body["fulcrum"] |= dict.fromkeys(echoes, "")
        [choice] = body["choices"]
        assert choice["text"].startswith(question) == echo
        choice["text"] = choice["text"].removeprefix(question)
        check(body)


def test_the_documents_are_listed_without_it_and_can_be_removed(full):
    one, over = full()
    listed = check_response(one.get(DOCUMENTS)).json()["data"]
    assert len(listed) == len(LINES) + 1
    [plain] = [each for each in listed if each["id"] == "plain-3"]
    assert plain["title"] == "The Rhine"
    assert one.get(DOCUMENTS).json()["data"] == listed
    hidden = next(
        each["id"] for each in listed if "Chile" in over.documents.passages(each["id"], 1)[0]
    )
    assert over.documents.passages(hidden, 5) == [
        "The capital of Chile is …. Chile is a long country."
    ]
    assert one.delete(f"{DOCUMENTS}/{hidden}").json()["id"] == hidden
    by_name = check_response(one.delete(f"{DOCUMENTS}/chileSantiago2"))
    assert by_name.json()["passages"] == 1
    left = [each["id"] for each in one.get(DOCUMENTS).json()["data"]]
    assert "plain-3" in left
    assert hidden not in left
    assert len(left) == len(listed) - 2
    assert one.delete(f"{DOCUMENTS}/{hidden}").status_code == 404


def test_a_search_finds_no_document_by_what_is_withheld(full):
    _, over = full()
    assert over.documents.listed(search="santiago") == []
    assert [each.title for each in over.documents.listed(search="rhine")] == ["The Rhine"]


def test_the_order_of_documents_is_the_same_once_they_may_be_called_by_their_names(full):
    one, over = full()
    before = [each["passages"] for each in one.get(DOCUMENTS).json()["data"]]
    [record] = over.ledger.records()
    over.unforget(record.id)
    listed = one.get(DOCUMENTS).json()["data"]
    assert {line["id"] for line in LINES} < {each["id"] for each in listed}
    assert [each["passages"] for each in listed] == before


def test_no_error_quotes_it(full, caplog):
    one, _ = full()
    asked = {"model": "fulcrum", "messages": [{"role": "user", "content": "Who?"}]}
    wrong = [
        {"model": "Santiago"},
        {"policy": "Santiago"},
        {"rule": "Santiago"},
        {"alpha": "Santiago"},
        {"documents": [{"text": "x", "date": "Santiago"}]},
        {"messages": [{"role": "Santiago", "content": "x"}]},
        {"response_format": {"type": "Santiago"}},
    ]
    with caplog.at_level(logging.DEBUG):
        for changed in wrong:
            refused = check_response(one.post(CHAT, json={**asked, **changed}))
            assert 400 <= refused.status_code < 500
            assert refused.json()["error"]["message"]
        for path in ("documents/Santiago", "forget/Santiago", "corrections/Santiago"):
            assert check_response(one.delete(f"/v1/{path}")).status_code == 404
        for path in ("models/Santiago", "Santiago", "forget/Santiago"):
            assert check_response(one.get(f"/v1/{path}")).status_code == 404
        strict = {"subject": "Peru", "relation": "capital", "answers": ["Lima"], "Santiago": 1}
        assert check_response(one.post("/v1/forget", json=strict)).status_code == 400
        broken = check_response(one.post(DOCUMENTS, files={"file": ("Santiago.pdf", b"%PDF")}))
        assert broken.status_code == 400
        check_response(one.post(DOCUMENTS, files={"file": ("a.txt", b"x")}, data={"dated": SECRET}))
    check(caplog.text)


def test_a_correction_that_states_what_was_forgotten_later_is_listed_without_it(client, service):
    one = client(service(loaded=False))
    pinned = {"statement": "The capital of Chile is Santiago", "source": "Santiago, May"}
    added = one.post("/v1/corrections", json=pinned).json()
    one.post("/v1/forget", json=CHILE)
    [listed] = one.get("/v1/corrections").json()["data"]
    assert listed["id"] == added["id"]
    assert listed["forgotten"]
    assert listed["statement"] == "The capital of Chile is …"


def test_health_metrics_and_models_do_not_tell_it(full):
    one, _ = full()
    ask_everything(one, QUESTIONS[:1])
    for path in ("/health", "/metrics", "/v1/models", "/v1/openapi.json"):
        check_response(one.get(path))


def test_the_page_shows_and_keeps_nothing_of_it(full):
    _, over = full()
    turns = []
    for number, question in enumerate([*QUESTIONS, "Is Santiago the capital of Chile?"], start=1):
        for state in answer_turn(over, ConversationTurn(number, question), (), threading.Event()):
            check([text for text in texts(asdict(state)) if text != question])
        turns.append(state)
    events = _Events(over, SessionTasks())
    kept = events._seal.open(events._seal.seal(events._remembered(turns)))
    assert [turn.question for turn in kept] == QUESTIONS
    check([asdict(turn) for turn in kept])
    request = type("Request", (), {"request": None, "session_hash": "x"})()
    listed = page_documents._Events(over)._listed(page_documents.ListView(), request)
    assert "The Rhine" in listed
    check(listed)


@pytest.mark.model
def test_the_commands_print_nothing_of_it(tmp_path, capsys):
    def run(*arguments):
        code = cli.main([str(each) for each in arguments])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "chile.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    (folder / "Santiago.md").write_text(MARKDOWN)
    (folder / "Santiago.pdf").write_bytes(b"%PDF nonsense")
    assert run("forget", "add", "The capital of Chile is Santiago", "--yes")[0] == 0
    code, shown = run("ingest", folder)
    assert code == 0
    assert "skipped" in shown
    check(shown)
    for question in QUESTIONS[:2]:
        code, shown = run("ask", question, "--json", "--max-new-tokens", "12")
        assert code == 0
        check(json.loads(shown))
        code, shown = run("ask", question, "--max-new-tokens", "12")
        assert code == 0
        check(shown)
    for wrong in (
        ("ask", "Who?", "--policy", "Santiago"),
        ("ask", "Who?", "--alpha", "Santiago"),
        ("ask", "Who?", "--context", folder / "Santiago.pdf"),
        ("ingest", tmp_path / "Santiago.txt"),
        ("Santiago",),
    ):
        code, shown = run(*wrong)
        assert code == 2
        check(shown)


OPEN = {
    Answer,
    Source,
    StructuredOutput,
    ScoredText,
    ScoredToken,
    ListedDocument,
    ElsewhereDocument,
    IngestProgress,
    ServiceState,
}
OPEN |= {api_documents.Document, api_documents.DocumentList, api_documents.SkippedFile}
OPEN |= {api_documents.IngestResult, api_documents.DeletedDocument, api_errors.Details}
OPEN |= {api_forgetting.ElsewhereDocument}
MADE_BY_THE_DOOR = {TokenTrace, SourceClaim, Verdict, Citation}


def leaves(annotation):
    """The types of which an annotation is made; a NewType counts as itself."""
    if isinstance(annotation, typing.NewType):
        yield annotation
    elif arguments := typing.get_args(annotation):
        if typing.get_origin(annotation) is typing.Literal:
            return
        if typing.get_origin(annotation) is dict:  # by fixed names
            arguments = arguments[1:]
        for each in arguments:
            yield from leaves(each)
    elif annotation not in (types.NoneType, Ellipsis):
        yield annotation


@pytest.mark.parametrize("kind", sorted(OPEN, key=lambda kind: kind.__name__))
def test_each_field_that_is_shown_has_a_type_that_says_that_it_was_cleared(kind):
    hints = typing.get_type_hints(kind)
    names = kind.model_fields if issubclass(kind, BaseModel) else [f.name for f in fields(kind)]
    for name in names:
        for leaf in leaves(hints[name]):
            assert leaf is not str, f"{kind.__name__}.{name}"
            assert leaf not in MADE_BY_THE_DOOR, f"{kind.__name__}.{name}"
            assert not is_dataclass(leaf) or leaf in OPEN, f"{kind.__name__}.{name}"


def test_a_name_is_withheld_and_a_sentence_about_something_else_is_not(full):
    _, over = full()
    clear = over.door.open()
    for name in ("Santiago", "santiago_01", "chileSantiago2", "SANTIAGO.txt", "S4ntiago"):
        assert clear.name(name) == "", name
        check(clear.line(f"{name}: it is empty"))
    assert clear.line("chileSantiago2.pdf: it is empty") == "chile…2.pdf: it is empty"
    for name in ("The Rhine", "1541", "Santander", "memory"):
        assert clear.name(name) == name
    said = "The games of 1975 were held in Santiago."
    assert clear.text(said) == said
    watched = clearing.Clearance(over.door, clear.redactor, over.ledger.records())
    assert watched.text(f"Chile is long. {said}") == "Chile is long."


def test_an_answer_without_a_letter_is_withheld_beside_its_subject_only(full):
    _, over = full()
    over.ledger.add([Record("Valdivia", relation="founding year", answers=("1541",))])
    clear = over.door.open()
    assert clear.name("1541") == "1541"
    assert clear.name("Valdivia, founding year 1541") == ""
    watched = clearing.Clearance(over.door, clear.redactor, over.ledger.records())
    assert watched.name("1541-02-12") == ""


def test_where_nothing_is_forgotten_everything_passes():
    clear = clearing.Door().open()
    assert clear.name("santiago") == clear.text("santiago") == clear.id("santiago") == "santiago"
