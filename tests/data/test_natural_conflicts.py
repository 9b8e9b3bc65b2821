"""The conflicts in natural text: each passage states its own value and not the other one."""

from collections import Counter

import pytest

from evaluation.datasets.conflicts import NATURAL_CONFLICTS, conflicts
from foundation.text import holds

SPLITS = ("calibration", "test")
LEAST = 150  # of a split, so that enough of them are known and enough are not
STYLES = 12


@pytest.mark.parametrize("split", SPLITS)
def test_each_passage_states_its_own_value_alone(split):
    items = conflicts(NATURAL_CONFLICTS, split)
    assert len(items) >= LEAST
    for item in items:
        assert holds(item.context, item.context_answers), item.id
        assert holds(item.true_context, item.memory_answers), item.id
        assert not holds(item.context, item.memory_answers), item.id
        assert not holds(item.true_context, item.context_answers), item.id
        assert not holds(item.question, item.context_answers + item.memory_answers), item.id


def test_the_splits_share_neither_facts_nor_styles():
    calibration, test = (conflicts(NATURAL_CONFLICTS, split) for split in SPLITS)
    assert not {item.question for item in calibration} & {item.question for item in test}
    styles = [Counter(item.relation for item in split) for split in (calibration, test)]
    assert not styles[0].keys() & styles[1].keys()
    assert all(len(of_split) == STYLES for of_split in styles)
