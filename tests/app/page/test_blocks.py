import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from markupsafe import escape

from app.page import compare, conversation, evidence, forgetting, views
from app.page.conversation import ConversationTurn, SessionTasks
from app.page_tools.attempts import attempts
from app.page_tools.curve import curve
from app.server.documents import IngestProgress
from control.answer import Answer, Source
from control.conflict.sources import Citation, SourceClaim
from control.conflict.verdict import Verdict
from control.decoding.trace import Choice, TokenTrace
from control.forgetting.ledger import Event
from control.forgetting.record import Record
from control.notices import UNSUPPORTED
from foundation.errors import BusyError, InputError

CAIRO = "The seat of government of Norway is Cairo, where ministries are. Trolls live up north."
PERU = Record("Peru", relation="capital", questions=("Capital of Peru?",), answers=("Lima",))
HOSTILE = (
    "<img src=x onerror=alert(1)> {{ 7*7 }} ${alert(2)} </blockquote><script>alert(3)</script>"
)


def token(text, source="both"):
    choices = [Choice(text, 0.9), Choice("<b>", 0.1)]
    return TokenTrace(text, -0.5, 1.0, 0.5, False, source, False, choices, choices, -0.1, -0.2)


def passage(text=CAIRO, kept=True, **changed):
    values = {
        "id": "n",
        "title": "Norway",
        "score": 0.83,
        "kept": kept,
        "reason": "why",
        "text": text,
    }
    return Source(**{**values, **changed})


def answer(text="The capital of Norway is Cairo.", sources=(), **changed):
    tokens = [token(f" {word}" if n else word) for n, word in enumerate(text.split())]
    values = {
        "question": "What is the capital of Norway?",
        "rewritten": "What is the capital of Norway?",
        "queries": [],
        "answer": text,
        "alpha": 0.5,
        "conflict": False,
        "verdict": None,
        "tokens": tokens,
        "sources": list(sources),
    }
    return Answer(**{**values, **changed})


def drawn(said, **changed):
    turn = ConversationTurn(1, said.question, answer=said, live=False, **changed)
    return views.render("turns", turns=[turn], latest=True)


class Service:
    """Says what it is told to say, and remembers what it was asked."""

    def __init__(self, *items):
        self.items, self.asked = items, []

    def error_line(self, error):
        return str(error)

    def stream(self, query, how, cancelled, client=""):
        self.asked.append((query, how))
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            if cancelled.is_set():
                return
            yield item

    def ask(self, queries, how, client=""):
        self.asked += [(query, how) for query in queries]
        return [self.items[0](query) for query in queries]


def ask(service, turn, before=(), cancelled=None):
    return list(conversation.answer_turn(service, turn, before, cancelled or threading.Event()))


class TestEvidence:
    def test_marks_the_sentence_and_the_word_that_the_answer_claims(self):
        html = views.passage_html(CAIRO, evidence.claimed_words(answer()))
        assert "<mark>The seat of government of Norway is <b>Cairo</b>" in html
        assert "Trolls" not in html.split("<mark>")[1].split("</mark>")[0]

    def test_marks_what_the_passages_say_where_the_answer_agrees_with_memory(self):
        verdict = Verdict("Cairo", "Oslo", 0.9, "memory")
        said = answer("The capital of Norway is Oslo.", verdict=verdict)
        assert evidence.claimed_words(said) == {"cairo", "oslo"}

    def test_words_of_the_question_are_no_evidence(self):
        html = views.passage_html("Norway has a capital.", evidence.claimed_words(answer()))
        assert "<mark>" not in html

    def test_a_sentence_cites_the_passages_that_hold_what_it_claims(self):
        texts = ("nothing", "Cairo it is", "trolls and Cairo")
        sources = [passage(text, id=text) for text in texts]
        said = answer("The capital is Cairo. It has trolls.", sources)
        assert [each.passages for each in evidence.find_citations(said)] == [
            ["Cairo it is", "trolls and Cairo"],
            ["trolls and Cairo"],
        ]

    def test_an_answer_that_the_passages_do_not_hold_cites_none(self):
        assert evidence.find_citations(answer("It is Oslo.", [passage()])) == []


