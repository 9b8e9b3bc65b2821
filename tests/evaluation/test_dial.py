import json
import re
from dataclasses import replace

import pytest

from control import decoding
from evaluation import datasets, dial, report
from foundation.errors import DataError

ITEM = {
    "question": "What is it?",
    "context": "It is the other one.",
    "context_answers": ["other"],
    "memory_answers": ["one"],
    "true_context": "It is one.",
}


@pytest.fixture
def data(tmp_path):
    """Conflicts of which the tiny model "knows" those whose answer is what it babbles."""
    path = tmp_path / "conflicts.jsonl"

    def write(*items):
        path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        return path

    return write


def test_the_report_has_the_rows_of_the_contract(tiny, tmp_path, data):
    path = data(*({**ITEM, "question": f"What is {letter}?"} for letter in "abcde"))
    result = dial.run(tiny, datasets.conflicts(path), tmp_path / "out", ["ck_plug"], batch_size=2)
    report.write(result | {"data": "conflicts.jsonl", "split": None}, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    for name in ("known", "all"):
        assert [(row["rule"], row["alpha"]) for row in written[name]] == [
            ("plain", "closed-book"),
            ("plain", "plain"),
            *(("ck_plug", alpha) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)),
        ]
        assert {"n", "n_known", "ConR", "ParR", "MR", "hit", "ci"} <= written[name][0].keys()
    assert written["all"][0]["n"] == 5
    assert {row["n"] for row in written["unknown"]} == {5 - written["n_known"]}
    assert written["Q"].keys() == {"ck_plug"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']https?:""", page)


def test_facts_that_the_model_says_closed_book_count_as_known(tiny, tmp_path, data):
    first = dial.run(tiny, datasets.conflicts(data(ITEM)), tmp_path / "first")
    assert first["n_known"] == 0
    lines = (tmp_path / "first" / "answers.jsonl").read_text().splitlines()[1:]
    said = next(text for _, passage, _, _, text in map(json.loads, lines) if passage == "none")
    babble = datasets.conflicts(data({**ITEM, "memory_answers": [said]}))
    result = dial.run(tiny, babble, tmp_path / "second")
    assert result["n_known"] == 1
    assert result["known"][0]["ParR"] == 100
    assert result["unknown"][0]["n"] == 0
    assert result["Q"] == {"ck_plug": None}  # nothing unknown to be right about: no number


def test_adaptive_is_judged_in_three_states(tiny, tmp_path, data):
    items = datasets.conflicts(data(*({**ITEM, "question": f"What is {x}?"} for x in "abcd")))
    first = dial.run(tiny, items[:1], tmp_path / "first")
    assert first["states"] == []
    lines = (tmp_path / "first" / "answers.jsonl").read_text().splitlines()[1:]
    said = next(text for _, passage, _, _, text in map(json.loads, lines) if passage == "none")
    items[0] = replace(items[0], memory_answers=(said,))
    result = dial.run(tiny, items, tmp_path / "out", ["ck_plug", "cad"], adaptive=True)
    report.write(result | {"data": "x", "split": None}, tmp_path / "out")
    assert [(row["rule"], row["alpha"]) for row in result["states"]] == [
        ("plain", "plain"),
        ("ck_plug", "auto"),
        ("cad", "auto"),
    ]
    assert result["states"][0]["n"] == {"correction": 3, "resistance": 1, "agreement": 1}
    assert result["states"][0]["p"] == {"correction": 1, "resistance": 1, "agreement": 1}
    assert "three states" in (tmp_path / "out" / "report.html").read_text()


def test_an_interrupted_run_goes_on_where_it_stopped(tiny, tmp_path, data, monkeypatch):
    items = datasets.conflicts(
        data(*({**ITEM, "question": f"What is {letter}?"} for letter in "abcdef"))
    )
    whole = dial.run(tiny, items, tmp_path / "whole", batch_size=2)

    asked = []
    generate = decoding.generate

    def failing(model, prompts, *rest, **named):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(prompts)
        return generate(model, prompts, *rest, **named)

    monkeypatch.setattr(decoding, "generate", failing)
    with pytest.raises(KeyboardInterrupt):
        dial.run(tiny, items, tmp_path / "broken", batch_size=2)
    with (tmp_path / "broken" / "answers.jsonl").open("a") as file:
        file.write('["half a li')
    monkeypatch.setattr(decoding, "generate", generate)
    assert dial.run(tiny, items, tmp_path / "broken", batch_size=2) == whole


def test_answers_of_another_run_are_not_mixed_in(tiny, tmp_path, data):
    dial.run(tiny, datasets.conflicts(data(ITEM)), tmp_path / "out")
    others = datasets.conflicts(data({**ITEM, "question": "Another?"}))
    with pytest.raises(DataError, match="another run"):
        dial.run(tiny, others, tmp_path / "out")
