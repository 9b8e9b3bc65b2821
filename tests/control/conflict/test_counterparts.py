"""What a document says where another version of it claims the answer."""

import pytest
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from control.conflict.counterparts import read_counterparts
from control.conflict.passage_claims import passage_text, read
from control.conflict.reader import Reading

QUESTION = "How long may a lamp be returned?"
OLD = "Lamps may be returned within 30 days. Parcels cost 4.50."
NEW = "Bulbs only with an unbroken seal. You have 45 days for anything in its box. Ask us."


class SureOfOneSentence:
    """Finds days, and is sure of them only where a text has nothing else but parcels."""

    def read(self, asked):
        readings = []
        for _, text in asked:
            days = next((part for part in ("30 days", "45 days") if part in text), "")
            sure = 0.9 if "Bulbs" not in text else 0.1
            start = max(text.find(days), 0)
            readings.append(Reading(days, start, sure) if days else Reading())
        return readings


class DaysAreAlike(MockEmbedding):
    """Sentences that tell a number of days are alike."""

    def _get_text_embedding(self, text):
        return [1.0, 0.0] if "days" in text else [0.0, 1.0]


def node(name, text, date):
    found = TextNode(id_=name, text=text, metadata={"title": name, "date": date})
    return NodeWithScore(node=found)


def counterparts(*nodes, unread=()):
    reader, found = SureOfOneSentence(), [*nodes, *unread]
    [first] = read(reader, [(QUESTION, nodes, found)])
    return read_counterparts(reader, DaysAreAlike(2), QUESTION, first, found)


def test_a_version_says_what_stands_in_place_of_the_other_ones_claim():
    (_, old), (later, new) = counterparts(node("a", OLD, "2019"), node("b", NEW, "2022"))
    assert (old.answer, new.answer, new.answers) == ("30 days", "45 days", 0.9)
    assert passage_text(later)[new.start : new.end] == "45 days"


@pytest.mark.parametrize("date", ["2019", "2019-05-02", ""])
def test_documents_of_one_time_are_no_versions(date):
    _, (_, other) = counterparts(node("a", OLD, "2019"), node("b", NEW, date))
    assert other.answers == 0.1


def test_what_has_no_sentence_like_the_claim_stays_silent():
    _, (_, other) = counterparts(node("a", OLD, "2019"), node("b", "Bulbs only. Ask us.", "2022"))
    assert not other.answer


def test_another_passage_of_a_document_that_claims_is_left_alone():
    same = {"title": "b", "date": "2022"}
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="file-b")}
    claims = TextNode(id_="b1", text="It is 45 days.", metadata=same, relationships=source)
    other = TextNode(id_="b2", text=NEW, metadata=same, relationships=source)
    nodes = node("a", OLD, "2019"), NodeWithScore(node=claims), NodeWithScore(node=other)
    assert counterparts(*nodes)[2][1].answers == 0.1


@pytest.mark.parametrize(
    ("date", "text", "says"),
    [
        ("2022", NEW, ["30 days", "45 days"]),
        ("2016", NEW, ["30 days"]),  # an earlier one decides nothing
        ("", NEW, ["30 days"]),
        ("2022", "Bulbs only with an unbroken seal. Ask us.", ["30 days"]),
    ],
)
def test_a_later_document_that_was_found_and_not_read_is_read_if_it_says_the_like(date, text, says):
    found = counterparts(node("a", OLD, "2019"), unread=[node("b", text, date)])
    assert [reading.answer for _, reading in found] == says


@pytest.mark.parametrize(("others", "says"), [(8, ["30 days", "45 days"]), (9, ["30 days"])])
def test_of_what_was_found_the_first_ten_are_looked_at(others, says):
    unread = [node(f"n{n}", "Bulbs only. Ask us.", "2018") for n in range(others)]
    found = counterparts(node("a", OLD, "2019"), unread=[*unread, node("b", NEW, "2022")])
    assert [reading.answer for _, reading in found] == says
