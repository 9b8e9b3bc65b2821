"""Whom the answer follows where documents disagree."""

from dataclasses import replace

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from control.conflict.passage_claims import PassageClaim, find, passage_text
from control.conflict.policies import settle
from control.conflict.reader import Reading
from control.conflict.sources import SourceClaim, SourceOptions
from control.conflict.versions import find_version
from foundation.errors import InputError

QUESTION = "How long is the refund window?"


def said(days, name, **known):
    """A passage that claims so many days, from a document of its own unless one is named."""
    claim = SourceClaim(name, f"{days} days", known.pop("date", ""), known.pop("trust", 0.5))
    document = known.pop("document", name)
    return PassageClaim(claim, document, title=name, sentence=f"It is {days} days.", **known)


def followed(settled):
    return {claim.source for claim in settled.claims if claim.followed}


def test_equal_claims_are_one_group_and_nothing_is_to_settle():
    settled = settle(QUESTION, [said(14, "a"), said(14, "b")])
    assert not settled.disagree
    assert not settled.reason
    assert [claim.group for claim in settled.claims] == [0, 0]
    assert followed(settled) == {"a", "b"}


def test_of_two_versions_the_newest_is_followed_and_both_are_shown():
    settled = settle(QUESTION, [said(14, "old", date="2022-01-01"), said(30, "new", date="2025")])
    assert followed(settled) == {"new"}
    assert [claim.says for claim in settled.claims] == ["14 days", "30 days"]
    assert "newest" in settled.reason
    assert settled.quoted == "It is 30 days."


def test_what_is_dated_later_than_today_is_not_followed_unless_that_time_is_asked_about():
    now, coming = said(14, "now", date="2022"), said(30, "coming", date="2027-01-01")
    settled = settle(QUESTION, [now, coming], today="2026-12-01")
    assert followed(settled) == {"now"}
    assert settled.reason.endswith("what is dated 2027-01-01 is not yet in force.")
    assert followed(settle(QUESTION, [now, coming], "newest", today="2026-12-01")) == {"now"}
    assert followed(settle(QUESTION, [now, coming], today="2027-01-01")) == {"coming"}
    assert followed(settle(QUESTION, [now, coming], None, "2027-06-01", "2026-12-01")) == {"coming"}
    asked = "How long is the refund window in 2027?"
    assert followed(settle(asked, [now, coming], today="2026-12-01")) == {"coming"}
    assert followed(settle(QUESTION, [coming], today="2026-12-01")) == {"coming"}
    last = said(60, "last", date="2028")
    settled = settle(QUESTION, [last, coming], today="2026-12-01")
    assert followed(settled) == {"coming"}
    older = said(7, "older", date="2020")
    settled = settle(QUESTION, [older, now, coming], today="2026-12-01")
    assert followed(settled) == {"now"}
    assert "newest" in settled.reason
    assert len(settle(QUESTION, [now, coming], "all", today="2026-12-01").told) == 2


def test_trust_stands_above_the_date():
    passages = [said(14, "old", date="2022", trust=0.9), said(30, "new", date="2025")]
    assert followed(settle(QUESTION, passages)) == {"old"}
    assert followed(settle(QUESTION, passages, "newest")) == {"new"}


def test_what_replaces_another_document_is_followed_whatever_the_dates():
    passages = [
        said(14, "Policy of 2022", date="2022"),
        said(30, "b", replaces=("Policy of 2022",)),
    ]
    assert followed(settle(QUESTION, passages)) == {"b"}


@pytest.mark.parametrize("stated", ["2022-07-03", "2022-07", "2022"])
@pytest.mark.parametrize("date", ["2022-07-03", "2022", ""])
def test_what_is_replaced_may_be_named_by_its_date_or_the_year_of_it(date, stated):
    passages = [said(14, "a", date=date), said(30, "b", replaces=(stated,))]
    assert followed(settle(QUESTION, passages)) == ({"b"} if date else {"a", "b"})


