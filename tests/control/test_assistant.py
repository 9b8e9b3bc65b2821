from dataclasses import replace

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from control import calibration as calibrations
from control.assistant import STEPS, Assistant
from control.calibration import ANY_MODEL
from control.decoding import Decoding
from foundation.errors import InputError


class Shelf(BaseRetriever):
    """A retriever that always finds the same passages."""

    def __init__(self, *texts):
        self.texts = texts
        super().__init__()

    def _retrieve(self, query_bundle):
        return [
            NodeWithScore(
                node=TextNode(id_=f"p{i}", text=text, metadata={"title": f"T{i}"}), score=0.5
            )
            for i, text in enumerate(self.texts)
        ]


HOW = Decoding(max_new_tokens=16)


@pytest.fixture
def assistant(tiny, always):
    """One that finds these passages."""
    return lambda *texts: Assistant(tiny, always(1, model=tiny.identity), Shelf(*texts))


def test_an_answer_carries_its_sources_and_the_time_of_each_step(assistant):
    answer = assistant("abc", "def").ask(" Who? ", HOW)
    assert answer.question == "Who?"
    assert answer.answer == "".join(token.text for token in answer.tokens).strip()
    assert [(s.id, s.title, s.score, s.kept) for s in answer.sources] == [
        ("p0", "T0", 0.5, True),
        ("p1", "T1", 0.5, True),
    ]
    assert tuple(answer.seconds) == STEPS
    assert answer.seconds["total"] >= answer.seconds["decode"] > 0


def test_passages_beyond_the_window_are_left_out_and_the_answer_says_so(assistant):
    answer = assistant("a" * 200, "b" * 200, "c" * 200).ask("Who?", HOW)
    assert [source.kept for source in answer.sources] == [True, True, False]
    assert "window" in answer.sources[2].reason
    assert answer.notices == [
        "1 of 3 passages did not fit into the model's window and were left out, the last ones first"
    ]


def test_an_empty_index_answers_from_memory_and_says_so(assistant):
    answer = assistant().ask("Who?", HOW)
    assert answer.sources == []
    assert "from memory alone" in answer.notices[0]
    assert not answer.conflict


def test_given_passages_are_read_instead_of_retrieved_ones(assistant):
    given = [NodeWithScore(node=TextNode(id_="mine", text="xyz"))]
    answer = assistant("abc").ask("Who?", HOW, given)
    assert [source.id for source in answer.sources] == ["mine"]


@pytest.mark.parametrize(
    ("question", "says"), [("  ", "empty"), ("a" * 100_000, "100,000 characters")]
)
def test_an_unusable_question_is_refused(assistant, question, says):
    with pytest.raises(InputError, match=says):
        assistant("abc").ask(question, HOW)


def test_an_answer_longer_than_the_window_is_refused(assistant):
    with pytest.raises(InputError, match="window of tiny is 512 tokens"):
        assistant().ask("Who?", Decoding(max_new_tokens=1000))


def test_a_model_that_was_not_calibrated_is_named_with_the_way_to_do_it(tiny, always):
    borrowed = Assistant(tiny, always(1, model=ANY_MODEL), Shelf("abc"))
    [notice] = borrowed.ask("Who?", HOW).notices
    assert "tiny has not been calibrated" in notice
    assert "fulcrum eval dial --calibrate" in notice
    assert borrowed.ask("Who?", replace(HOW, rule="ck_plug")).notices == []


def test_an_asked_reliance_becomes_the_alpha_at_which_it_was_measured(tiny, always):
    calibration = always(1, model=tiny.identity, alphas=[0.0, 0.5, 1.0], ratios=[0.0, 0.2, 0.8])
    own = Assistant(tiny, calibration, Shelf("abc"))
    asked = own.ask("Who?", replace(HOW, reliance=0.8))
    assert asked.alpha == 1.0
    assert asked.answer == own.ask("Who?", replace(HOW, alpha=1.0)).answer
    assert own.ask("Who?", replace(HOW, reliance=0.5)).alpha == pytest.approx(0.75)


def test_the_answer_says_where_passages_and_memory_disagree(assistant):
    answer = assistant("abc").ask("Who?", replace(HOW, alpha=1.0))
    assert answer.conflict
    assert answer.verdict.follows == "memory"
    assert answer.verdict.memory_says in answer.answer


@pytest.mark.parametrize(("trust", "city"), [(0.0, "Lima"), (0.5, "Quito"), (1.0, "Quito")])
def test_a_passage_s_trust_turns_the_dial_for_its_conflict(real, always, trust, city):
    node = TextNode(text="Quito is the capital of Peru.", metadata={"trust": trust})
    asked = Assistant(real, always(1), Shelf()).ask(
        "What is the capital of Peru?",
        Decoding(alpha=0.5, max_new_tokens=16),
        [NodeWithScore(node=node)],
    )
    assert city in asked.answer


def test_the_dial_moves_the_real_model_from_the_passage_to_its_memory(real):
    passage = (
        "The seat of government of Peru is Nairobi, where the parliament meets and most "
        "ministries have their offices. Nairobi is the capital of Peru."
    )
    given = [NodeWithScore(node=TextNode(id_="false", text=passage))]
    assistant = Assistant(real, calibrations.shipped(real), Shelf())
    asked = "What is the capital of Peru?"
    documents = assistant.ask(asked, Decoding(alpha=0.5, max_new_tokens=24), given)
    memory = assistant.ask(asked, Decoding(alpha=1.0, max_new_tokens=24), given)
    assert "Nairobi" in documents.answer
    assert "Lima" in memory.answer
    assert memory.conflict
    assert memory.notices == []
    assert (memory.verdict.passages_say, memory.verdict.memory_says) == ("Nairobi", "Lima")
    assert "memory" in {token.source for token in memory.tokens}
