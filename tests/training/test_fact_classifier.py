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