def test_what_is_replaced_may_be_named_by_its_first_line():
    old = said(14, "c9", head="Circular 9\n3 June 2024\nYou have 14 days.")
    other = said(14, "c9", head="Circular 19\nYou have 14 days.")
    new = said(30, "c14", replaces=("Circular 9",))
    assert followed(settle(QUESTION, [old, new])) == {"c14"}
    assert followed(settle(QUESTION, [other, new])) == {"c9", "c14"}


def test_where_nothing_else_decides_the_title_with_most_of_the_questions_words_is_followed():
    question = "Which city is the capital of Guinea?"
    own = said(14, "Guinea: capital city", date="2020")
    other, unlike = said(30, "Papua: capital city"), said(60, "A letter to Guinea")
    settled = settle(question, [other, own])
    assert followed(settled) == {"Guinea: capital city"}
    assert "title" in settled.reason
    assert settled.told == ()
    assert followed(settle(question, [said(60, "Guinea: location"), own])) == followed(settled)
    assert len(settle(question, [own, unlike]).told) == 2
    assert len(settle(question, [own, said(30, "Guinea, a capital city")]).told) == 2
    assert len(settle(question, [said(14, "Leaflet"), said(30, "Notice")]).told) == 2
    newer = said(30, "Papua: capital city", date="2025")
    assert followed(settle(question, [own, newer])) == {"Papua: capital city"}
    assert len(settle(question, [own, other], "trusted").told) == 2


def test_where_nothing_decides_it_is_said_and_both_are_followed_and_told():
    settled = settle(QUESTION, [said(14, "Leaflet"), said(30, "Notice", date="2025-03-01")])
    assert followed(settled) == {"Leaflet", "Notice"}
    assert "nothing decides" in settled.reason
    lines = [settled.text[each.start : each.end] for each in settled.citations]
    assert lines == ["- 14 days (Leaflet)", "- 30 days (Notice, 2025-03-01)"]
    assert [each.passages for each in settled.citations] == [("Leaflet",), ("Notice",)]


def test_where_one_is_followed_nothing_is_told_beside_it():
    settled = settle(QUESTION, [said(14, "Leaflet", date="2024"), said(30, "Notice", date="2025")])
    assert (settled.text, settled.citations) == ("", [])


@pytest.mark.parametrize(
    ("names", "whom"),
    [
        (("Hoist data sheet, revision A", "Hoist data sheet, revision C"), {"1"}),
        (("guide-v10", "guide-v9"), {"0"}),
        (("notes 2.9", "notes 2.10"), {"1"}),
        (("Shop 3", "Shop 4"), {"0", "1"}),  # numbers alone count what is there, not what changed
        (("guide-v2", "manual-v3"), {"0", "1"}),
        (("guide-v2", "guide"), {"0", "1"}),
        (("guide-v2", "guide-vb"), {"0", "1"}),
    ],
)
def test_without_dates_the_latest_version_of_one_document_is_followed(names, whom):
    nodes = [
        TextNode(text=f"It is {14 + at} days.", metadata={"title": name}, id_=str(at))
        for at, name in enumerate(names)
    ]
    readings = [Reading(f"{14 + at} days", 6, 0.9) for at in range(len(names))]
    found = [NodeWithScore(node=node) for node in nodes]
    settled = settle(QUESTION, find(list(zip(found, readings, strict=True))))
    assert followed(settled) == whom
    assert ("the latest version" in settled.reason) == (len(whom) == 1)