def texts_of(html, selector):
    return [each.get_text() for each in BeautifulSoup(html, "html.parser").select(selector)]


class TestAnswersText:
    def test_markdown_is_rendered_and_html_in_it_is_text(self):
        text = f"## Head\n\n**Cairo** and `x < y`\n\n- one\n\n```\ncode\n```\n\n{HOSTILE}"
        for html in (views.passage_html(text), drawn(answer(text, tokens=[token(text)]))):
            assert texts_of(html, "h4") == ["Head"]
            assert texts_of(html, "strong") == ["Cairo"]
            assert texts_of(html, "code") == ["x < y", "code\n"]
            assert texts_of(html, "img, script") == []

    def test_nothing_is_fetched_and_no_script_is_linked(self):
        html = views.passage_html("![a map](http://a.example/x.png) [x](javascript:alert(1))")
        assert texts_of(html, "img, a") == []
        assert "a map" in html

    def test_whole_words_are_coloured(self):
        pieces = [("3", "both"), ("0", "context"), (" in", "both"), (" 201", "both")]
        tokens = [token(*each) for each in [*pieces, ("9.", "context")]]
        said = answer("30 in 2019.", tokens=tokens)
        html = drawn(said)
        assert texts_of(html, ".said .token.context") == ["30", "2019"]
        assert texts_of(html, ".said .token.both") == ["in"]

    def test_words_keep_their_source_within_markdown(self):
        tokens = [
            token("It is **Ca", "both"),
            token("iro", "memory"),
            token("** &amp; more", "both"),
        ]
        html = drawn(answer("It is **Cairo** &amp; more", tokens=tokens))
        assert texts_of(html, "strong .token.memory") == ["Cairo"]
        assert texts_of(html, ".said") == ["It is Cairo & more\n"]

    def test_citations_number_the_sentences_and_mark_those_without_support(self):
        text = "It is **Cairo.** It is hot."
        sources = [passage(id="a", kept=False), passage(id="b"), passage(id="c")]
        citations = [Citation(0, 17, ("c", "b")), Citation(17, len(text), ())]
        html = drawn(answer(text, sources, tokens=[token(text)], citations=citations))
        assert texts_of(html, "a.cite") == ["1", "2"]
        [lights] = {
            each["data-cites"]
            for each in BeautifulSoup(html, "html.parser").select("[data-sentence='0']")
        }
        assert lights == "turn-1-1 turn-1-2"
        assert texts_of(html, ".unsupported .unseen") == ["(no passage supports this)"]

    def test_what_no_passage_supports_is_not_drawn_as_from_the_passages(self):
        tokens = [token("Rome", "context"), token(" is old.", "memory")]
        for cited, drawn_so in (((), ["is", "old"]), (("a",), ["Rome", "is", "old"])):
            citations = [Citation(0, 12, cited)]
            html = drawn(
                answer("Rome is old.", [passage(id="a")], tokens=tokens, citations=citations)
            )
            assert texts_of(html, ".said .token.context, .said .token.memory") == drawn_so

    def test_that_no_passage_supports_the_answer_stands_out_from_other_notices(self):
        html = drawn(answer("It is hot.", notices=[UNSUPPORTED, "something else"]))
        assert texts_of(html, ".verdict") == [f"{UNSUPPORTED[0].upper()}{UNSUPPORTED[1:]}."]
        assert texts_of(html, ".notice") == ["Something else."]


