import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import factory
from control.answer import Answer
from control.decoding.generate import Decoding
from control.engines.scheduler import Cancelled
from control.forgetting.record import Record
from control.state import Query
from foundation.errors import ClosingError, InputError, ModelError
from tests.app.conftest import count_forwards

HOW = Decoding(max_new_tokens=16)
LONG = Decoding(rule="plain", max_new_tokens=200)
CHILE = Record("Chile", relation="capital", answers=("Santiago",))


def tokens(items):
    return "".join(item.text for item in items if not isinstance(item, Answer))


def test_a_stream_tells_the_tokens_and_then_the_answer(service):
    *streamed, answer = service().stream(Query("Who?", ()), HOW)
    assert isinstance(answer, Answer)
    assert tokens(streamed).strip() == answer.answer
    assert len(streamed) == len(answer.tokens) == 16


def test_a_batch_is_answered_as_a_stream_is(service):
    one = service()
    answers = one.ask([Query("Who?", ()), Query("Where?", ())], HOW)
    *_, alone = one.stream(Query("Where?", ()), HOW)
    assert answers[1].answer == alone.answer


def test_a_closed_stream_ends_the_decoding(service):
    one = service()
    forwards = count_forwards(one)
    stream = one.stream(Query("Who?", ()), LONG)
    next(stream)
    stream.close()
    one.run(lambda: None)  # its turn comes after the one that was given up
    assert forwards[0] < 100


def test_a_set_event_ends_the_decoding_without_an_answer(service):
    one = service()
    forwards = count_forwards(one)
    cancelled = threading.Event()
    got = []
    for item in one.stream(Query("Who?", ()), LONG, cancelled):
        got.append(item)
        cancelled.set()
    one.run(lambda: None)
    assert forwards[0] < 100
    assert not any(isinstance(item, Answer) for item in got)


def test_a_default_answer_is_given_up_before_its_first_token_is_certain(service, tmp_path):
    one = service()
    forwards = count_forwards(one, lambda count: count == 3 and cancelled.set())
    cancelled = threading.Event()
    assert list(one.stream(Query("Who?", ()), Decoding(max_new_tokens=200), cancelled)) == []
    one.run(lambda: None)
    assert forwards[0] < 100


def test_scoring_is_ended_by_its_event_and_by_the_closing(service):
    one = service()
    assert len(one.score(["Who?"]).result()[0].tokens) == 4
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        one.score(["Who?"], cancelled=cancelled).result()
    one.abandon()
    with pytest.raises(ClosingError):
        one.score(["Who?"]).result()


def test_a_question_that_cannot_be_answered_says_why(service):
    with pytest.raises(InputError, match="empty"):
        list(service().stream(Query("  "), HOW))


def test_until_it_is_loaded_questions_are_refused_and_the_ledger_works(service):
    early = service(loaded=False)
    assert early.state.name == "loading"
    with pytest.raises(ModelError, match="being loaded"):
        next(early.stream(Query("Who?"), HOW))
    early.forget([CHILE])
    assert [record.subject for record in early.ledger.records()] == ["Chile"]
    early.load()
    assert early.ask([Query("Who?", ())], HOW)


def test_a_model_that_cannot_be_loaded_is_told_and_nothing_breaks(service, tmp_path, monkeypatch):
    from app import factory
    from control.engines import transformers

    monkeypatch.setattr(
        factory, "language_model", lambda _: transformers.load("nowhere.gguf", tmp_path)
    )
    broken = service(loaded=False)
    broken.load()
    assert broken.state.name == "failed"
    assert "nowhere.gguf" in broken.state.message
    with pytest.raises(ModelError, match=r"nowhere\.gguf"):
        broken.ask([Query("Who?")], HOW)
    assert broken.documents.listed() == []


