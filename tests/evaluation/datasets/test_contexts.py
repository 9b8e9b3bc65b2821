import json

import numpy as np
import pytest

from evaluation.datasets import contexts
from foundation.errors import DataError
from foundation.text import holds
from retrieval.embedding import unit_vectors
from tests.retrieval.conftest import BagOfWords


@pytest.fixture
def embed():
    bag = BagOfWords()
    return lambda texts: unit_vectors(np.array([bag._vector(text) for text in texts]))


def written(tmp_path, rows):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_built_in_conflicts_keep_their_counterfactual(embed):
    items = contexts.read(None, "test", 60, embed)
    assert items.name == "built-in, test"
    with contexts.datasets.BUILT_IN_CONFLICTS.open(encoding="utf-8") as file:
        told = {row["id"]: row for row in map(json.loads, file)}
    assert len(items.cases) > 50
    for case in items.cases:
        row = told[case.fact.id]
        assert row["split"] == "test"
        assert row["context"] in case.counterfactual.passages
        assert case.counterfactual.says == tuple(row["context_answers"])
        assert not holds(" ".join(case.irrelevant.passages), case.fact.answers)


def test_ramdocs_brings_its_own_passages(embed, tmp_path):
    def document(kind, text):
        return {"type": kind, "text": text, "answer": ""}

    row = {
        "question": "Who wrote it?",
        "gold_answers": ["Ada"],
        "wrong_answers": ["Bob"],
        "documents": [
            document("correct", "Ada wrote it."),
            document("misinfo", "Bob wrote it."),
            document("noise", "It rained."),
            document("noise", "Ada was there."),
        ],
    }
    bare = {**row, "documents": row["documents"][:2]}
    [case] = contexts.read(written(tmp_path, [row, bare]), None, None, embed).cases
    assert set(case.relevant.passages) == {"Ada wrote it.", "It rained."}
    assert set(case.counterfactual.passages) == {"Bob wrote it.", "It rained."}
    assert case.counterfactual.says == ("Bob",)
    assert case.irrelevant.passages == ("It rained.",)  # noise with the answer is no noise


def test_a_file_without_true_passages_is_refused(embed, tmp_path):
    row = {
        "question": "Who?",
        "context": "Bob did.",
        "context_answers": ["Bob"],
        "memory_answers": ["Ada"],
    }
    with pytest.raises(DataError, match="no item has a passage with the right answer"):
        contexts.read(written(tmp_path, [row]), None, None, embed)