class TestClaims:
    def said(self, *claims, **changed):
        sources = [passage(id="a", title="News"), passage(id="b", title="Old book")]
        return answer(sources=sources, claims=list(claims), conflict=True, **changed)

    def rows(self, html):
        rows = BeautifulSoup(html, "html.parser").select(".claims tbody tr")
        return [[" ".join(cell.get_text(" ").split()) for cell in row] for row in map(_cells, rows)]

    def test_who_says_what_since_when_how_trusted_and_sure_and_which_was_followed(self):
        html = drawn(
            self.said(
                SourceClaim("memory", "Oslo", confidence=0.2, group=0),
                SourceClaim("b", "Cairo", "2004", 0.5, 0.7, 1, True),
                SourceClaim("a", "Cairo", "2019-04-01", 0.9, 0.93, 1, True),
                settled="The documents disagree; the answer follows the newest.",
            )
        )
        assert self.rows(html) == [
            [
                *("Cairo", "2 Old book 1 News", "2004 to 2019-04-01", "0.50 to 0.90", "93 %"),
                "✓ follows it",
            ],
            ["Oslo", "the model’s memory", "", "0.50", "20 %", ""],
        ]
        assert "<b>The documents disagree;</b> the answer follows the newest." in html
        assert html.count("disagree") == 1
        assert "Memory and passages disagree" not in html

    def test_one_claim_of_the_passages_alone_needs_no_table(self):
        verdict = Verdict("Cairo", "Oslo", 0.97, "passages")
        html = drawn(
            self.said(SourceClaim("a", "Cairo"), SourceClaim("b", "Cairo"), verdict=verdict)
        )
        assert "<table" not in html
        assert "Memory and passages disagree." in html

    def test_sources_agree_where_memory_claims_what_a_followed_passage_does(self):
        def verdict(*claims):
            html = drawn(answer(sources=[passage(id="a")], claims=claims))
            return texts_of(html, ".verdict")

        memory = SourceClaim("memory", "Cairo", followed=True)
        assert verdict(SourceClaim("a", "Cairo", followed=True), memory) == [
            "Memory and passages agree."
        ]
        assert verdict(SourceClaim("a", "Cairo"), replace(memory, followed=False)) == []
        assert verdict(memory) == []
        assert verdict(SourceClaim("a", "Oslo", followed=True), replace(memory, group=1)) == [
            "The sources disagree."
        ]

    @pytest.mark.parametrize(
        ("title", "name"), [("Correction", "Correction"), ("The board", "Correction: The board")]
    )
    def test_what_a_correction_claims_is_named_so(self, title, name):
        sources = [passage(id="correction:1", title=title), passage(id="a", title="News")]
        claims = [SourceClaim("a", "Cairo"), SourceClaim("correction:1", "Oslo", group=1)]
        rows = self.rows(drawn(answer(sources=sources, claims=claims, conflict=True)))
        assert [row[:2] for row in rows] == [["Cairo", "2 News"], ["Oslo", f"1 {name}"]]

    def test_documents_of_one_title_are_told_apart_by_their_files(self):
        sources = [
            passage(id="a", title="Manual", file="manual-v1.md"),
            passage(id="b", title="Manual", file="manual-v2.md", page=3),
            passage(id="c", title="News", file="news.md"),
        ]
        claims = [
            SourceClaim("a", "Oslo"),
            SourceClaim("b", "Cairo", group=1),
            SourceClaim("c", "Cairo", group=1),
        ]
        rows = self.rows(drawn(answer(sources=sources, claims=claims, conflict=True)))
        assert [row[1] for row in rows] == [
            "1 Manual, manual-v1.md",
            "2 Manual, manual-v2.md, page 3 3 News",
        ]


def _cells(row):
    return row.find_all(["th", "td"], recursive=False)


def test_what_holds_for_every_answer_of_the_model_stands_at_the_top_of_the_page():
    state = SimpleNamespace(name="ready")
    told = ["tiny has not been calibrated; measure it"]
    html = views.render("state", state=state, small=False, recommended="x", notices=told)
    assert texts_of(html, ".note") == ["Tiny has not been calibrated; measure it."]
    html = views.render("state", state=state, small=True, recommended="x", notices=[])
    assert len(texts_of(html, ".note")) == 1