def test_an_error_that_nobody_foresaw_while_loading_is_told_without_its_text(service, monkeypatch):
    from app import factory

    def fail(_):
        raise RuntimeError("Santiago")

    monkeypatch.setattr(factory, "language_model", fail)
    broken = service(loaded=False)
    broken.load()
    assert broken.state.name == "failed"
    assert "RuntimeError" in broken.state.message
    assert "Santiago" not in broken.state.message


def test_uploaded_files_are_stored_without_what_is_forgotten(service, tmp_path):
    one = service(loaded=False)
    notes, broken = tmp_path / "notes.md", tmp_path / "broken.pdf"
    notes.write_text("# Peru\n\nPeru is high. Lima is the capital of Peru.", "utf-8")
    broken.write_bytes(b"%PDF nonsense")
    [kept] = one.forget([Record("Peru", relation="capital", answers=("Lima",))])
    assert [*one.documents.ingest([notes, broken])][-1].documents == 1

    def stored():
        [node] = factory.passage_index(one.settings).all_nodes()
        return node.text

    assert "Peru is high." in stored()
    assert "Lima" not in stored()
    one.unforget(kept.id)
    one.sweep()
    assert "Lima is the capital of Peru." in stored()


def test_files_are_ingested_listed_and_removed(service, tmp_path):
    one = service()
    notes, broken = tmp_path / "notes.md", tmp_path / "broken.pdf"
    notes.write_text("# Rhine\n\nThe Rhine is long.", "utf-8")
    broken.write_bytes(b"%PDF nonsense")
    *before, last = one.documents.ingest([notes, broken], trust=0.9)
    assert [item.file for item in before] == ["notes.md", "notes.md", "broken.pdf"]
    assert last.finished
    assert (last.read, last.documents, last.passages) == (2, 1, 1)
    [(name, reason)] = last.skipped
    assert name == "broken.pdf"
    assert "PDF" in reason
    assert str(tmp_path) not in reason
    [document] = one.documents.listed()
    assert (document.title, document.source, document.trust) == ("Rhine", "notes.md", 0.9)
    assert (
        one.documents.listed(search=" RHINE") == one.documents.listed(search="notes") == [document]
    )
    assert one.documents.listed(search="Danube") == []
    assert one.documents.passages(document.id, 5) == ["The Rhine is long."]
    assert one.documents.remove(document.id) == 1
    assert one.documents.remove(document.id) == 0
    assert one.documents.count() == 0


def test_what_of_a_file_could_not_be_used_is_told_without_what_is_forgotten(service, tmp_path):
    one = service(loaded=False)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "It is long.", "date": "Santiago"}\n', "utf-8")
    [*_, last] = one.documents.ingest([path])
    [(name, reason)] = last.notices
    assert (name, last.documents, last.skipped) == ("a.jsonl", 1, ())
    assert "'Santiago' is none" in reason
    one.forget([CHILE])
    [*_, last] = one.documents.ingest([path])
    [(_, reason)] = last.notices
    assert "Santiago" not in reason


def test_the_same_file_under_another_name_is_recognised(service, tmp_path):
    one = service()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("The Rhine is long.", "utf-8")
        *_, last = one.documents.ingest([tmp_path / name])
    assert (last.documents, last.duplicates) == (0, 1)


def test_forgetting_redacts_what_is_stored_and_removing_brings_it_back(service, tmp_path):
    one = service()
    path = tmp_path / "chile.md"
    path.write_text("# The capital of Chile is Santiago\n\nChile has a coast.", "utf-8")
    list(one.documents.ingest([path]))
    [record] = one.forget([CHILE])
    one.sweep()
    [document] = one.documents.listed()
    assert "Santiago" not in document.title
    assert one.documents.listed(search="Santiago") == []
    assert "Santiago" not in "".join(one.documents.passages(document.id, 5))
    one.unforget(record.id)
    one.sweep()
    [document] = one.documents.listed()
    assert "Santiago" in document.title


