"""What the language model answers from each passage that disagrees, in place of marked words."""

import pytest
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import NodeWithScore, TextNode

from control.conflict.passage_claims import LEAST_ALONE, LEAST_ANSWERS, passage_text
from control.conflict.passage_drafts import AS_SURE, reread
from control.conflict.reader import Reading
from control.conflict.sources import CORRECTION
from control.engines.base import Generation, Token

QUESTION = "How long may a lamp be returned?"
OLD = "Parcels wait 10 days. A lamp may be returned for three weeks."
NEW = "Parcels wait 12 days. A lamp may be returned for 30 days; 30 days too for shades."


class Answers:
    """A model that answers by what its prompt holds, and remembers what it was asked."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def room(self, _):
        return 1000

    def length(self, text):
        return len(text.split())

    def without_markup(self, text):
        return text

    def render(self, messages):
        return "\n".join(each["content"] for each in messages)

    def generate(self, requests, on_token=None):
        assert on_token is None
        self.asked += [each.prompt.text for each in requests]
        said = [
            next(says for title, says in self.answers.items() if title in asked)
            for asked in self.asked
        ]
        return [Generation((Token(each),)) for each in said]


def read(text, title, marked, sure=0.9):
    node = NodeWithScore(node=TextNode(id_=title, text=text, metadata={"title": title}))
    return node, Reading(marked, passage_text(node).find(marked), sure)


def claimed(model, *pairs):
    [found] = reread(model, [(QUESTION, list(pairs))])
    assert [node for node, _ in found] == [node for node, _ in pairs]
    return [reading.answer for _, reading in found]


def test_of_passages_that_disagree_what_the_model_answers_from_each_is_their_claim():
    model = Answers(Older=" Three weeks.", Newer="30 days")
    old, new = read(OLD, "Older", "10 days"), read(NEW, "Newer", "12 days", 0.7)
    [found] = reread(model, [(QUESTION, [old, new])])
    assert [(each.answer, each.answers) for _, each in found] == [
        ("three weeks", 0.9),
        ("30 days", 0.7),
    ]
    for node, reading in found:
        assert passage_text(node)[reading.start : reading.end] == reading.answer
        assert "lamp" in passage_text(node)[: reading.start].rpartition(".")[2]
    [first, second] = model.asked
    assert OLD in first
    assert NEW not in first
    assert NEW in second
    assert QUESTION in first


@pytest.mark.parametrize(
    ("answer", "claims"),
    [
        ("3 weeks", "3 weeks"),  # in another notation than the passage's
        ("four weeks", "10 days"),  # the passage does not say so
        ("No", "10 days"),
        ("", "10 days"),
        ("It does not say.", "10 days"),
    ],
)
def test_only_what_the_passage_says_is_its_claim(answer, claims):
    old, new = read(f"No lamps on Monday. {OLD}", "Older", "10 days"), read(NEW, "Newer", "12 days")
    assert claimed(Answers(Older=answer, Newer="12 days"), old, new) == [claims, "12 days"]


def test_passages_that_agree_or_claim_nothing_are_not_asked_again():
    model = Answers()
    pairs = read(OLD, "A", "three weeks", 0.999), read(OLD, "B", "3 weeks")
    claimed(model, *pairs)
    claimed(model, pairs[0], read(NEW, "C", "12 days", 0.5))
    claimed(model)
    assert not model.asked


def test_questions_are_asked_in_one_batch():
    model = Answers(Older="three weeks", Newer="30 days")
    old, new = read(OLD, "Older", "10 days"), read(NEW, "Newer", "12 days")
    agreeing = [read(OLD, "A", "three weeks", 0.999)]
    asked = [(QUESTION, each) for each in ([old, new], agreeing, [new, old])]
    found = reread(model, asked)
    assert [[each.answer for _, each in one] for one in found] == [
        ["three weeks", "30 days"],
        ["three weeks"],
        ["30 days", "three weeks"],
    ]


@pytest.mark.parametrize(
    ("sure", "alone", "says", "counts"),
    [
        (0.7, False, "Three weeks.", True),
        (0.55, False, "3 weeks", True),  # which alone would not be sure enough
        (0.9, False, "A lamp may be returned for three weeks.", True),
        (0.9, False, "10 days", False),
        (0.9, False, "It does not say.", True),  # which tells nothing
        (0.9, False, "12 weeks", True),  # nor does what the passage lacks
        (0.98, False, "10 days", True),  # but not from documents alone
        (0.98, True, "10 days", False),
        (0.85, True, "three weeks", True),
        (0.999, True, None, True),  # so sure that nothing could change it
        (0.3, False, None, False),
    ],
)
def test_a_claim_that_is_not_sure_counts_if_the_model_answers_the_same(sure, alone, says, counts):
    model = Answers(**({"Rules": says} if says else {}))
    [[(_, found)]] = reread(model, [(QUESTION, [read(OLD, "Rules", "three weeks", sure)])])
    assert found.answer == "three weeks"
    assert (found.answers >= (LEAST_ALONE if alone else LEAST_ANSWERS)) == counts
    assert len(model.asked) == (says is not None)


def test_what_the_model_answers_counts_for_all_that_say_the_same():
    model = Answers(Surest="three weeks")
    pairs = [
        read(OLD, "Surest", "three weeks", 0.8),
        read(OLD, "Same", "3 weeks", 0.7),
        read(OLD, "Other", "10 days", 0.55),
        read(OLD, "Silent", "", 0.2),
    ]
    [found] = reread(model, [(QUESTION, pairs)])
    surest, same, other, silent = (each.answers for _, each in found)
    assert len(model.asked) == 1
    assert surest > 0.8
    assert same > 0.7
    assert other < 0.3
    assert silent == 0.2


def test_a_pinned_correction_and_a_cell_of_a_table_are_not_doubted():
    node, reading = read(OLD, "Rules", "10 days", 0.8)
    node.node.id_ = f"{CORRECTION}1"
    row = read(
        "Returns.\n\nGoods: lamp; Days: 30; Fee: none\nGoods: shade; Days: 10; Fee: 2",
        "Table",
        "30",
        0.8,
    )
    for pairs in ([(node, reading)], [row]):
        assert reread(Answers(), [(QUESTION, pairs)]) == [pairs]


class Alike(MockEmbedding):
    """Texts about lamps are alike."""

    def _get_text_embedding(self, text):
        return [1.0, 0.0] if "lamp" in text else [0.0, 1.0]


@pytest.mark.parametrize(
    ("title", "date", "text", "asked", "claims"),
    [
        ("Returns 2024", "2024", NEW, True, ("30 days", AS_SURE)),
        ("Returns 2020", "2020", NEW, True, ("30 days", AS_SURE)),  # the earlier one
        ("Returns", "2022", NEW, False, ("", 0.1)),  # of the same day
        ("Parcels", "2024", NEW, False, ("", 0.1)),  # another document
        ("Returns 2024", "2024", "Parcels wait 30 days.", False, ("", 0.1)),  # about something else
        ("Returns 2024", "2024", "A lamp may be returned.", True, ("", 0.1)),  # without those words
    ],
)
def test_another_version_in_which_the_reader_finds_nothing_claims_what_the_model_answers(
    title, date, text, asked, claims
):
    """So does the one in which it found something."""
    known, other = read(OLD, "Returns 2022", "10 days", 0.999), read(text, title, "", 0.1)
    known[0].node.metadata["date"], other[0].node.metadata["date"] = "2022", date
    model = Answers(**{"Returns 2022": "three weeks", title: "30 days"})
    both = [(QUESTION, [known, other])]
    [(first, second)] = reread(model, both, Alike(2))
    assert first[1].answer == ("three weeks" if asked else "10 days")
    assert (second[1].answer, second[1].answers) == claims
    assert reread(model, both) == [[known, other]]
