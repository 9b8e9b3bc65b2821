"""What passages claim, and the answers that follow it, list it, cite it or give way to it."""

import math
import re
from dataclasses import replace
from datetime import date, timedelta

import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode

from app import factory
from control.assistant import Assistant
from control.conflict import dial, passage_drafts
from control.conflict.calibration import Thresholds
from control.conflict.reader import Reading
from control.conflict.sources import Citation, SourceOptions
from control.conflict.verdict import DecodedAnswer, Verdict
from control.decoding.trace import written
from control.notices import NOT_SAID, NOT_YET, OUTDATED, UNSUPPORTED
from control.state import Query
from foundation import trace
from foundation.errors import InputError
from tests.control.fakes import HOW, NEW, OLD, DaysReader, FixedRetriever, dated, notices


@pytest.fixture
def reading(tiny, always):
    """An assistant with a reader, asked about given passages."""
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=DaysReader())

    def ask(given, on_token=None, question="How long?", **options):
        sources = SourceOptions(**options)
        return assistant.ask(question, HOW, given, on_token=on_token, sources=sources)

    return ask


def test_of_documents_that_disagree_the_newest_is_read_and_both_are_shown(reading):
    heard = []
    answer = reading(dated(old=OLD, new=NEW), lambda _, token: heard.append(token.text))
    assert answer.answer == "You have 30 days."  # the model itself writes something else
    assert "".join(heard).strip() == answer.answer
    assert [(c.source, c.says, c.date, c.followed) for c in answer.claims] == [
        ("old", "14 days", "2022", False),
        ("new", "30 days", "2025", True),
    ]
    assert "newest" in answer.settled
    assert [source.kept for source in answer.sources] == [False, True]
    assert "not follow" in answer.sources[0].reason


def test_a_document_to_come_is_told_and_not_followed_yet(reading):
    day = (date.today() + timedelta(days=40)).isoformat()
    answer = reading(dated(old=OLD, new=(day, "You have 30 days.")))
    assert answer.answer == "You have 14 days."
    assert "not yet in force" in answer.settled
    assert [(c.says, c.followed) for c in answer.claims] == [("14 days", True), ("30 days", False)]
    assert not any("not yet in force" in each for each in notices(answer))
    alone = reading(dated(new=(day, "You have 30 days.")))
    assert NOT_YET.format(date=day) in notices(alone)


@pytest.mark.parametrize(("reader_bar", "claim"), [(math.inf, "14 days"), (0.1, "30 days")])
def test_a_model_that_was_measured_to_misread_is_not_asked_what_passages_answer(
    tiny, always, monkeypatch, reader_bar, claim
):
    calibration = always(1, model=tiny.identity, reader_bar=reader_bar)
    assistant = Assistant(tiny, calibration, reader=DaysReader())
    said = "You may open it for 30 days. You may return it for 14 days."
    given = dated(old=("2022", "You have 7 days."), new=("2025", said))
    answered = {"old": "7 days", "new": "14 days"}

    def reread(model, asked, embed_model):
        assert (model, embed_model) == (tiny, None)
        return [
            [(node, replace(each, answer=answered[node.node_id])) for node, each in read]
            for _, read in asked
        ]

    monkeypatch.setattr(passage_drafts, "reread", reread)
    answer = assistant.ask("How long?", HOW, given)
    assert [(c.says, c.followed) for c in answer.claims] == [("7 days", False), (claim, True)]


@pytest.mark.parametrize(
    ("title", "date", "told"),
    [("rules 2", "2025-03", True), ("rules 2", "2021", False), ("minutes", "2025-03", False)],
)
def test_that_a_later_document_of_the_title_claims_nothing_is_told(reading, title, date, told):
    rules = {"rules 0": ("2020", "You have 7 days."), "rules 1": ("2022", "You have 14 days.")}
    answer = reading(dated(**rules, **{title: (date, "It rains.")}))
    assert answer.answer == "You have 14 days."
    expected = [OUTDATED.format(title="rules 2", dated=" (2025-03)")]
    assert [each for each in notices(answer) if "later" in each] == (expected if told else [])


def test_that_a_later_document_claims_nothing_is_not_told_of_the_time_that_is_asked_about(reading):
    rules = {"rules 0": ("2020", "You have 7 days."), "rules 1": ("2022", "You have 14 days.")}
    rules["rules 2"] = ("2025", "It rains.")
    answer = reading(dated(**rules), question="How long was it in 2022?")
    assert answer.answer == "You have 14 days."
    assert not any("later" in each for each in notices(answer))


