import pytest

from evaluation.datasets.contexts import Items
from evaluation.suites import preference
from evaluation.suites.preference import BASE, PROMPTED, PreferencePlan
from foundation.errors import DataError
from training.conflicts import Context, ContextCase
from training.corpus import CorpusFact


def case(place):
    fact = CorpusFact(str(place), f"Where is {place}?", (f"right{place}",), f"right{place}", "town")
    return ContextCase(
        fact,
        Context((f"It is right{place}.", "Noise."), fact.answers, ()),
        Context((f"It is wrong{place}.", "Noise."), (f"wrong{place}",), ()),
        Context((f"Other is other{place}.",), (), (f"other{place}",)),
    )


CASES = tuple(case(place) for place in range(8))  # the first six are known


def answered(follows, firm, refusing):
    """Says whether conflicts follow the passages, memory stands firm, the unknown is refused."""

    def say(place, passages):
        text = " ".join(passages)
        known = place < 6
        if "wrong" in text:
            return f"It is {'wrong' if follows(place) else 'right'}{place}."
        if "other" in text:
            if not known and refusing:
                return "I don't know."
            return f"It is {'right' if known and firm(place) else 'other'}{place}."
        if "right" in text or known:
            return f"It is right{place}."
        return "It is elsewhere."

    return say


@pytest.fixture
def scripted(monkeypatch):
    """Answers by a script in place of the model, by who asks and which prompt it is."""
    asked = []
    scripts = {
        BASE: answered(lambda place: place < 2, lambda place: place < 1, False),
        PROMPTED: answered(lambda place: place < 3, lambda place: place < 1, False),
        "sft": answered(lambda place: place < 4, lambda place: place < 4, True),
        "knowpo": answered(lambda _: True, lambda place: place < 5, True),
    }

    def plain(self, system, batch):
        for one, context in batch:
            asked.append((system.name, one.fact.id))
            yield "plain", one.fact.id, scripts[system.name](int(one.fact.id), context.passages)

    def dialled(self, system, batch):
        for one, context in batch:
            for alpha in preference.ALPHAS:
                said = scripts[system.name](int(one.fact.id), context.passages)
                yield str(alpha), one.fact.id, said

    monkeypatch.setattr(preference.PreferenceAnswers, "_plain", plain)
    monkeypatch.setattr(preference.PreferenceAnswers, "_dialled", dialled)
    return asked


def measured(tiny, target, **plan):
    adapters = [("sft", None), ("knowpo", None)]
    return preference.run(
        tiny, Items("made up", CASES), adapters, None, target, PreferencePlan(**plan)
    )


def test_the_report_counts_what_each_system_does(tiny, scripted, tmp_path):
    report = measured(tiny, tmp_path)
    assert (report["n"], report["n_known"], report["n_unknown"]) == (8, 6, 2)
    rows = {row["system"]: row for row in report["tables"]["preference"]}
    assert list(rows) == [BASE, PROMPTED, "sft", "knowpo"]
    assert rows[BASE]["R_Ad"] == pytest.approx(100 * 2 / 6)
    assert rows[BASE]["MR"] == pytest.approx(100 * 4 / 6)
    assert rows["knowpo"]["R_Ad"] == 100
    assert rows["knowpo"]["R_Ro"] == pytest.approx(100 * 5 / 6)
    assert rows["knowpo"]["refused, unknown"] == 100
    assert rows["knowpo"]["refused, known"] == 0
    assert rows["knowpo"]["closed-book"] == pytest.approx(75)
    assert rows[BASE]["right, unknown"] == 100
    best = 100 * 3 / 6 + 100 * 1 / 6
    assert report["gain"] == pytest.approx(100 * ((100 + 100 * 5 / 6) / best - 1))


def test_each_adapter_is_tested_against_the_one_before_it(tiny, scripted, tmp_path):
    first, second = measured(tiny, tmp_path)["tables"]["paired"]
    assert (first["system"], first["against"]) == ("sft", BASE)
    assert (second["system"], second["against"]) == ("knowpo", "sft")
    assert second["R_Ad"] == "+2 -0"
    assert second["p, R_Ad"] == 0.5  # two of two, exact


def test_the_dial_has_a_row_for_each_system_and_alpha(tiny, scripted, tmp_path):
    rows = measured(tiny, tmp_path)["tables"]["dial"]
    assert [(row["system"], row["alpha"]) for row in rows[:4]] == [
        (BASE, "plain"),
        (BASE, "0.0"),
        (BASE, "0.5"),
        (BASE, "1.0"),
    ]
    assert "dial" not in measured(tiny, tmp_path / "plain", dialled=False)["tables"]


def test_a_second_call_asks_nothing_again(tiny, scripted, tmp_path):
    first = measured(tiny, tmp_path)
    scripted.clear()
    assert measured(tiny, tmp_path) == first
    assert not scripted


def test_only_so_many_known_and_unknown_facts_are_asked(tiny, scripted, tmp_path):
    report = measured(tiny, tmp_path, known=3, unknown=1)
    assert (report["n_known"], report["n_unknown"]) == (3, 1)


def test_a_model_that_knows_nothing_has_nothing_to_measure(tiny, scripted, tmp_path):
    with pytest.raises(DataError, match="tiny knows none of the 2 facts closed-book"):
        preference.run(tiny, Items("made up", CASES[6:]), [], None, tmp_path)