@pytest.mark.parametrize(
    ("files", "titles", "whom"),
    [
        (("rules_1", "rules_2"), ("Rules", "Rules"), {"1"}),
        (("notice-b", "notice-a"), ("Notice", "Notice"), {"0"}),
        (("fees (9)", "fees (10)"), ("Fees", "Fees"), {"1"}),
        (("rules_1", "rules_2"), ("rules_1", "rules_2"), {"0", "1"}),  # it has no title
        (("hall_1", "hall_2"), ("The old hall", "The new hall"), {"0", "1"}),
        (("rules_1", "terms_2"), ("Rules", "Rules"), {"0", "1"}),
        (("rules_2019", "rules_2021"), ("Rules", "Rules"), {"0", "1"}),
    ],
)
def test_of_files_of_one_title_that_are_counted_the_last_is_followed(files, titles, whom):
    known = [
        {"title": title, "source": f"/docs/{file}.txt"}
        for file, title in zip(files, titles, strict=True)
    ]
    nodes = [
        NodeWithScore(node=TextNode(text=f"It is {14 + at} days.", metadata=one, id_=str(at)))
        for at, one in enumerate(known)
    ]
    read = [(node, Reading(node.text[6:13], 6, 0.9)) for node in nodes]
    assert followed(settle(QUESTION, find(read))) == whom
    headed = [
        NodeWithScore(
            node=TextNode(
                text=f"{title}\n\nIt is {14 + at} days.",
                metadata={**one, "title": file},
                id_=str(at),
            )
        )
        for at, (one, file, title) in enumerate(zip(known, files, titles, strict=True))
    ]
    read = [(node, Reading(f"{14 + at} days", 9, 0.9)) for at, node in enumerate(headed)]
    assert followed(settle(QUESTION, find(read))) == whom


def test_an_earlier_version_is_set_aside_though_another_document_disagrees_too():
    first, last = (
        replace(said(days, name), versions=(find_version(name),), title=name)
        for days, name in ((14, "guide v1"), (30, "guide v2"))
    )
    other = said(60, "Leaflet")
    settled = settle(QUESTION, [first, last, other])
    assert followed(settled) == {"guide v2", "Leaflet"}
    assert "14 days" not in settled.text
    assert followed(settle(QUESTION, [first, last, said(30, "Leaflet")])) == {"guide v2", "Leaflet"}
    assert "14 days" in settle(QUESTION, [first, last, other], "all").text


def test_a_later_date_stands_above_a_later_version():
    old = replace(said(14, "a", date="2022"), versions=(find_version("guide-v3"),))
    new = replace(said(30, "b", date="2025"), versions=(find_version("guide-v2"),))
    assert followed(settle(QUESTION, [old, new])) == {"b"}


def test_by_the_policy_all_every_claim_is_told_with_its_source():
    passages = [said(14, "Leaflet"), said(30, "Notice", date="2025-03-01")]
    settled = settle(QUESTION, passages, "all")
    assert followed(settled) == {"Leaflet", "Notice"}
    for part in ("14 days", "Leaflet", "30 days", "Notice, 2025-03-01"):
        assert part in settled.text


def test_documents_of_one_title_are_told_with_their_files_and_folders():
    def passage(name, text, path):
        known = {"title": "Guide", "source": path}
        return NodeWithScore(node=TextNode(id_=name, text=text, metadata=known))

    nodes = [
        passage("a", "It is 14 days.", "/docs/old/guide.md"),
        passage("b", "It is 30 days.", "/docs/new/guide.md"),
        passage("c", "It is 60 days.", "/docs/new/leaflet.md"),
    ]
    read = [(node, Reading(node.text[6:13], len("Guide: It is "), 1.0)) for node in nodes]
    settled = settle(QUESTION, find(read))
    for name in ("Guide, old/guide.md", "Guide, new/guide.md", "Guide, leaflet.md"):
        assert f"({name})" in settled.text


def test_of_documents_of_one_title_the_one_of_the_latest_version_stated_is_followed():
    def passage(version):
        known = {"title": "Guide", "version": version, "source": f"/docs/{version}/guide.md"}
        return NodeWithScore(node=TextNode(id_=version, text="It is so.", metadata=known))

    nodes = [passage("1.9"), passage("1.10"), passage("1.2")]
    days = ("14 days", "30 days", "60 days")
    read = [(node, Reading(said, 10, 1.0)) for node, said in zip(nodes, days, strict=True)]
    settled = settle(QUESTION, find(read))
    assert followed(settled) == {"1.10"}
    assert "latest version that answers (1.10)" in settled.reason