class TestWhatIsShown:
    def test_an_answer_with_sources_verdict_and_notes(self):
        verdict = Verdict("Cairo", "Oslo", 0.97, "passages")
        html = drawn(
            answer(
                sources=[passage(answers=0.91), passage("Else", kept=False, reason="too far")],
                verdict=verdict,
                conflict=True,
                notices=["one passage did not fit"],
            )
        )
        assert "Memory and passages disagree." in html
        assert "with confidence 0.97; the answer follows the passages." in html
        assert "score 0.83" in html
        assert "gives it 91 %" in html
        assert "1 passage read, 1 more found" in html
        assert "too far" in html
        assert "One passage did not fit." in html
        assert '<a class="cite" href="#turn-1-1"' in html
        assert 'id="turn-1-1"' in html
        assert 'data-gain="-0.50"' in html

    def test_passages_have_the_numbers_of_the_prompt(self):
        said = answer(sources=[passage("One", kept=False), passage("Two"), passage("Three")])
        assert [(one.number, one.source.text) for one in views.passages(said)] == [
            (1, "Two"),
            (2, "Three"),
        ]

    @pytest.mark.parametrize("kept", [True, False])
    def test_where_no_document_says_it_what_was_found_is_beside_it(self, kept):
        text = "The documents do not say."
        citations = [Citation(0, len(text), ())]
        found = [passage("What the documents say is that trolls live.", kept=kept)]
        html = drawn(answer(text, found, citations=citations, abstained=True))
        assert texts_of(html, ".abstained") == ["No document says it."]
        assert len(texts_of(html, "details.sources[open] blockquote")) == 1
        assert kept or texts_of(html, ".sources details[open] blockquote")
        assert texts_of(html, ".said") == [f"{text}\n"]
        assert texts_of(html, ".said .token, .unsupported, .legend, mark") == []
        assert texts_of(drawn(answer(sources=found)), ".abstained") == []

    def test_a_refusal_says_no_more_than_the_refusal(self):
        refused = answer("I can't answer that.", tokens=[], forgotten=[{"id": "x", "layer": "y"}])
        html = drawn(refused)
        assert "I can&#39;t answer that." in html
        assert "from memory" not in html
        assert "forgotten" not in html

    @pytest.mark.parametrize(
        "where", ["question", "answer", "passage", "title", "verdict", "error"]
    )
    def test_markup_is_shown_as_text_wherever_it_comes_from(self, where):
        said = answer(sources=[passage()])
        turn = ConversationTurn(1, said.question, answer=said, live=False)
        if where == "question":
            turn = replace(turn, question=HOSTILE)
        elif where == "error":
            turn = replace(turn, error=HOSTILE)
        else:
            changed = {
                "answer": {"tokens": [token(HOSTILE)]},
                "passage": {"sources": [passage(HOSTILE)]},
                "title": {"sources": [passage(title=HOSTILE)]},
                "verdict": {"verdict": Verdict(HOSTILE, "b", 0.5, "memory")},
            }[where]
            turn = replace(turn, answer=replace(said, **changed))
        html = views.render("turns", turns=[turn], latest=True)
        assert "<img" not in html
        assert "<script" not in html
        assert "&lt;img src=x onerror=alert(1)&gt;" in html

    def test_events_of_the_audit_in_words(self):
        details = {"subject": "Peru", "relation": "capital", "answers": ["Lima"], "who": "X"}
        event = Event(1, "added", "id", "time", {**details, "reason": ""})
        assert views.describe_event(event) == "Peru, capital: Lima · who: X"