def test_a_later_document_that_claims_something_leaves_no_doubt(reading):
    silent = ("2023", "It rains.")
    answer = reading(dated(**{"rules 1": OLD, "rules 2": silent, "rules 3": NEW}))
    assert answer.answer == "You have 30 days."
    assert not any("later" in each for each in notices(answer))


def test_where_nothing_decides_every_claim_is_told_with_its_source_and_cited(reading):
    heard = []
    answer = reading(
        dated(one=("", OLD[1]), two=("", NEW[1])), lambda _, token: heard.append(token.text)
    )
    assert "14 days (one)" in answer.answer
    assert "30 days (two)" in answer.answer
    assert "".join(heard).strip() == answer.answer
    assert "nothing decides" in answer.settled
    assert [claim.followed for claim in answer.claims] == [True, True]
    assert [source.kept for source in answer.sources] == [True, True]
    cited = {answer.answer[c.start : c.end]: list(c.passages) for c in answer.citations}
    assert cited == {"- 14 days (one)": ["one"], "- 30 days (two)": ["two"]}


def test_where_nothing_decides_and_a_system_message_says_how_to_answer_the_model_answers(
    tiny, always
):
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=DaysReader())
    given = dated(one=("", OLD[1]), two=("", NEW[1]))
    [answer] = assistant.ask_batch([Query("How long?", given, system="Answer in verse.")], HOW)
    assert "days" not in answer.answer  # the random model says nothing of the kind
    assert "nothing decides" in answer.settled
    assert [claim.followed for claim in answer.claims] == [False, False]


def test_by_the_policy_all_every_claim_is_told_and_streamed_once(reading):
    heard = []
    answer = reading(
        dated(one=("", OLD[1]), two=("", NEW[1])),
        lambda _, token: heard.append(token.text),
        policy="all",
    )
    assert "14 days (one)" in answer.answer
    assert "30 days (two)" in answer.answer
    assert "".join(heard).strip() == answer.answer


def test_from_documents_alone_nothing_is_answered_that_none_of_them_claims(reading):
    answer = reading(dated(one=("", "Nothing of the kind.")), only_documents=True)
    assert answer.abstained
    assert answer.answer == "The documents do not say."
    assert [source.id for source in answer.sources] == ["one"]
    assert not reading(dated(one=("", "Nothing of the kind."))).abstained
    assert not any("memory" in notice for notice in reading(None, only_documents=True).notices)


def test_from_documents_alone_an_answer_that_claims_something_else_gives_way_to_the_passage(
    reading,
):
    answer = reading(dated(one=("", "It rains. You have 14 days. Bye.")), only_documents=True)
    assert answer.answer == "You have 14 days."
    assert not answer.abstained


FARES = """\
Ticket: Single Ostervik - Tarnholm; Adult (EUR): 6.40; Child (EUR): 3.20; Valid: day of issue
Ticket: Return Ostervik - Tarnholm; Adult (EUR): 11.00; Child (EUR): 5.50; Valid: 7 days"""