def test_a_pinned_correction_stands_above_documents_and_an_earlier_one():
    document = said(7, "Notice", date="2025-03-01", trust=1.0)
    latest, earlier = said(14, "correction:b"), said(30, "correction:a")
    one = settle(QUESTION, [earlier, document])
    assert (followed(one), one.reason) == (
        {"correction:a"},
        "The answer follows a pinned correction.",
    )
    several = settle(QUESTION, [latest, earlier, document], "trusted")
    assert followed(several) == {"correction:b"}
    assert "latest" in several.reason


def test_a_majority_is_one_of_documents_and_not_of_passages():
    twice = [said(14, "a1", document="a"), said(14, "a2", document="a")]
    assert "nothing decides" in settle(QUESTION, [*twice, said(30, "b")], "majority").reason
    assert followed(settle(QUESTION, [*twice, said(14, "c"), said(30, "b")], "majority")) == {
        "a1",
        "c",
    }


@pytest.mark.parametrize(
    ("policy", "why"),
    [("trusted", "trusted alike"), ("majority", "more documents"), (None, "date")],
)
def test_why_nothing_decides_is_told_by_what_was_to_decide(policy, why):
    assert why in settle(QUESTION, [said(14, "a"), said(30, "b")], policy).reason


def test_as_of_a_date_later_documents_are_set_aside():
    passages = [said(14, "old", date="2022"), said(30, "new", date="2025-03-01")]
    settled = settle(QUESTION, passages, as_of="2024-06-30")
    assert followed(settled) == {"old"}
    assert "2024-06-30" in settled.reason


@pytest.mark.parametrize(
    ("question", "whom"),
    [
        ("How long was the refund window in 2023?", {"old"}),
        ("How long was the refund window on 3 May 2024?", {"new"}),
        ("How long was the refund window in March 2024?", {"new"}),
        ("How long was the refund window in February 2024?", {"old"}),
        ("How long was the refund window in 2019?", {"newest"}),  # no document is so old
        ("How long was it in 2022, and how long is it in 2024?", {"newest"}),
        ("How long was the refund window before 2024?", {"old"}),
        ("How long was the refund window until 1 March 2024?", {"old"}),
        ("How long was the refund window prior to the year 2025?", {"new"}),
        ("How long was the refund window before April 2024?", {"new"}),
        ("How long was the refund window after 2024?", {"newest"}),
        ("How long was the refund window after the 2024 check?", {"new"}),  # dates the check
        ("How long has the refund window been since 2025?", {"newest"}),
        ("How long was the refund window before 2022?", {"newest"}),  # no document is so old
        ("How long has the refund window been from 2023 onwards?", {"newest"}),
        ("How long was the refund window, not before 2024?", {"newest"}),
        ("How long was the refund window no later than 2024?", {"new"}),
        ("How long was the refund window, not after 2023?", {"old"}),
        ("How long was the pre-2024 refund window?", {"old"}),
        ("How long was the refund window before the 2024 change?", {"old"}),
    ],
)
def test_a_date_in_the_question_chooses_what_held_then(question, whom):
    passages = [
        said(14, "old", date="2022-01-01"),
        said(30, "new", date="2024-03-01"),
        said(60, "newest", date="2025"),
    ]
    assert followed(settle(question, passages)) == whom


def test_a_sentence_that_names_the_date_of_the_question_stands_above_earlier_documents():
    looking_back = replace(said(20, "report", date="2025"), sentence="In 2023 it was 20 days.")
    settled = settle("How long was it in 2023?", [said(14, "old", date="2022"), looking_back])
    assert followed(settled) == {"report"}
    assert settled.reason == ("The documents disagree; the answer follows what held as of 2023.")
    assert followed(settle(QUESTION, [said(14, "old", date="2022"), looking_back])) == {"report"}


