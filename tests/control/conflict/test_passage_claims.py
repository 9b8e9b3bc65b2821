"""What each passage claims about a question."""

import pytest
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from control.conflict.passage_claims import (
    find,
    nearest,
    passage_text,
    read,
    read_passages,
    related,
    ways_to_ask,
)
from control.conflict.reader import Reading

QUESTION = "How long is the refund window?"


@pytest.mark.parametrize(
    ("question", "date", "ways"),
    [
        ("What was the fee in 2021?", "2021-05", ["What was the fee?"]),
        ("What was the fee on 3 May 2023?", "2021-05", ["What was the fee?"]),
        ("As of 3 May 2023, how much is it?", "2022", ["As how much is it?"]),
        ("What was the fee in 2021?", "2022", []),  # it cannot tell what held then
        ("What was the fee in 2021?", "", []),
        ("What is the fee?", "2022", []),
        ("In 2021?", "2020", []),
        ("Was the fee of 2019 higher than that of 2020?", "2018", []),
        ("What was the fee before 2021?", "2020-05", ["What was the fee?"]),
        ("What was the fee until the year 2021?", "2020", ["What was the fee?"]),
        ("What was the fee before 2021?", "2021-05", []),
        ("What was the fee after 2021?", "2022", ["What was the fee?"]),
        ("What was the fee after 2021?", "2021", []),
        ("What was the fee since 2021?", "2021-05", ["What was the fee?"]),
        ("What is the fee from 2021 on?", "2022", ["What is the fee?"]),
        ("What was it no later than 2021?", "2020", ["What was it?"]),
        ("What was the pre-2021 fee?", "2020", ["What was the fee?"]),
        ("What was it before the 2021 rise?", "2020", ["What was it before the rise?"]),
    ],
)
def test_a_document_that_may_tell_what_held_then_is_asked_without_the_date_too(
    question, date, ways
):
    assert ways_to_ask(question, date) == [question, *ways]


def test_of_several_dates_one_that_the_passage_names_too_stays_in_the_question():
    question = "What did boats registered before 2010 pay in 2023?"
    undated = "What did boats registered before 2010 pay?"
    text = "Boats registered before 2010 pay 50 crowns."
    assert ways_to_ask(question, "2021", text) == [question, undated]
    assert ways_to_ask(question, "2021", "Boats pay 50 crowns.") == [question]
    assert ways_to_ask(question, "2024", text) == [question]


def test_of_a_table_the_row_is_quoted_in_which_the_cell_stands():
    text = "Name: Anna; Fee: 50; Room: 3\nName: Boris; Fee: 50; Room: 4"
    node = NodeWithScore(node=TextNode(text=text, metadata={"title": "Fees 50"}))
    read = Reading("50", passage_text(node).rindex("50"), 0.95)
    [claim] = find([(node, read)])
    assert claim.sentence == "Name: Boris; Fee: 50; Room: 4"


def test_other_versions_of_what_is_read_are_read_too():
    def node(name, text, title):
        return NodeWithScore(node=TextNode(id_=name, text=text, metadata={"title": title}))

    kept = [
        node("v2", "Uploads to the harbor may not be larger than 50 MB.", "Harbor guide v2"),
        node("2021", "The limit is 50 MB, and a session lasts 30 minutes.", "Terms 2021"),
    ]
    found = [
        *kept,
        node("v1", "Uploads may have 20 MB.", "Harbor guide v1"),
        node("2023", "The limit is 80 MB, and a session lasts 60 minutes.", "Terms 2023"),
        node("sister", "The limit is 80 MB, and a session lasts 60 minutes.", "Terms of the quay"),
        node("2019", "Nothing is said here of any limit at all.", "Terms 2019"),
        node("other", "Ships moor at the quay in the order of arrival.", "Harbor rules"),
        node("tide", "The tide guide has 30 pages.", "Tide guide v3"),
    ]
    assert [each.node_id for each in related("", kept, found)] == ["v1", "2023"]
    assert related("", [], found) == []
    kept[1].metadata["date"], found[5].metadata["date"] = "2021", "2019"
    later = node("later", "Of limits nothing is left.", "Terms 2025")
    later.metadata["date"] = "2025-02"
    assert [each.node_id for each in related("", kept, [*found, later])] == ["v1", "2023", "later"]


class SentenceReader:
    """Finds a number of days: of several sentences in the first one, unsurely."""

    def read(self, asked):
        found = []
        for _, text in asked:
            several = text.count(". ") > 0
            at = text.find("7 days" if several and "7 days" in text else "30 days")
            found.append(Reading(text[at : at + 7].rstrip(" ."), at, 0.7 if several else 0.95))
            if at < 0:
                found[-1] = Reading(answers=0.01)
        return found