@pytest.mark.parametrize(
    ("question", "says", "told"),
    [
        (
            "What does a single ticket from Ostervik to Tarnholm cost for an adult?",
            "6.40",
            "Single Ostervik - Tarnholm: Adult (EUR) 6.40",
        ),
        (
            "What does a child pay for a return ticket from Ostervik to Tarnholm?",
            "5.50",
            "Return Ostervik - Tarnholm: Child (EUR) 5.50",
        ),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_of_a_table_the_cell_is_told_with_its_column_and_what_names_its_row_and_is_cited(
    tiny, always, alone, question, says, told
):
    class Cell:
        """Finds the cell in the passage, and nothing in what the random model writes."""

        def read(self, asked):
            return [
                Reading(says, text.index(says), 0.999) if says in text else Reading(answers=0.1)
                for _, text in asked
            ]

    never = Thresholds(memory=1.01, passages=0.0)
    calibration = always(0, model=tiny.identity, end=never, reader_bar=0.9)
    assistant = Assistant(tiny, calibration, reader=Cell(), support=factory.support())
    given, how = dated(fares=("", FARES)), replace(HOW, max_new_tokens=60)
    answer = assistant.ask(question, how, given, sources=SourceOptions(only_documents=alone))
    written_words = [re.findall(r"\w+", text) for text in (answer.answer, told)]
    assert written_words[0] == written_words[1]  # the tiny tokenizer has not every sign
    assert {each.passages for each in answer.citations} == {("fares",)}


def test_a_row_of_a_table_is_told_whole_where_its_cell_alone_could_not_be_cited(tiny, always):
    calibration = always(1, model=tiny.identity)
    assistant = Assistant(tiny, calibration, reader=DaysReader(), support=Doubting())
    answer = assistant.ask(
        "How long is the return ticket to Tarnholm valid?",
        HOW,
        dated(fares=("", FARES)),
        sources=SourceOptions(only_documents=True),
    )
    assert answer.answer == FARES.splitlines()[1]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_of_a_model_that_reads_worse_than_the_reader_a_misread_answer_gives_way_to_the_passage(
    tiny, always, alpha
):
    heard = []

    def ask(bar, system="", **texts):
        # never sure of memory, and an unsupported answer may stay
        thresholds = Thresholds(memory=1.01, passages=0.0)
        calibration = always(
            0, model=tiny.identity, end=thresholds, memory_bar=math.inf, reader_bar=bar
        )
        assistant, how = (
            Assistant(tiny, calibration, reader=DaysReader()),
            replace(HOW, alpha=alpha, max_new_tokens=40),
        )
        tell = lambda _, token: heard.append(token.text)  # noqa: E731
        query = Query("How long?", dated(**texts), system=system)
        return assistant.ask_batch([query], how, tell)[0]

    answer = ask(0.9, one=("", "It rains. You have 14 days. Bye."))
    assert answer.answer == "You have 14 days."
    assert "".join(heard).strip() == answer.answer
    assert [(claim.source, claim.followed) for claim in answer.claims] == [("one", True)]
    assert notices(answer) == []
    undecided = {"one": ("", OLD[1]), "two": ("", NEW[1])}
    assert ask(0.9, **undecided).answer.count("days") == 2
    if alpha:  # at 0 what is not supported gives way anyway
        one = ("", "You have 14 days.")
        assert "days" not in ask(1.0, one=one).answer
        assert "days" not in ask(0.9, system="Say anything.", one=one).answer


class UnsureReader(DaysReader):
    """Finds a number of days, and doubts that it answers."""

    def read(self, asked):
        return [replace(each, answers=min(each.answers, 0.4)) for each in super().read(asked)]


@pytest.mark.parametrize(("bar", "told"), [(0.3, True), (0.5, False)])
def test_what_comes_nearest_to_a_claim_is_told_where_the_model_reads_worse_and_a_notice_says_so(
    tiny, always, bar, told
):
    calibration = always(
        0,
        model=tiny.identity,
        end=Thresholds(memory=1.01, passages=0.0),  # an unsupported answer may stay
        memory_bar=math.inf,
        reader_bar=bar,
    )
    assistant = Assistant(tiny, calibration, reader=UnsureReader())
    given = dated(one=("", "It rains. You have 14 days. Bye."))
    how = replace(HOW, max_new_tokens=40)
    answer = assistant.ask("How long?", how, given)
    assert (answer.answer == "You have 14 days.") == told
    assert any("nearest" in notice for notice in notices(answer)) == told
    assert answer.claims == []
    assert "days" not in assistant.ask("How long?", replace(how, alpha=0.8), given).answer
    [instructed] = assistant.ask_batch([Query("How long?", given, system="In verse.")], how)
    assert "days" not in instructed.answer
    alone = assistant.ask("How long?", how, given, sources=SourceOptions(only_documents=True))
    assert alone.abstained


def test_an_answer_that_gives_way_leaves_no_conflict_where_memory_agrees_with_the_document(
    tiny, always, monkeypatch
):
    def decoded(memory_says):
        verdict = Verdict("7 days", memory_says, 0.2, "passages")
        return DecodedAnswer(written("You have 7 days."), True, verdict)

    assistant = Assistant(tiny, always(0, model=tiny.identity), reader=DaysReader())
    verdicts = []
    for says in ("30 days", "60 days"):
        monkeypatch.setattr(dial, "answer", lambda *_, says=says, **__: [decoded(says)])
        answer = assistant.ask("How long?", HOW, dated(old=OLD, new=NEW))
        assert answer.answer == "You have 30 days."
        verdicts.append((answer.conflict, answer.verdict))
    assert verdicts == [(False, None), (True, Verdict("30 days", "60 days", 0.2, "passages"))]


def test_of_documents_alone_that_nothing_decides_between_every_claim_is_told(reading):
    given = dated(one=("", "You have 14 days."), two=("", "You have 30 days."))
    answer = reading(given, only_documents=True)
    assert answer.answer.count("days") == 2
    assert [claim.followed for claim in answer.claims] == [True, True]


def test_memory_that_claims_what_one_of_the_documents_does_contradicts_none(
    tiny, always, monkeypatch
):
    given = dated(one=("", "You have 14 days."), two=("", "You have 30 days."))
    assistant = Assistant(tiny, always(0, model=tiny.identity), reader=DaysReader())
    found = []
    for says in ("30 days", "60 days"):
        verdict = Verdict("14 days", says, 0.2, "passages")
        decoded = DecodedAnswer(written("You have 14 days."), True, verdict)
        monkeypatch.setattr(dial, "answer", lambda *_, each=decoded, **__: [each])
        answer = assistant.ask("How long?", HOW, given)
        assert answer.answer.count("days") == 2
        found.append((answer.conflict, answer.verdict is not None))
    assert found == [(False, False), (True, True)]


class BestAlone(BaseNodePostprocessor):
    """Keeps the first passage."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        for node in nodes:
            trace.verdict(node.node_id, 0.1, node is nodes[0])
        return nodes[:1]


@pytest.mark.parametrize(
    ("bar", "reader", "told"),
    [
        (0.3, UnsureReader(), "comes nearest"),
        (0.3, DaysReader(), "the filter had left out"),
        (math.inf, UnsureReader(), ""),
    ],
)
def test_what_the_filter_drops_may_come_nearest_where_the_model_reads_worse(
    tiny, always, bar, reader, told
):
    calibration = always(
        0,
        model=tiny.identity,
        end=Thresholds(memory=1.01, passages=0.0),
        memory_bar=math.inf,
        reader_bar=bar,
    )
    assistant = Assistant(
        tiny,
        calibration,
        retriever=FixedRetriever("It rains.", "You have 14 days."),
        processors=(BestAlone(),),
        reader=reader,
    )
    answer = assistant.ask("How long?", replace(HOW, max_new_tokens=40))
    assert (answer.answer == "You have 14 days.") == bool(told)
    assert [source.kept for source in answer.sources] == [True, bool(told)]
    first, dropped = (source.reason for source in answer.sources)
    assert first == "read by the model"
    assert ("the filter had left it out" in dropped) == bool(told)
    assert not told or any(told in notice for notice in notices(answer))
    alone = assistant.ask("How long?", HOW, sources=SourceOptions(only_documents=True))
    assert alone.abstained


def test_what_is_dated_later_than_the_day_asked_for_takes_no_other_passage_s_place(tiny, always):
    class Found(FixedRetriever):
        def _retrieve(self, query_bundle):
            return dated(new=NEW, old=("", OLD[1]))

    calibration = always(0, model=tiny.identity)
    assistant = Assistant(tiny, calibration, Found(), processors=[BestAlone()], reader=DaysReader())
    now = assistant.ask("How long?", HOW)
    assert [claim.says for claim in now.claims] == ["30 days"]
    then = assistant.ask("How long?", HOW, sources=SourceOptions(as_of="2023"))
    assert {claim.says for claim in then.claims} == {"14 days", "30 days"}
    assert [source.kept for source in then.sources] == [False, True]
    assert "dated later" in then.sources[0].reason


class Undated(DaysReader):
    """Finds nothing where the question names a year."""

    def read(self, asked):
        found = super().read(asked)
        return [
            Reading() if "2023" in question else each
            for (question, _), each in zip(asked, found, strict=True)
        ]


def test_what_held_at_the_date_of_the_question_is_claimed_by_documents_that_do_not_name_it(
    tiny, always
):
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=Undated())
    answer = assistant.ask("How long was it in 2023?", HOW, dated(old=OLD, new=NEW))
    assert [(claim.source, claim.says) for claim in answer.claims] == [("old", "14 days")]


def test_what_held_before_a_year_is_not_answered_from_a_document_of_that_year(reading):
    given = dated(old=OLD, of_that_year=("2023-02-01", "You have 21 days."), new=NEW)
    reading_of = {
        asked: reading(given, question=f"How long was it {asked} 2023?").answer
        for asked in ("before", "in", "after")
    }
    assert reading_of == {
        "before": "You have 14 days.",
        "in": "You have 21 days.",
        "after": "You have 30 days.",
    }


def test_a_date_in_place_of_the_time_that_a_document_claims_gives_way_to_it(tiny, always):
    class Confused:
        """Reads the time in the passage, and a date in what the model writes."""

        def read(self, asked):
            return [
                Reading("6:30", text.index("6:30"), 0.999)
                if "6:30" in text
                else Reading("1 September 2021", 0, 0.999)
                for _, text in asked
            ]

    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=Confused())
    given = dated(one=("", "It opens at 6:30."))
    sources = SourceOptions(only_documents=True)
    assert assistant.ask("When?", HOW, given, sources=sources).answer == "It opens at 6:30."


class Citing:
    """Finds every sentence supported by every passage."""

    def cite(self, text, passages):
        return [Citation(0, len(text), tuple(name for name, _ in passages))]


class Doubting:
    """Finds no sentence supported."""

    def cite(self, text, _passages):
        return [Citation(0, len(text))]


class Wary:
    """Finds each sentence supported by the first passage alone."""

    def cite(self, text, passages):
        ends = [match.end() for match in re.finditer(r"[.]", text)]
        spans = zip([0, *ends], ends, strict=False)
        return [Citation(start, end, (passages[0][0],)) for start, end in spans]


@pytest.mark.parametrize("policy", ["majority", None])
def test_all_documents_that_claim_what_a_sentence_does_are_cited_for_it(
    tiny, always, monkeypatch, policy
):
    decoded = DecodedAnswer(written("It rains. You have 14 days."), False, None)
    monkeypatch.setattr(dial, "answer", lambda *_, **__: [decoded])
    assistant = Assistant(tiny, always(0, model=tiny.identity), reader=DaysReader(), support=Wary())
    given = dated(
        one=("2023", "You have 14 days."),
        two=("2022", "It takes 14 days at most."),
        three=("2021", "You have 30 days."),
    )
    answer = assistant.ask("How long?", HOW, given, sources=SourceOptions(policy))
    assert {answer.answer[c.start : c.end].strip(): list(c.passages) for c in answer.citations} == {
        "It rains.": ["one"],
        "You have 14 days.": ["one", "two"],
    }


class Telling(DaysReader):
    """Finds a number of days, and is sure that a text without one answers nothing."""

    def read(self, asked):
        return [each if each.answer else Reading() for each in super().read(asked)]


@pytest.mark.parametrize(
    ("said", "cites", "cited"),
    [
        ("You have 14 days.", Citing(), [["one"]]),
        ("You have 21 days.", Citing(), [[]]),
        ("It rains.", Citing(), [["two"]]),  # which claims nothing that the answer lacks
        ("14 days", Doubting(), [["one"]]),
    ],
)
def test_a_sentence_that_answers_is_cited_by_passages_that_answer(
    tiny, always, monkeypatch, said, cites, cited
):
    decoded = DecodedAnswer(written(said), False, None)
    monkeypatch.setattr(dial, "answer", lambda *_, **__: [decoded])
    assistant = Assistant(tiny, always(0, model=tiny.identity), reader=Telling(), support=cites)
    given = dated(one=("", "You have 14 days."), two=("", "The library has 300 books."))
    answer = assistant.ask("How long?", HOW, given)
    assert [list(each.passages) for each in answer.citations] == cited


def test_a_sentence_whose_answer_was_redacted_supports_nothing(tiny, always, monkeypatch):
    decoded = DecodedAnswer(written("Ann is allergic to nuts."), False, None)
    monkeypatch.setattr(dial, "answer", lambda *_, **__: [decoded])
    read = []

    class Listening:
        def cite(self, text, passages):
            read.extend(passages)
            return [Citation(0, len(text))]

    assistant = Assistant(tiny, always(0, model=tiny.identity), support=Listening())
    text = "Ann rows. Ann is allergic to …. The camp begins on Friday."
    assistant.ask("What must Ann not eat?", HOW, dated(mail=("", text)))
    assert [" ".join(each.split()) for _, each in read] == [
        "mail: Ann rows. The camp begins on Friday."
    ]


class Knowing(DaysReader):
    """Reads 14 days in the passage, and what the model writes as another answer."""

    def read(self, asked):
        return [
            reading if reading.answer or not text.strip() else Reading(text.split()[0], 0, 0.999)
            for reading, (_, text) in zip(super().read(asked), asked, strict=True)
        ]


def test_where_memory_wins_no_passage_is_shown_as_followed_or_cited(tiny, always):
    calibration = always(1, model=tiny.identity)
    assistant = Assistant(tiny, calibration, reader=Knowing(), support=Citing())
    how = replace(HOW, alpha=1.0)
    answer = assistant.ask("How long?", how, dated(one=("", OLD[1])))
    assert answer.verdict.follows == "memory"
    assert {claim.source: claim.followed for claim in answer.claims} == {
        "one": False,
        "memory": True,
    }
    assert [list(each.passages) for each in answer.citations] == [[]]


def test_an_answer_that_claims_something_else_than_its_passage_neither_follows_nor_cites_it(
    tiny, always
):
    assistant = Assistant(tiny, always(1, model=tiny.identity), reader=Knowing(), support=Citing())
    how = replace(HOW, rule="cad")  # a token rule, which gives no verdict
    answer = assistant.ask("How long?", how, dated(one=("", OLD[1])))
    assert answer.verdict is None
    assert [(claim.says, claim.followed) for claim in answer.claims] == [("14 days", False)]
    assert [list(each.passages) for each in answer.citations] == [[]]
    assert NOT_SAID.format(claims='"14 days"') in answer.notices


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_that_no_passage_supports_the_answer_is_told_wherever_the_dial_stands(tiny, always, alpha):
    calibration = always(1, model=tiny.identity)
    assistant = Assistant(tiny, calibration, reader=DaysReader(), support=Doubting())
    answer = assistant.ask("How long?", replace(HOW, alpha=alpha), dated(one=("", "It rains.")))
    assert [list(each.passages) for each in answer.citations] == [[]]
    assert UNSUPPORTED in answer.notices


@pytest.mark.parametrize(
    ("text", "follows", "told"),
    [
        ("It is 12345.", "passages", True),
        ("It is B12.", "passages", False),
        ("It is 12345.", "memory", False),
    ],
)
def test_that_no_passage_supports_the_answer_is_told_where_the_verdict_names_something_else(
    tiny, always, monkeypatch, text, follows, told
):
    verdict = Verdict("B12", "12345", 0.2, follows)
    monkeypatch.setattr(
        dial, "answer", lambda *_, **__: [DecodedAnswer(written(text), True, verdict)]
    )
    assistant = Assistant(
        tiny, always(0, model=tiny.identity), reader=DaysReader(), support=Doubting()
    )
    answer = assistant.ask("Which code?", HOW, dated(one=("", "The valve is behind B12.")))
    assert answer.verdict == verdict
    assert (UNSUPPORTED in answer.notices) == told


def test_only_documents_needs_the_reader(assistant):
    with pytest.raises(InputError, match="without reader"):
        assistant("abc").ask("Who?", HOW, sources=SourceOptions(only_documents=True))


def test_another_version_of_what_the_filter_keeps_is_read_if_it_claims_something(tiny, always):
    class Second(BaseNodePostprocessor):
        """Keeps the second passage."""

        def _postprocess_nodes(self, nodes, query_bundle=None):
            return nodes[1:2]

    class Versions(FixedRetriever):
        """Finds four versions."""

        def _retrieve(self, query_bundle):
            return [
                NodeWithScore(
                    node=TextNode(id_=name, text=text, metadata={"title": f"Terms {name}"}),
                    score=0.5,
                )
                for name, text in (
                    ("v1", "You have 14 days."),
                    ("v2", "You have 30 days."),
                    ("v3", "You have 60 days."),
                    ("v4", "No word of it."),
                )
            ]

    assistant = Assistant(
        tiny,
        always(0, model=tiny.identity),
        Versions(),
        processors=[Second()],
        reader=DaysReader(),
    )
    answer = assistant.ask("How long?", HOW)
    assert answer.answer == "You have 60 days."
    assert [claim.source for claim in answer.claims] == ["v2", "v1", "v3"]
    assert "latest version" in answer.settled
    assert [source.id for source in answer.sources if source.kept] == ["v3"]
    first = assistant.ask("How long is it in version 1?", HOW)
    assert first.answer == "You have 14 days."
