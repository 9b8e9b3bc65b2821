from dataclasses import replace

from foundation.text import holds
from training import conflicts
from training.conflicts import replace_answer


def texts(context):
    return " ".join(context.passages)


def test_contexts_say_what_their_kind_promises(facts, embed):
    cases = conflicts.build(facts, embed)
    assert len(cases) == len(facts)
    for case in cases:
        right, other = case.fact.answers, case.counterfactual.says
        assert [len(case.context(kind).passages) for kind in ("relevant", "counterfactual")] == [
            4,
            4,
        ]
        assert case.fact.passage in case.relevant.passages
        assert not holds(texts(case.relevant), other)
        assert holds(texts(case.counterfactual), other[:1])
        assert not holds(texts(case.counterfactual), right)  # aliases are gone too
        assert len(case.irrelevant.passages) == 4
        assert not holds(texts(case.irrelevant), (*right, *other))
        assert all(holds(texts(case.irrelevant), [each]) for each in case.irrelevant.distractors)
        assert case.context("empty").passages == ()


def test_one_passage_is_of_the_same_topic_and_two_are_not(facts, embed):
    kinds = {fact.passage: fact.kind for fact in facts}
    for case in conflicts.build(facts, embed):
        beside = [kinds[text] for text in case.relevant.passages if text != case.fact.passage]
        assert beside.count(case.fact.kind) == 1
        first = case.irrelevant.distractors[0]
        assert next(fact.kind for fact in facts if first in fact.answers) == case.fact.kind


def test_no_place_among_the_passages_gives_the_answer_away(facts, embed):
    cases = conflicts.build(facts, embed)
    places = {case.relevant.passages.index(case.fact.passage) for case in cases}
    assert places == {0, 1, 2, 3}


def test_the_answer_is_replaced_by_one_as_long(facts, embed):
    cases = conflicts.build(facts, embed)
    for case in cases:
        assert len(case.counterfactual.says[0]) == len(case.fact.answers[0])
        assert case.counterfactual.says[0] != case.fact.answers[0]


def test_an_answer_is_replaced_everywhere_and_sentences_keep_their_capitals():
    text = "Gold is heavy. It is gold, or Au; not golden. gold!"
    told = replace_answer(text, ("gold", "Au"), "tin")
    assert told == "Tin is heavy. It is tin, or tin; not golden. Tin!"


def test_a_passage_that_is_there_already_is_the_counterfactual(facts, embed):
    written = [replace(facts[0], contrary=("Ada built it.", ("Ada",))), *facts[1:]]
    case = next(c for c in conflicts.build(written, embed) if c.fact.id == facts[0].id)
    assert "Ada built it." in case.counterfactual.passages
    assert case.counterfactual.says == ("Ada",)


def test_a_fact_without_another_answer_of_its_kind_is_left_out(facts, embed):
    lonely = facts[0]
    cases = conflicts.build([lonely, *facts[45:]], embed)
    assert lonely.id not in {case.fact.id for case in cases}
    assert cases


def test_the_same_seed_gives_the_same_contexts(facts, embed):
    assert conflicts.build(facts, embed, seed=3) == conflicts.build(facts, embed, seed=3)
    assert conflicts.build(facts, embed, seed=3) != conflicts.build(facts, embed, seed=4)