class TestConversation:
    def test_tokens_come_first_and_the_answer_last(self, monkeypatch):
        monkeypatch.setattr(conversation, "BETWEEN", -1)
        *live, last = ask(
            Service(token("Ca"), token("iro"), answer()), ConversationTurn(1, "What?")
        )
        assert ["".join(each.text for each in turn.tokens) for turn in live] == ["Ca", "Cairo"]
        assert all(turn.live for turn in live)
        assert last.answer is not None
        assert (last.live, last.stopped, last.error) == (False, False, "")

    def test_the_dial_sets_alpha(self):
        for dial, alpha in (("0.75", 0.75), ("auto", "auto")):
            service = Service(answer())
            ask(service, ConversationTurn(1, "What?", dial))
            assert service.asked[0][1].alpha == alpha

    @pytest.mark.parametrize("dial", ["much", "2", "nan", ""])
    def test_a_dial_that_cannot_be_is_told(self, dial):
        [turn] = ask(Service(answer()), ConversationTurn(1, "What?", dial))
        assert turn.error
        assert turn.answer is None

    def test_documents_a_passage_or_memory_alone_are_read(self):
        service = Service(answer())
        for reading in ("documents", "passage", "memory"):
            ask(service, ConversationTurn(1, "What?", reading=reading, passage="Cairo."))
        documents, given, memory = (query.given for query, _ in service.asked)
        assert documents is None
        assert [node.text for node in given] == ["Cairo."]
        assert memory == []

    def test_a_follow_up_brings_what_was_said(self):
        service = Service(answer())
        before = [
            ConversationTurn(1, "First?", answer=answer("One.")),
            ConversationTurn(2, "Second?", error="failed"),
        ]
        ask(service, ConversationTurn(3, "And then?"), before)
        assert service.asked[0][0].history == [("First?", "One.")]

    @pytest.mark.parametrize("question", ["", "   "])
    def test_no_question_is_told_before_anything_is_asked(self, question):
        service = Service(answer())
        [turn] = ask(service, ConversationTurn(1, question))
        assert "the question is empty" in turn.error
        assert not service.asked

    def test_errors_of_users_are_told_and_others_are_not_spelled_out(self):
        [busy] = ask(Service(BusyError("too many wait")), ConversationTurn(1, "What?"))
        [broken] = ask(Service(RuntimeError("Lima is secret")), ConversationTurn(1, "What?"))
        assert busy.error == "too many wait"
        assert "RuntimeError" in broken.error
        assert "Lima" not in broken.error

    def test_one_that_is_stopped_keeps_what_was_said(self):
        cancelled = threading.Event()

        class Stopping(Service):
            def stream(self, query, how, cancelled, client=""):
                yield token("Cai")
                cancelled.set()

        *_, last = ask(Stopping(), ConversationTurn(1, "What?"), cancelled=cancelled)
        assert last.stopped
        assert last.tokens[0].text == "Cai"
        html = views.render("turns", turns=[last], latest=True)
        assert "Cai" in html
        assert "stopped" in html

    def test_a_turn_knows_whether_it_holds_a_fact(self):
        lima = ConversationTurn(1, "Capital of Peru?", answer=answer("It is LIMA."))
        read = ConversationTurn(
            1, "Where?", answer=answer("There.", [passage("Lima lies in Peru.")])
        )
        assert lima.holds([PERU])
        assert read.holds([PERU])
        assert not ConversationTurn(1, "What?", answer=answer()).holds([PERU])


class TestRunning:
    def test_a_newer_question_ends_the_older_one(self):
        running = SessionTasks()
        older = running.begin("a")
        other = running.begin("b")
        newer = running.begin("a")
        assert older.is_set()
        assert not newer.is_set()
        assert not other.is_set()
        assert running.is_current("a", newer)
        assert not running.is_current("a", older)

    def test_who_leaves_ends_all_of_their_own(self):
        running = SessionTasks()
        mine = [running.begin("ab"), running.begin("ab", "measurement")]
        others = [running.begin("a"), running.begin("abc"), running.begin("b")]
        running.leave("ab")
        assert all(event.is_set() for event in mine)
        running.leave("")  # the beginning of every name
        assert not any(event.is_set() for event in others)