def test_two_at_once_forget_the_same_and_other_facts_once_each(service):
    one = service()
    facts = [CHILE, Record("Peru", relation="capital", answers=("Lima",))]
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda number: one.forget([facts[number % 2]])[0].id, range(16)))
    assert len(set(kept)) == len(one.ledger.records()) == 2
    assert one.ledger.verify() is None


def test_a_closed_service_refuses_what_comes(service):
    one = service()
    one.close()
    with pytest.raises(ClosingError, match="shutting down"):
        one.ask([Query("Who?")], HOW)


def test_tokens_are_counted_as_the_model_does(service, tiny):
    one = service()
    assert one.tokens("abc def") == len(tiny.tokenizer("abc def").input_ids)


def at_once(service, queries, how=HOW):
    """Futures of questions that several clients ask while another answer is under way."""
    go = threading.Event()
    busy = service._queue.submit(go.wait)
    futures = [
        service.submit([query], how, client=str(number)) for number, query in enumerate(queries)
    ]
    go.set()
    busy.result()
    return futures


def test_clients_that_ask_at_once_share_their_steps_and_hear_what_they_would_alone(service):
    one = service()
    queries = [Query(question, ()) for question in ("Who?", "Where is it?", "Why then?")]
    alone = [one.ask([query], HOW)[0].answer for query in queries]
    forwards = count_forwards(one)
    one.ask(queries[:1], HOW)
    of_one, forwards[0] = forwards[0], 0
    futures = at_once(one, queries)
    assert [future.result()[0].answer for future in futures] == alone
    assert forwards[0] <= of_one + 2  # each reads its own question


def test_who_comes_later_joins_and_is_done_before_a_long_answer(service):
    one = service()
    query = Query("Where is it?", ())
    alone = one.ask([query], HOW)[0].answer
    length = len(one.ask([Query("Who?", ())], LONG)[0].tokens)
    forwards = count_forwards(one)
    long = one.stream(Query("Who?", ()), LONG, client="a")
    for _ in range(3):
        next(long)
    assert one.ask([query], HOW, client="b")[0].answer == alone
    seen = forwards[0]
    *_, answer = long
    assert len(answer.tokens) == length
    assert seen < length  # the long one was still under way
    assert forwards[0] <= length + 2  # and nobody had steps of their own


def test_who_leaves_ends_nobody_else_s_answer(service):
    one, left = service(), threading.Event()
    expected = one.ask([Query("Who?", ())], LONG)[0].answer
    leaving = one.stream(Query("Where?", ()), LONG, left, client="a")
    next(leaving)
    staying = one.submit([Query("Who?", ())], LONG, client="b")
    left.set()
    assert not any(isinstance(item, Answer) for item in leaving)
    assert staying.result()[0].answer == expected


def test_each_client_of_a_batch_hears_its_own_tokens(service):
    one, heard = service(), {"a": [], "b": []}
    go = threading.Event()
    one._queue.submit(go.wait)
    futures = {
        name: one.submit(
            [Query(question, ())],
            HOW,
            lambda place, token, name=name: heard[name].append((place, token.text)),
            client=name,
        )
        for name, question in (("a", "Who?"), ("b", "Where is it?"))
    }
    go.set()
    for name, future in futures.items():
        [answer] = future.result()
        assert heard[name] == [(0, token.text) for token in answer.tokens]


def test_a_question_that_cannot_be_answered_fails_alone(service):
    fine, failing = at_once(service(), [Query("Who?", ()), Query("  ", ())])
    assert fine.result()[0].answer
    with pytest.raises(InputError, match="empty"):
        failing.result()


def test_a_client_that_leaves_before_its_turn_is_not_answered(service):
    one, go, left = service(), threading.Event(), threading.Event()
    one._queue.submit(go.wait)
    leaving = one.submit([Query("Who?", ())], HOW, cancelled=left, client="a")
    staying = one.submit([Query("Where?", ())], HOW, client="b")
    left.set()
    go.set()
    assert staying.result()[0].answer
    assert leaving.done()
