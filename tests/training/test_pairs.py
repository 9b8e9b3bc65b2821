from collections import Counter
from dataclasses import replace

import pytest

from foundation.errors import DataError
from foundation.text import holds
from training import conflicts, pairs
from training.pairs import DPO_RATIOS, SFT_RATIOS, find_form, refuses
from training.probing import Memory


@pytest.fixture
def cases(facts, embed):
    return conflicts.build(facts, embed)


def by_kind(made):
    return {example.kind: example for example in made.examples}


def test_what_is_to_be_said_follows_the_kind_of_context(cases, memories):
    made = pairs.build_sft(cases, memories, len, 40)
    facts = {case.fact.id: case for case in cases}
    for example in made.examples:
        case = facts[example.fact]
        if example.kind == "counterfactual":
            assert holds(example.chosen, case.counterfactual.says)
        elif example.kind == "irrelevant, unknown":
            assert refuses(example.chosen)
        else:
            assert holds(example.chosen, case.fact.answers)
        assert (example.passages == ()) == (example.kind == "empty, known")
    assert set(by_kind(made)) == set(SFT_RATIOS)


def test_pairs_set_the_answer_to_give_against_the_error_of_their_kind(cases, memories):
    made = pairs.build_dpo(cases, memories, len, 40)
    facts = {case.fact.id: case for case in cases}
    assert set(by_kind(made)) == set(DPO_RATIOS)
    for example in made.examples:
        case = facts[example.fact]
        right, other = case.fact.answers, case.counterfactual.says
        if example.kind == "ignorance, counterfactual":
            assert holds(example.chosen, other)
            assert holds(example.rejected, right)
        elif example.kind == "ignorance, relevant":
            assert holds(example.chosen, right)
            assert holds(example.rejected, ["Nowhere"])  # what this model remembers
        else:
            assert refuses(example.chosen) or holds(example.chosen, right)
            wrong = " ".join(example.passages)
            assert holds(wrong, [example.rejected.split()[-1]])  # a span of the passages


def test_both_answers_of_a_pair_are_about_as_long(cases, memories):
    rambling = [replace(memory, greedy=memory.greedy + " And so on." * 9) for memory in memories]
    matched = pairs.build_dpo(cases, rambling, len, 40).examples
    assert all(
        abs(len(e.chosen) - len(e.rejected)) <= max(1, 0.25 * len(e.chosen)) for e in matched
    )
    unmatched = pairs.build_dpo(cases, rambling, len, 40, match_lengths=False).examples
    ignorance = [each for each in unmatched if each.kind.startswith("ignorance")]
    assert all(len(each.rejected) > 2 * len(each.chosen) for each in ignorance)


def test_ratios_set_how_many_of_each_kind_there_are(cases, memories):
    ratios = {**dict.fromkeys(SFT_RATIOS, 1), "counterfactual": 3, "empty, known": 0}
    counts = Counter(
        example.kind for example in pairs.build_sft(cases, memories, len, 12, ratios).examples
    )
    assert counts["counterfactual"] == 3 * counts["relevant"]
    assert "empty, known" not in counts


def test_an_empty_kind_is_named_with_the_counts(cases, memories):
    everything = [
        replace(memory, greedy=memory.reading, samples=(memory.reading,)) for memory in memories
    ]
    with pytest.raises(DataError, match=r"no example of the kind 'irrelevant, unknown'.*counter"):
        pairs.build_sft(cases, everything, len, 40)


def test_a_model_that_knows_nothing_is_refused_with_the_count(cases, memories):
    ignorant = [replace(memory, greedy="No idea.", samples=("No.",)) for memory in memories]
    with pytest.raises(DataError, match="knows none of 90 facts"):
        pairs.build_sft(cases, ignorant, len, 40)


def test_a_form_is_the_shortest_sentence_of_the_model_that_states_the_answer():
    memory = Memory(
        "It is, as everyone says, Rome.", ("It is Oslo.", "It is ROME. Really."), "Rome, or Rome."
    )
    form = find_form(memory, ("Rome",), len)
    assert form.say("Paris") == "It is Paris."
    assert find_form(replace(memory, greedy="", samples=()), ("Rome",), len) is None  # stated twice


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        ("The city {gap} was in is {answer}.", "The city {gap} was in is"),
        ("The answer is {answer}.", None),
        ("{answer} is the city of {gap}.", None),
    ],
)
def test_a_fact_is_asked_as_the_models_own_sentence_to_finish(cases, sentence, asked):
    case = cases[0]
    right, about = case.fact.answers[0], case.fact.question.rstrip("?")
    memory = Memory(sentence.format(gap=about, answer=right), (), "")
    begun = pairs.to_cloze(case, memory, len)
    assert begun.fact.question == (asked.format(gap=about) if asked else case.fact.question)
    assert begun.relevant == case.relevant


@pytest.mark.parametrize("answer", [*pairs.REFUSALS, "I do not know it. It may be Rome."])
def test_a_refusal_is_recognised(answer):
    assert refuses(answer)


@pytest.mark.parametrize("answer", ["It is Rome.", "Rome. I don't know more.", ""])
def test_an_answer_is_no_refusal(answer):
    assert not refuses(answer)
