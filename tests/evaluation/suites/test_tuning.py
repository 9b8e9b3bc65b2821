import json

import pytest

from control.conflict import dial as control_dial
from control.decoding.rules import RULES, RuleOutput, parameters
from evaluation import report
from evaluation.datasets import conflicts as datasets
from evaluation.suites import dial, tuning
from foundation.errors import DataError, InputError


@pytest.fixture
def facts(data, babble):
    """Two conflicts that the tiny model knows; of two others it says what it is told."""
    changes = [{"question": f"What is {letter}?"} for letter in "abcd"]
    for change in changes[:2]:
        change["memory_answers"] = [babble(change["question"])]
    return datasets.conflicts(data(*changes))


@pytest.fixture
def told(monkeypatch):
    """Answers in place of the model's: by rule, options and alpha."""
    asked = []

    def answer(_model, prompts, decoding, _calibration, alphas, **_):
        asked.append((decoding.rule, dict(decoding.rule_options)))
        return [says(prompt) for prompt in prompts for _ in alphas]

    monkeypatch.setattr(control_dial, "answer", answer)
    return asked


class Said:
    """A decoded answer of which only the text counts."""

    def __init__(self, text):
        self.trace = self
        self.text = text


def says(prompt):
    """Closed-book, what is true of the facts a and b; with a passage, what it says."""
    known = "What is a?" in prompt.context or "What is b?" in prompt.context
    if not prompt.passages:
        return Said("one" if known else "nothing")
    return Said("other" if known else "one")


@pytest.fixture
def items(data):
    return datasets.conflicts(data(*({"question": f"What is {x}?"} for x in "abcd")))


@pytest.fixture
def reader(tiny):
    return lambda path: tuning.read(path, tiny)


def test_each_option_keeps_the_best_of_its_values(tiny, tmp_path, items, told, reader):
    result = tuning.run(tiny, items, tmp_path, ["coiecd"])
    assert (result["n_known"], result["n_unknown"]) == (2, 2)
    # No option alone changes anything for the better, so all stay as published.
    assert reader(tmp_path / "tuned.json") == {"coiecd": {"strength": 1.0, "factor": 4.0}}
    [row] = result["tables"]["chosen"]
    assert (row["options"], row["Q"]) == ("strength=1, factor=4", 0.0)
    tried = [each["options"] for each in result["tables"]["tried"]]
    assert tried == [
        "as published",
        "strength=0.5",
        "strength=1.5",
        "factor=2",
        "factor=8",
        "factor=16",
    ]
    assert {rule for rule, _ in told} == {"plain", "coiecd"}


def test_a_better_value_is_chosen_and_the_next_option_is_tried_with_it(
    tiny, tmp_path, items, told, reader, monkeypatch
):
    monkeypatch.setattr(control_dial, "answer", following(memory_at={"strength": 0.5}))
    result = tuning.run(tiny, items, tmp_path, ["cad", "coiecd"])
    assert reader(tmp_path / "tuned.json") == {
        "cad": {"strength": 0.5},
        "coiecd": {"strength": 0.5, "factor": 4.0},
    }
    first, _ = result["tables"]["chosen"]
    assert (first["Q as published"], first["Q"], first["MR"], first["right"]) == (0, 100, 100, 100)
    tried = [row["options"] for row in result["tables"]["tried"] if row["rule"] == "coiecd"]
    assert "factor=8, strength=0.5" in tried
    assert "factor=8" not in tried


def following(memory_at):
    """Answers that follow memory in a known conflict where the options are these."""

    def answer(_model, prompts, decoding, _calibration, alphas, **_):
        memory = memory_at.items() <= decoding.rule_options.items()
        return [
            Said("one") if memory and prompt.passages else says(prompt)
            for prompt in prompts
            for _ in alphas
        ]

    return answer


def test_all_rules_with_options_are_tuned_for_the_tiny_model(tiny, tmp_path, facts, monkeypatch):
    def echo(log_p_c, log_p_m, _alpha, *, times=1.0):
        return RuleOutput(times * log_p_c, log_p_m[:, 0] == 0)

    monkeypatch.setitem(RULES, "echo", echo)  # an option that says nothing of what to try
    monkeypatch.setattr(tuning, "quality", lambda *_: 0.0)  # of random answers it says nothing
    monkeypatch.setattr(dial.ScoredAnswers, "memory", either(dial.ScoredAnswers.memory))
    result = tuning.run(tiny, facts, tmp_path, batch_size=4)
    rules = [row["rule"] for row in result["tables"]["chosen"]]
    assert rules == [rule for rule in RULES if rule not in ("plain", "echo")]
    published = {
        rule: {name: option.default for name, option in parameters(rule).items()} for rule in rules
    }
    assert json.loads((tmp_path / "tuned.json").read_text())["rules"] == published
    report.write(result | {"data": "facts", "split": None}, tmp_path)
    assert "Q as published" in (tmp_path / "report.html").read_text(encoding="utf-8")


def either(memory):
    """Unknown facts count as right where the passage is the true one."""

    def held(self, rule, alpha):
        return memory(self, rule, alpha) | (self.passage == "true_context")

    return held


def test_an_interrupted_sweep_goes_on_where_it_stopped(tiny, tmp_path, items, told, monkeypatch):
    whole = tuning.run(tiny, items, tmp_path / "whole", ["cad", "coiecd"], batch_size=1)
    asked_in_all, answer = len(told), control_dial.answer
    told.clear()

    def failing(*given, **named):
        if len(told) == asked_in_all // 2:
            raise KeyboardInterrupt
        return answer(*given, **named)

    monkeypatch.setattr(control_dial, "answer", failing)
    with pytest.raises(KeyboardInterrupt):
        tuning.run(tiny, items, tmp_path / "broken", ["cad", "coiecd"], batch_size=1)
    assert not (tmp_path / "broken" / "tuned.json").exists()
    monkeypatch.setattr(control_dial, "answer", answer)
    again = tuning.run(tiny, items, tmp_path / "broken", ["cad", "coiecd"], batch_size=1)
    assert again == whole
    assert len(told) == asked_in_all


def test_a_rule_that_has_nothing_to_tune_is_named(tiny, tmp_path, items):
    for rule in ("plain", "fulcrum"):
        with pytest.raises(InputError, match=f"rule {rule} has no options to tune; cad, adacad"):
            tuning.run(tiny, items, tmp_path, [rule])


def test_facts_that_say_nothing_of_memory_cannot_tune(tiny, tmp_path, items):
    with pytest.raises(DataError, match="knows 0 of 4 facts"):
        tuning.run(tiny, items, tmp_path, ["cad"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("no json", "cannot be read"),
        ("[]", "cannot be read"),
        ({"rules": {"cad": 1}}, "cannot be read"),
        ({"model": "another", "name": "one"}, "was chosen for one, not for"),
        ({"rules": {"magic": {}}}, "rule is 'magic'"),
        ({"rules": {"cad": {"epsilon": 1}}}, "rule cad has no option 'epsilon'"),
        ({"rules": {"cad": {"strength": "x"}}}, "option strength of rule cad is 'x'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(tiny, tmp_path, reader, content, says):
    path = tmp_path / "tuned.json"
    if isinstance(content, dict):
        good = {"model": tiny.identity, "name": tiny.name, "rules": {}}
        content = json.dumps(good | content)
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        reader(path)