@pytest.mark.parametrize("title", ["Guide", "We ship"])
def test_which_words_answer_is_told_by_the_surest_sentence_and_how_likely_by_the_passage(title):
    text = "We ship in 7 daysish. \n You have 30 days. It rains."
    node = NodeWithScore(node=TextNode(id_="a", text=text, metadata={"title": title}))
    [[(_, found)]] = read(SentenceReader(), [(QUESTION, [node], [node])])
    assert (found.answer, found.answers) == ("30 days", 0.7)
    whole = passage_text(node)
    assert whole[found.start : found.end] == "30 days"
    [claim] = find([(node, found)])
    assert claim.sentence == "You have 30 days."


class CapitalReader:
    """Finds what "is" is followed by, as surely wherever it stands; of several, the last one."""

    def read(self, asked):
        found = []
        for _, text in asked:
            at = text.rindex(" is ") + 4
            found.append(Reading(text[at:].split(".")[0], at, 0.998))
        return found


def test_a_sentence_on_another_thing_does_not_answer_where_one_names_the_thing_asked_for():
    text = "The capital of Peru is Lima. The capital of Chile is Santiago. The sol is money."
    for name, capital in (("Peru", "Lima"), ("Chile", "Santiago")):
        asked = [(f"What is the capital of {name}?", "Capitals", text)]
        assert read_passages(CapitalReader(), asked)[0].answer == capital


def test_what_a_forgotten_answer_was_taken_out_of_is_no_claim():
    node = NodeWithScore(node=TextNode(text="It plays … every hour."))
    assert find([(node, Reading("… every hour", 9, 0.99))]) == []
    assert len(find([(node, Reading("every hour", 11, 0.99))])) == 1


def test_what_comes_nearest_is_the_surest_that_stands_in_a_sentence():
    def read(text, said, sure):
        node = NodeWithScore(node=TextNode(text=text, metadata={"title": "Post"}))
        return node, Reading(said, text.find(said), sure)

    unsure, surer = read("It takes 3 days.", "3 days", 0.1), read("It takes 5 days.", "5 days", 0.3)
    heading, nothing = read("Post", "Post", 0.5), read("It rains.", "", 0.9)
    hidden = read("It takes … days.", "… days", 0.9)
    found = nearest([unsure, surer, heading, nothing, hidden])
    assert (found.quote.text, found.quote.confidence) == ("It takes 5 days.", 0.3)
    assert nearest([heading, nothing, hidden]) is None


def test_a_passage_of_one_sentence_or_with_rows_is_read_once():
    asked = []

    class Counting:
        def read(self, pairs):
            asked.extend(pairs)
            return [Reading() for _ in pairs]

    rows = "City: Oslo; Fare: 3\nCity: Bergen; Fare: 4"
    for text in ("You have 30 days.", rows):
        node = NodeWithScore(node=TextNode(text=text, metadata={"title": "Guide"}))
        read(Counting(), [(QUESTION, [node], [node])])
    assert len(asked) == 2


def test_files_of_the_same_folder_that_do_not_say_whose_they_are_are_read_too():
    def node(name, path, text="You have 30 days."):
        return NodeWithScore(node=TextNode(id_=name, text=text, metadata={"source": path}))

    naming = "We are Marlow, a club for rowers."
    kept = [node("about", "club/about.md", naming), node("line", "lines.jsonl", naming)]
    found = [
        *kept,
        node("fees", "club/fees.md"),
        node("names it", "club/rooms.md", "The rooms of Marlow are closed in May."),
        node("other club", "guild/fees.md"),
        node("other line", "lines.jsonl"),
        node("given", ""),
    ]
    asked = "How long do rowers of Marlow have to pay?"
    assert [each.node_id for each in related(asked, kept, found)] == ["fees"]
    assert related("How long do rowers have to pay?", kept, found) == []


def test_names_of_files_in_one_folder_hold_for_the_others_in_it():
    class Unsure:
        def read(self, pairs):
            return [Reading("30 days", text.find("30 days"), 0.5) for _, text in pairs]

    def node(path, text, document=""):
        metadata = {"title": "Refunds", "source": path}
        relations = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document or path)}
        return NodeWithScore(node=TextNode(text=text, metadata=metadata, relationships=relations))

    def likely(one, *found):
        asked = "How long do customers of Marlow have?"
        [[(_, reading)]] = read(Unsure(), [(asked, [one], [one, *found])])
        return reading.answers

    text = "You have 30 days to send it back."
    ours, naming = node("shop/refunds.md", text), "We are Marlow, a shop for lamps."
    alone = likely(ours)
    assert alone < 0.1
    assert likely(ours, node("shop/about.md", naming)) > 0.6
    assert likely(ours, node("other/about.md", naming)) == alone
    assert likely(ours, node("", naming)) == alone
    lines = node("shop/lines.jsonl", text, "first"), node("shop/lines.jsonl", naming, "second")
    assert likely(*lines) == alone
    assert likely(lines[0], node("shop/lines.jsonl", naming, "first")) > 0.6