def test_a_sentence_that_names_what_was_before_a_date_tells_it_and_one_of_the_date_does_not():
    looking_back = replace(said(20, "report", date="2025"), sentence="Until 2023 it was 20 days.")
    since = replace(said(30, "new", date="2024"), sentence="From 2023 on it is 30 days.")
    passages = [said(14, "old", date="2021"), looking_back, since]
    settled = settle("How long was it before 2023?", passages)
    assert followed(settled) == {"report"}
    assert settled.reason == "The documents disagree; the answer follows what held before 2023."
    assert followed(settle("How long was it before 2023?", [passages[0], since])) == {"old"}


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("How long was it between 2022 and 2023?", "names several dates, which decide nothing"),
        ("How long was it in both 2022 and 2025?", "names several dates, which decide nothing"),
        ("How long was it on 3/4/2023?", "can be read in two ways, and decides nothing"),
    ],
)
def test_that_dates_of_the_question_decide_nothing_is_said(question, why):
    settled = settle(question, [said(14, "old", date="2022"), said(30, "new", date="2024")])
    assert followed(settled) == {"new"}
    assert settled.reason.startswith("The documents disagree; the answer follows the newest docum")
    assert settled.reason.endswith(f"{why}.")


@pytest.mark.parametrize(
    ("question", "sentence", "scope"),
    [
        ("What is the fee for storing 2000 bricks?", "Storing 2000 bricks costs {}.", ""),
        ("What do boats registered before 2010 pay?", "Boats from before 2010 pay {}.", ""),
        (
            "What did boats registered before 2010 pay in 2021?",
            "Boats registered before 2010 pay {}.",
            " as of 2021",
        ),
    ],
)
def test_what_all_sentences_name_alike_is_no_date_asked_about(question, sentence, scope):
    passages = [
        replace(said(days, str(year), date=str(year)), sentence=sentence.format(days))
        for days, year in ((14, 2020), (30, 2021), (60, 2024))
    ]
    settled = settle(question, passages)
    assert followed(settled) == ({"2021"} if scope else {"2024"})
    assert settled.reason == (
        f"The documents disagree; the answer follows the newest document that answers{scope}."
    )


def test_that_documents_beside_the_newest_one_have_no_date_is_said():
    passages = [said(14, "Leaflet"), said(30, "Notice", date="2025"), said(60, "a", date="2022")]
    settled = settle(QUESTION, passages, "newest")
    assert followed(settled) == {"Notice"}
    assert settled.reason == (
        "The documents disagree; the answer follows the newest document that answers; "
        "not all of them have a date."
    )


def test_a_document_of_a_year_is_not_known_to_be_before_a_month_of_it():
    passages = [said(14, "old", date="2022"), said(30, "new", date="2024")]
    assert followed(settle("How long was it before May 2024?", passages)) == {"old"}


@pytest.mark.parametrize(
    ("asked", "dated"),
    [
        ("in 2019", "2019 or earlier"),
        ("before 2022", "before 2022"),
        ("after 2024", "after 2024"),
        ("since 2025", "2025 or later"),
    ],
)
def test_that_no_document_is_of_the_time_that_the_question_asks_about_is_said(asked, dated):
    passages = [said(14, "old", date="2022"), said(30, "new", date="2024")]
    settled = settle(f"How long was it {asked}?", passages)
    assert settled.reason == (
        "The documents disagree; the answer follows the newest document that answers; "
        f"none of them is dated {dated}."
    )


