import random
from collections import Counter

from training import fact_classifier


def test_no_fact_is_both_learned_from_and_held_out():
    learned, held_out = (
        {(fact["subject"], fact["relation"]) for fact in fact_classifier.written(side)}
        for side in (False, True)
    )
    assert len(held_out) > 25
    assert not learned & held_out


def test_every_written_fact_has_texts_of_all_kinds_and_masks_its_answer():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    for fact in fact_classifier.written(held_out=True):
        examples = list(fact_classifier.of_fact(fact, draw))
        kinds = Counter((one.kind, one.concerns) for one in examples)
        assert kinds["asking", True] == len(fact["asking"])
        assert kinds["stating", True] == len(fact["stating"])
        masked = [one for one in examples if one.kind == "masked"]
        assert not any(one.concerns or f" {fact['answer']} " in one.text for one in masked)
        told = [one.fact for one in examples if one.kind == "asking"]
        assert not any(
            fact["answer"] in one for one in told if fact["answer"] not in fact["subject"]
        )


def test_a_sentence_of_a_passage_is_read_after_what_precedes_it_and_never_after_itself():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    for fact in fact_classifier.written(held_out=True):
        states = {
            one["text"]: one["states"]
            for name in fact_classifier.TEXTS
            for each in fact[name]
            for one in each["sentences"]
        }
        examples = list(fact_classifier.of_passages(fact, draw))
        assert examples
        for example in examples:
            before, _, now = example.text.rpartition("Now: ")
            [said] = [text for text in states if example.text.endswith(text)]
            assert states[said] == example.concerns
            assert not before or now == said


def test_the_same_fact_of_another_subject_is_not_the_fact():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    first, *others = fact_classifier.written(held_out=True)
    names = [fact_classifier.record_of(one) for one in others]
    examples = list(fact_classifier.of_other_names(first, names, draw))
    assert len(examples) == fact_classifier.RENAMED
    for example in examples:
        assert not example.concerns
        assert not example.fact.startswith(f"{first['subject']} ")


def test_a_record_without_aliases_is_asked_for_as_often_as_any_other():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    told = Counter()
    for fact in fact_classifier.written(held_out=True):
        for example in fact_classifier.of_fact(fact, draw):
            told[f"{fact['subject']} (" in example.fact, example.concerns] += 1
    with_aliases, without = (told[side, True] / told[side, False] for side in (True, False))
    assert told[False, True] > 100
    assert 0.5 < without / with_aliases < 2


def test_plain_facts_are_told_of_their_subject_and_not_of_another():
    draw = random.Random(0)  # noqa: S311 - a reproducible choice, nothing secret
    relations = fact_classifier.written(path=fact_classifier.PLAIN)
    held_out = fact_classifier.written(True, fact_classifier.PLAIN)
    assert len(held_out) > 10
    assert not any(relation in relations for relation in held_out)
    for relation in [*relations, *held_out]:
        subjects = {fact["subject"] for fact in relation["facts"]}
        for one in fact_classifier.of_relation(relation, draw):
            assert not {"{", "}"} & {*one.text, *one.fact}
            of = [subject for subject in subjects if one.fact.startswith(f"{subject}: ")]
            if one.kind == "plainly of another":
                assert not one.concerns
                named = [subject for subject in subjects if subject in one.text]
                assert set(named) - set(of) or not named
