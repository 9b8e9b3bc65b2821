import math
from contextlib import nullcontext

import numpy as np
import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from app.factory import ADAPTERS
from foundation import trace
from foundation.errors import InputError, ModelError
from retrieval import filter as filters
from retrieval.filter import (
    CrossEncoderLogits,
    EvidenceJudge,
    JudgeCalibration,
    KnowledgeFilter,
    reader_logits,
)
from tests.retrieval.conftest import BagOfWords

QUESTION = "Who wrote Emma?"
JUDGEMENT = JudgeCalibration(logit=0.5, cosine=3.0, bias=-1.0, threshold=0.4)


class Unit(BagOfWords):
    """Vectors of length one, as those of the packaged model."""

    def _vector(self, text):
        vector = super()._vector(text)
        length = math.hypot(*vector)
        return [value / length for value in vector]


class Table:
    """A judge with a table: how likely a passage answers, by its first word."""

    def __init__(self, **likely):
        self.likely = likely
        self.asked = []

    def __call__(self, question, passages):
        self.asked += [(question, passage) for passage in passages]
        return [self.likely[passage.split()[0]] for passage in passages]


def nodes(*texts):
    return [NodeWithScore(node=TextNode(id_=text, text=text), score=0.5) for text in texts]


def kept(judge, texts, threshold=0.5, queries=None):
    asked = QueryBundle(QUESTION, custom_embedding_strs=queries)
    found = KnowledgeFilter(judge, threshold).postprocess_nodes(nodes(*texts), asked)
    return [node.text for node in found]


def test_passages_from_the_threshold_up_stay_and_the_likeliest_come_first():
    judge = Table(low=0.1, at=0.5, below=0.4999, high=0.6, also=0.5)
    assert kept(judge, ["low", "at", "below", "high"]) == ["high", "at"]
    assert kept(judge, ["high", "at"], threshold=0.6) == ["high"]
    assert kept(judge, ["at", "low", "also at"], threshold=0) == ["at", "also at", "low"]


def test_of_passages_that_are_judged_alike_the_one_ranked_higher_is_likelier():
    judge = Table(one=0.6, two=0.6, better=0.9)
    knowledge = KnowledgeFilter(judge, 0.5, rank_weight=1.0)
    found = knowledge.postprocess_nodes(nodes("one", "two", "better"), QueryBundle(QUESTION))
    assert [node.text for node in found] == ["better", "one"]


def test_a_model_that_reads_few_passages_reads_only_those_near_the_likeliest():
    judge = Table(best=0.9, near=0.64, far=0.62)
    knowledge = KnowledgeFilter(judge, 0.5, near_best=0.7)
    found = knowledge.postprocess_nodes(nodes("far", "best", "near"), QueryBundle(QUESTION))
    assert [node.text for node in found] == ["best", "near"]


def test_by_cosine_a_passage_that_is_nearer_to_the_question_is_surer():
    judge = EvidenceJudge(JudgeCalibration(0.0, 3.0, -1.0, 0.4), Unit())
    half, none = judge("wrote Emma", ["wrote novels", "another text"])
    assert half == pytest.approx(1 / (1 + math.exp(-(3 * 0.5 - 1))))
    assert none == pytest.approx(1 / (1 + math.exp(1)))
    assert judge("wrote Emma", []) == []


def test_a_passage_that_a_judge_cannot_judge_is_dropped():
    judge = Table(nan=math.nan, inf=math.inf, good=0.9)
    assert kept(judge, ["nan", "inf", "good"]) == ["good"]


def test_a_passage_that_answers_one_of_the_searches_stays():
    def judge(question, passages):
        return [
            float(passage == "Nokia is Finnish" and question == "Nokia") for passage in passages
        ]

    queries = [QUESTION, "Nokia", "capital of Finland"]
    assert kept(judge, ["Nokia is Finnish", "Sony"], queries=queries) == ["Nokia is Finnish"]
    assert kept(judge, ["Nokia is Finnish", "Sony"]) == []


def test_of_each_search_only_what_the_searches_rank_first_is_judged():
    judge = Table(one=0.9, two=0.8, three=0.7, four=0.6)
    kept(judge, ["one", "two", "three", "four"], queries=[QUESTION, "Nokia"])
    assert [passage for asked, passage in judge.asked if asked == "Nokia"] == ["one", "two"]


def test_the_same_passage_is_judged_once_for_the_same_question():
    judge = Table(one=0.9, two=0.1)
    knowledge = KnowledgeFilter(judge, 0.5)
    assert knowledge.probabilities(QUESTION, ["one", "two", "one"]) == [0.9, 0.1, 0.9]
    assert knowledge.probabilities(QUESTION, ["two", "one"]) == [0.1, 0.9]
    assert judge.asked == [(QUESTION, "one"), (QUESTION, "two")]
    knowledge.probabilities("Another?", ["one"])
    assert judge.asked[2:] == [("Another?", "one")]