@pytest.mark.parametrize(
    ("question", "whom"),
    [
        ("How long is it in version 1?", {"one"}),
        ("How long is it by guide 2.0?", {"two"}),
        ("How long is it by guide v2?", {"two-one"}),  # the latest of both
        ("How long is it by revision C?", {"two-one"}),  # there are no letters
        ("How long is it by version 9?", {"two-one"}),
        ("How long is it in version 1 and in v2?", {"two-one"}),
    ],
)
def test_a_version_in_the_question_chooses_the_document_of_that_version(question, whom):
    passages = [
        said(days, name, versions=(find_version(f"guide v{number}"),))
        for name, days, number in (("one", 14, "1"), ("two", 30, "2.0"), ("two-one", 60, "2.1"))
    ]
    settled = settle(question, passages)
    assert followed(settled) == whom
    assert whom == {"two-one"} or "in the version that the question names" in settled.reason


def test_a_pinned_correction_stands_above_what_held_at_the_date_of_the_question():
    passages = [said(7, "correction:a"), said(14, "old", date="2022"), said(30, "new", date="2025")]
    assert followed(settle("How long was it in 2023?", passages)) == {"correction:a"}


def test_as_of_a_year_documents_of_that_year_are_followed():
    passages = [said(14, "old", date="2022"), said(30, "new", date="2024-06-30")]
    assert followed(settle(QUESTION, passages, as_of="2024")) == {"new"}
    assert followed(settle(QUESTION, passages, as_of="2024-05")) == {"old"}


def test_as_of_a_date_before_all_documents_nothing_is_followed():
    settled = settle(QUESTION, [said(14, "old", date="2022")], as_of="2020")
    assert followed(settled) == set()
    assert "2020" in settled.reason


def test_a_document_does_not_contradict_itself():
    passages = [said(14, "a1", document="a"), said(30, "a2", document="a")]
    assert not settle(QUESTION, passages).disagree


def test_nothing_claimed_settles_nothing():
    assert settle(QUESTION, []).claims == ()


@pytest.mark.parametrize(
    "wrong", [{"policy": "latest"}, {"as_of": "June 2024"}, {"as_of": "2024-02-30"}]
)
def test_options_that_cannot_be_used_are_named(wrong):
    with pytest.raises(InputError, match=r"policy|as-of"):
        SourceOptions(**wrong)


@pytest.mark.parametrize(
    ("text", "claim", "told"),
    [
        ("Fees > Day tickets\n\nA day ticket\n   costs  50 euros.", "50 euros", True),
        ("Fees > Day tickets\n\nA day ticket costs 50 euros.", "Day tickets", False),
        ("2.1.\n\nA day ticket costs 50 euros.", "2.1", False),
        ("A day ticket costs 50 euros.", "Fees", False),  # of the title, which is read before it
        ("Dear Mrs Ashdown,\n\nA day ticket costs 50 euros.", "Mrs Ashdown", False),
    ],
)
def test_what_stands_in_a_heading_is_claimed_and_not_quoted(text, claim, told):
    metadata = {"title": "Fees", "heading": "Fees > Day tickets"}
    node = NodeWithScore(node=TextNode(text=text, metadata=metadata))
    read = Reading(claim, passage_text(node).index(claim), 0.95)
    settled = settle("What does it cost?", find([(node, read)]))
    assert [each.says for each in settled.claims] == [claim]
    assert settled.quoted == ("A day ticket costs 50 euros." if told else "")


def test_of_passages_that_claim_the_same_one_is_quoted_that_tells_more_than_its_heading():
    heading = replace(said(14, "a"), sentence="14 days", telling=False)
    assert settle(QUESTION, [heading, said(14, "b")]).quoted == "It is 14 days."


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [("in version 7", True), ("by revision C", True), ("in version 2", False), ("", False)],
)
def test_that_no_document_is_of_the_version_asked_for_is_said(asked, lacks):
    passages = [
        said(days, str(days), versions=(find_version(f"guide v{number}"),))
        for days, number in ((14, 1), (30, 2))
    ]
    settled = settle(f"How long is it {asked}?", passages)
    assert ("none of them is the version" in settled.reason) == lacks
