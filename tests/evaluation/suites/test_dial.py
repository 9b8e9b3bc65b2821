import json
import re

import pytest

from control.conflict import dial as control_dial
from evaluation import report
from evaluation.datasets import conflicts as datasets
from evaluation.judges import fluency
from evaluation.suites import dial
from foundation.errors import DataError, InputError

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture
def items(data):
    """Conflicts of which the tiny model knows none."""

    def read(letters):
        return datasets.conflicts(data(*({"question": f"What is {x}?"} for x in letters)))

    return read


@pytest.fixture
def half_known(data, babble):
    """Two conflicts that the tiny model knows and two that it does not."""
    changes = [{"question": f"What is {letter}?"} for letter in "abcd"]
    for change in changes[:2]:
        change["memory_answers"] = [babble(change["question"])]
    return datasets.conflicts(data(*changes))


def kept(target):
    """The answers on disk: item, passage, rule, alpha, text."""
    lines = (target / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


def written(result, target):
    """The report as a reader of its files finds it."""
    report.write(result | {"data": "conflicts.jsonl", "split": None}, target, "dial")
    page = (target / "report.html").read_text(encoding="utf-8")
    return json.loads((target / "report.json").read_text(encoding="utf-8")), page


def test_the_report_has_the_rows_of_the_contract(tiny, tmp_path, items):
    result = dial.run(tiny, items("abcde"), tmp_path / "out", ["ck_plug"], batch_size=2)
    read, page = written(result, tmp_path / "out")
    for name in ("known", "all"):
        assert [(row["rule"], row["alpha"]) for row in read[name]] == [
            ("plain", "closed-book"),
            ("plain", "plain"),
            *(("ck_plug", alpha) for alpha in ALPHAS),
        ]
        assert {"n", "n_known", "ConR", "ParR", "MR", "hit", "ci"} <= read[name][0].keys()
    assert read["all"][0]["n"] == 5
    assert {row["n"] for row in read["unknown"]} == {5 - read["n_known"]}
    assert read["Q"].keys() == {"ck_plug"}
    assert read["reliance"] == read["trust"] == read["states"] == read["paired"] == []
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']https?:""", page)


def test_the_rule_in_use_is_measured_with_all_that_it_promises(tiny, tmp_path, half_known, always):
    calibration = always(0.5)
    result = dial.run(
        tiny, half_known, tmp_path, adaptive=True, calibration=calibration, trust=True
    )
    read, page = written(result, tmp_path)
    assert {row["rule"] for row in read["known"]} == {"plain", "fulcrum"}
    assert [row["asked"] for row in read["reliance"]] == pytest.approx([10, 30, 50, 70, 90])
    for row in read["reliance"]:
        assert row["turned_to"] == pytest.approx(calibration.alpha(row["asked"] / 100))
        assert row["n"] == 2
        assert row["ci"]["MR"][0] <= row["MR"] <= row["ci"]["MR"][1]
    assert [(row["trust"], row["alpha"]) for row in read["trust"]] == [
        (0.1, 0.5),
        (0.1, "auto"),
        (0.9, 0.5),
        (0.9, "auto"),
    ]
    assert {(row["n_known"], row["n_unknown"]) for row in read["trust"]} == {(2, 2)}
    assert [(row["rule"], row["alpha"]) for row in read["states"]] == [
        ("plain", "plain"),
        ("fulcrum", "auto"),
    ]
    assert read["calibration"]["of"] == calibration.name
    for heading in ("Reliance asked for", "Trust in the passages", "three states", "Fluency"):
        assert heading in page


@pytest.mark.parametrize(("confidence", "ratio"), [(1, 100), (0, 0)])
def test_only_what_memory_is_sure_of_is_answered_from_it(
    tiny, tmp_path, half_known, always, confidence, ratio
):
    how = {"adaptive": True, "calibration": always(confidence)}
    result = dial.run(tiny, half_known, tmp_path, **how)
    rows = {(row["rule"], row["alpha"]): row for row in result["known"]}
    assert rows["plain", "closed-book"]["ParR"] == 100
    assert rows["fulcrum", 1.0]["ParR"] == ratio
    assert rows["fulcrum", 0.5]["ParR"] == rows["plain", "plain"]["ParR"] == 0
    assert [row["resistance"] for row in result["states"]] == [0, ratio]


def test_an_undecided_memory_wins_against_a_doubtful_source_alone(
    tiny, tmp_path, half_known, always
):
    how = {"calibration": always(0.5, known=[0.5] * 4), "trust": True}
    result = dial.run(tiny, half_known, tmp_path, **how)
    assert {(row["trust"], row["alpha"]): row["MR"] for row in result["trust"]} == {
        (0.1, 0.5): 100,
        (0.1, "auto"): 100,
        (0.9, 0.5): 0,
        (0.9, "auto"): 0,
    }


def test_facts_that_the_model_says_closed_book_count_as_known(tiny, tmp_path, data, babble, always):
    first = dial.run(
        tiny, datasets.conflicts(data({})), tmp_path / "first", calibration=always(0.5)
    )
    assert first["n_known"] == 0
    known = datasets.conflicts(data({"memory_answers": [babble("What is it?")]}))
    result = dial.run(tiny, known, tmp_path / "second", calibration=always(0.5))
    assert result["n_known"] == 1
    assert result["known"][0]["ParR"] == 100
    assert result["unknown"][0]["n"] == 0
    assert result["Q"] == {"fulcrum": None}  # nothing unknown to be right about: no number


def test_adaptive_is_judged_in_three_states(tiny, tmp_path, half_known):
    plainly = dial.run(tiny, half_known[1:], tmp_path / "first", ["cad"])
    assert plainly["states"] == []
    result = dial.run(tiny, half_known[1:], tmp_path / "out", ["ck_plug", "cad"], adaptive=True)
    read, page = written(result, tmp_path / "out")
    assert [(row["rule"], row["alpha"]) for row in read["states"]] == [
        ("plain", "plain"),
        ("ck_plug", "auto"),
        ("cad", "auto"),
    ]
    assert read["states"][0]["n"] == {"correction": 2, "resistance": 1, "agreement": 1}
    assert read["states"][0]["p"] == {"correction": 1, "resistance": 1, "agreement": 1}
    assert "three states" in page


def test_rules_are_paired_with_the_first_one(tiny, tmp_path, half_known, always):
    rules = ["fulcrum", "cad", "plain"]
    result = dial.run(tiny, half_known, tmp_path, rules, calibration=always(1))
    read, page = written(result, tmp_path)
    assert [(row["rule"], row["against"]) for row in read["paired"]] == [
        ("fulcrum", "cad"),
        ("fulcrum", "plain"),
    ]
    # A memory that is sure answers both known facts, plain RAG neither.
    assert read["paired"][1]["known"] == {"only_rule": 2, "only_other": 0, "p": 0.5}
    assert "Pairs of rules" in page


def test_fluency_is_that_of_the_answers_to_known_facts(tiny, tmp_path, half_known, always):
    result = dial.run(tiny, half_known, tmp_path, calibration=always(1))
    assert [(row["rule"], row["alpha"]) for row in result["fluency"]] == [
        ("plain", "plain"),
        *(("fulcrum", alpha) for alpha in ALPHAS),
    ]
    known = {item.id for item in half_known[:2]}
    texts = [
        text
        for item, passage, rule, alpha, text in kept(tmp_path)
        if item in known and passage == "context" and rule != "plain" and alpha == "1.0"
    ]
    at_memory = result["fluency"][-1]
    assert len(texts) == at_memory["n"] == 2
    assert at_memory["perplexity"] == pytest.approx(fluency.perplexity(tiny, texts))
    assert at_memory["repetition"] == fluency.repetition(texts)
    assert at_memory["perplexity"] != result["fluency"][0]["perplexity"]


def test_known_only_asks_no_unknown_fact_with_the_wrong_passage(tiny, tmp_path, half_known, always):
    whole = dial.run(tiny, half_known, tmp_path / "whole", calibration=always(1))
    result = dial.run(tiny, half_known, tmp_path / "out", calibration=always(1), known_only=True)
    assert result["all"] == []
    assert {name: value for name, value in result.items() if name != "all"} == {
        name: value for name, value in whole.items() if name != "all"
    }
    asked = {item for item, passage, *_ in kept(tmp_path / "out") if passage == "context"}
    assert asked == {item.id for item in half_known[:2]}
    _, page = written(result, tmp_path / "out")
    assert "Known facts, counterfactual passage" in page
    assert "All facts" not in page


def test_a_token_rule_is_asked_at_the_given_settings_alone(tiny, tmp_path, half_known, always):
    rules = ["cad", "fulcrum"]
    result = dial.run(tiny, half_known, tmp_path, rules, calibration=always(1), alphas=(0.0, 0.6))
    for name in ("known", "all", "unknown"):
        asked = [(row["rule"], row["alpha"]) for row in result[name] if row["rule"] != "plain"]
        assert asked == [("cad", 0.0), ("cad", 0.6), *(("fulcrum", alpha) for alpha in ALPHAS)]
    assert result["Q"]["cad"] is None  # it was not asked at the memory end
    assert result["paired"] == []
    _, page = written(result, tmp_path)
    assert "<svg" in page


def test_a_rule_without_a_dial_is_measured_at_auto_alone(tiny, tmp_path, half_known):
    rules = ["grd", "cad"]
    result = dial.run(tiny, half_known, tmp_path, rules, alphas=(0.0, 1.0), adaptive=True)
    read, page = written(result, tmp_path)
    for name in ("known", "all", "unknown"):
        asked = [(row["rule"], row["alpha"]) for row in read[name] if row["rule"] != "plain"]
        assert asked == [("grd", "auto"), ("cad", 0.0), ("cad", 1.0)]
    assert read["Q"].keys() == {"grd", "cad"}
    assert [(row["rule"], row["against"]) for row in read["paired"]] == [("grd", "cad")]
    assert {row["alpha"] for row in read["fluency"]} == {"plain", "auto"}
    assert set(read["examples"][0]["answers"]) == {"closed-book", "plain", "auto"}
    assert "<svg" in page


def test_options_are_used_and_told(tiny, tmp_path, half_known):
    how = {"rules": ["cad", "adacad"], "alphas": (1.0,)}
    published = dial.run(tiny, half_known, tmp_path, **how)
    options = {"cad": {"strength": 0.0}, "coiecd": {"factor": 2.0}}
    result = dial.run(tiny, half_known, tmp_path, **how, options=options)
    assert published["options"] == {}
    assert result["options"] == {"cad": {"strength": 0.0}}  # coiecd is not measured

    def texts(rule):
        return [text for *_, said_by, _, text in kept(tmp_path) if said_by == rule]

    assert texts("cad strength=0.0") == texts("plain")[-len(texts("cad")) :]
    assert texts("cad strength=0.0") != texts("cad")
    assert published["known"][-1] == result["known"][-1]  # adacad is as it was
    _, page = written(result | {"tuned": "tuned.json"}, tmp_path)
    assert "from tuned.json" in page
    assert "cad strength=0" in page


def test_an_interrupted_run_goes_on_where_it_stopped(tiny, tmp_path, items, always, monkeypatch):
    conflicts = items("abcdef")
    how = {"batch_size": 2, "calibration": always(0.5)}
    whole = dial.run(tiny, conflicts, tmp_path / "whole", **how)

    asked = []
    answer = control_dial.answer

    def failing(model, prompts, *rest, **named):
        if len(asked) == 7:
            raise KeyboardInterrupt
        asked.append(prompts)
        return answer(model, prompts, *rest, **named)

    monkeypatch.setattr(control_dial, "answer", failing)
    with pytest.raises(KeyboardInterrupt):
        dial.run(tiny, conflicts, tmp_path / "broken", **how)
    assert any(rule.startswith("fulcrum") for _, _, rule, *_ in kept(tmp_path / "broken"))
    with (tmp_path / "broken" / "answers.jsonl").open("a") as file:
        file.write('["half a li')
    monkeypatch.setattr(control_dial, "answer", answer)
    assert dial.run(tiny, conflicts, tmp_path / "broken", **how) == whole


def test_a_changed_calibration_asks_again(tiny, tmp_path, half_known, always):
    before = dial.run(tiny, half_known, tmp_path / "both", calibration=always(0))
    after = dial.run(tiny, half_known, tmp_path / "both", calibration=always(1))
    assert after == dial.run(tiny, half_known, tmp_path / "fresh", calibration=always(1))
    assert after["known"] != before["known"]
    assert before == dial.run(tiny, half_known, tmp_path / "both", calibration=always(0))


def test_the_rule_in_use_cannot_be_measured_without_a_calibration(tiny, tmp_path, items):
    with pytest.raises(InputError, match="rule fulcrum needs a calibration"):
        dial.run(tiny, items("a"), tmp_path)


def test_answers_of_another_run_are_not_mixed_in(tiny, tmp_path, items, always):
    dial.run(tiny, items("a"), tmp_path / "out", calibration=always(0.5))
    with pytest.raises(DataError, match="another run"):
        dial.run(tiny, items("b"), tmp_path / "out", calibration=always(0.5))