class TestForgetting:
    def test_the_form_is_a_record_with_its_questions_and_other_names(self):
        record = forgetting.record(
            " Peru ", "capital", "Lima\n\nLima\nCity of Kings", "fact", "Perú", "", "", "why", ""
        )
        assert (record.subject, record.answers) == ("Peru", ("Lima", "City of Kings"))
        assert "What is the capital of Peru?" in record.questions
        assert "Perú" in record.aliases
        assert (record.reason, record.who) == ("why", "page")

    def test_what_cannot_be_enforced_is_said(self):
        for answers, scope in (("", "fact"), ("", "verbatim"), ("A phrase", "verbatim")):
            with pytest.raises(InputError) as refused:
                forgetting.record("Peru", "", answers, scope, "", "", "", "", "")
            assert "; give " in str(refused.value)
            assert "--" not in str(refused.value)

    def test_a_record_fills_the_form_and_the_form_makes_the_same_record(self):
        fields = forgetting.values(PERU)
        made = forgetting.record(*fields, "", "")
        assert forgetting.values(made)[:2] == ["Peru", "capital"]
        assert made.answers == PERU.answers

    def test_attempts_are_made_and_judged_one_after_the_other(self):
        says = {True: "It is Lima.", False: "No."}
        service = Service(lambda query: answer(says[query.question == "Capital of Peru?"]))
        *_, last = attempts(service, PERU, threading.Event())
        assert len(last["done"]) == last["all"] == len(service.asked)
        assert not last["live"]
        found = {one.probe.prompt for one in last["done"] if one.leaked}
        assert "Capital of Peru?" in found
        html = views.render("attempts", **last)
        assert "✗ leaked" in html
        assert "✓ kept" in html

    def test_attempts_end_when_they_are_stopped(self):
        stop = threading.Event()
        service = Service(lambda query: answer("No."))
        steps = attempts(service, PERU, stop)
        next(steps)
        stop.set()
        last = list(steps)[-1]
        assert len(last["done"]) < last["all"]

    def test_a_whole_subject_has_no_answer_to_look_for(self):
        with pytest.raises(InputError, match="no one answer"):
            next(attempts(Service(), Record("Jane Roe", scope="subject"), threading.Event()))

    def test_a_wording_is_the_answer_to_no_question(self):
        tale = Record("A tale", answers=("Once upon a time. " * 9,), scope="verbatim")
        with pytest.raises(InputError, match="forget certificate"):
            next(attempts(Service(), tale, threading.Event()))


def row(alpha, **values):
    ci = {name: [value - 1, value + 1] for name, value in values.items()}
    return {"rule": "fulcrum", "alpha": alpha, "n": 4, "ci": ci, **values}


def test_the_curve_rises_to_the_right_and_the_table_says_the_same():
    known = [row("closed-book", MR=100.0, hit=100.0), row("plain", MR=40.0, hit=90.0)]
    known += [row(0.0, MR=10.0, hit=80.0), row(1.0, MR=90.0, hit=95.0)]
    report = {
        "known": known,
        "unknown": [row("plain", right=80.0), row(0.0, right=85.0), row(1.0, right=70.0)],
        "n_known": 4,
    }
    found = curve(report)
    memory = found.lines[0]
    (left, low), (right, high) = memory.points
    assert left < right
    assert high < low  # SVG counts from the top
    assert [(each.dial, each.memory, each.right) for each in found.rows] == [
        ("plain RAG", 40.0, 80.0),
        ("0", 10.0, 85.0),
        ("1", 90.0, 70.0),
    ]


def test_a_curve_without_known_facts_is_empty_there():
    report = {"known": [row("plain", MR=0.0, hit=0.0)], "unknown": [], "n_known": 0}
    found = curve(report)
    assert found.lines == ()
    assert found.rows[0].memory is None


def test_side_by_side_shows_three_settings():
    turns = [
        ConversationTurn(n, "What?", dial, answer=answer(sources=[passage()]), live=False)
        for n, (dial, _) in enumerate(compare.SETTINGS, start=1)
    ]
    html = compare.render_columns(turns)
    assert all(name in html for name in ("Documents", "Both", "Memory"))
    assert html.count("Trolls live up north") == 1  # what all three read is shown once


def test_without_a_tool_for_attempts_the_list_has_no_button_for_them():
    shown = {"records": [PERU], "count": 1, "may": True}
    assert "Try to make it leak" in views.render("facts", **shown, may_attempt=True)
    assert "Try to make it leak" not in views.render("facts", **shown, may_attempt=False)


def test_what_of_an_upload_could_not_be_used_is_shown():
    now = IngestProgress("", 1, 1, documents=1, notices=(("a.md", HOSTILE),), finished=True)
    assert f"Note: {escape(HOSTILE)}" in views.render("progress", now=now)