def test_of_very_many_verdicts_the_last_are_remembered(monkeypatch):
    monkeypatch.setattr(filters, "CACHED_PASSAGES", 2)
    judge = Table(a=0.9, b=0.8, c=0.7)
    knowledge = KnowledgeFilter(judge, 0.5)
    assert knowledge.probabilities(QUESTION, ["a", "b", "c"]) == [0.9, 0.8, 0.7]
    assert knowledge.probabilities(QUESTION, ["c", "b"]) == [0.7, 0.8]
    assert len(judge.asked) == 3
    knowledge.probabilities(QUESTION, ["a"])
    assert len(judge.asked) == 4


def test_the_user_sees_each_verdict():
    with trace.following() as way:
        kept(Table(good=0.9, bad=0.2), ["good", "bad"])
    assert way.verdicts == pytest.approx({"good": 0.9, "bad": 0.2})
    assert way.passed == {"good"}


def test_title_and_text_are_judged_and_nothing_that_is_hidden():
    node = TextNode(
        text="Jane Austen wrote it.",
        metadata={"title": "Emma", "content_hash": "f00"},
        excluded_embed_metadata_keys=["content_hash"],
        metadata_template="{value}",
        text_template="{metadata_str}\n{content}",
    )
    judge = Table(Emma=0.9)
    [_] = KnowledgeFilter(judge, 0.5).postprocess_nodes(
        [NodeWithScore(node=node)], QueryBundle(QUESTION)
    )
    assert judge.asked == [(QUESTION, "Emma\nJane Austen wrote it.")]


def test_where_nothing_was_found_nothing_is_judged():
    judge = Table()
    assert kept(judge, []) == []
    assert judge.asked == []


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(InputError, match=r"threshold is .*; give a number from 0 to 1"):
        KnowledgeFilter(Table(), threshold)


def test_a_filter_without_a_question_is_refused():
    with pytest.raises(InputError, match="without a question"):
        KnowledgeFilter(Table(), 0.5).postprocess_nodes(nodes("a"))


def test_the_premise_ends_where_the_label_goes_on():
    text = filters.judge_prompt(QUESTION, "Emma\nJane Austen wrote it.")
    assert text.index("Jane Austen") < text.index(QUESTION)
    assert text.endswith("?")
    assert all(label.startswith(" ") for label in filters.LABELS)


def test_a_judgement_that_cannot_be_read_is_named(tmp_path):
    for damaged in (None, "{", "7", "[]", '{"logit": 1}'):
        if damaged is not None:
            (tmp_path / "judgement.json").write_text(damaged)
        with pytest.raises(ModelError, match=r"judgement.json: .* cannot be read .*train it again"):
            JudgeCalibration.load(tmp_path / "judgement.json")
    JUDGEMENT.save(tmp_path / "judgement.json")
    assert JudgeCalibration.load(tmp_path / "judgement.json") == JUDGEMENT


def test_a_cross_encoder_without_its_weights_is_named_when_it_is_needed(tmp_path):
    judge = EvidenceJudge(JUDGEMENT, BagOfWords(), CrossEncoderLogits(tmp_path))
    assert judge(QUESTION, []) == []
    with pytest.raises(ModelError, match="the filter's adapter cannot be loaded"):
        judge(QUESTION, ["a"])


def test_logit_and_cosine_make_one_probability(tmp_path, monkeypatch):
    class Encoder:
        def predict(self, pairs, **_):
            return np.array(
                [{"sure": 2.0, "not": -2.0}[passage.split()[0]] for _, passage in pairs]
            )

    monkeypatch.setattr(filters, "load_cross_encoder", lambda _: Encoder())
    monkeypatch.setattr(filters, "bfloat16_autocast", lambda _: nullcontext())
    judge = EvidenceJudge(JUDGEMENT, Unit(), CrossEncoderLogits(tmp_path))
    cosine = 2 / 3  # two of three words are the same
    wanted = [1 / (1 + math.exp(-(0.5 * logit + 3 * cosine - 1))) for logit in (2, -2)]
    assert judge("wrote Emma who", ["sure wrote emma", "not wrote emma"]) == pytest.approx(wanted)


def test_a_reader_that_is_sure_of_something_else_or_of_nothing_is_believed_within_bounds():
    logits = reader_logits([0.0, 0.5, 0.9, 1.0])
    assert logits[1] == 0
    assert logits[2] == pytest.approx(math.log(9))
    assert np.isfinite(logits).all()
    assert logits[0] == pytest.approx(-logits[3])


def test_a_judge_whose_weights_are_cast_once_judges_as_before(monkeypatch):
    passages = [
        "Emma is a novel by Jane Austen.",
        "Emma Bull is a writer of fantasy.",
        "The road leads from the town to the sea, and back. " * 20,
    ]

    def judged():
        return CrossEncoderLogits(ADAPTERS / "cross-encoder")(QUESTION, passages)

    once = judged()
    monkeypatch.setattr(filters, "cast_to_bfloat16", lambda model: model)
    assert (judged() == once).all()
