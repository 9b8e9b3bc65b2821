import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from control.conflict import calibration as calibrations
from control.conflict import drafts
from control.conflict.calibration import ANY_MODEL
from control.conflict.probe import NUMBERS, ProbeFeatures
from control.conflict.reader import Reading
from evaluation.datasets import conflicts as datasets
from evaluation.suites import calibration as calibrating
from evaluation.suites import observations as suite
from evaluation.suites.observations import Observation
from foundation.errors import DataError

RELATIONS = ["capital", "author", "currency", "painter"]
STATES, SIZE = 8, 4


def observed(relation, known, seen, at=0):
    """A conflict: memory is right about a known fact, the passages about an unknown one."""
    ways = ["plain", "memory", "grounded"]
    return Observation(
        id=f"{relation} {known} {at}",
        relation=relation,
        known=known,
        conflict=True,
        loose=True,
        evidence=seen,
        context={way: known and way != "memory" for way in ways},
        memory={way: known == (way == "memory") for way in ways},
    )


def noise(random):
    return ProbeFeatures(
        torch.randn(NUMBERS, generator=random), torch.randn(STATES, SIZE, generator=random)
    )


@pytest.fixture
def conflicts():
    """Conflicts whose evidence is noise, but for what ``mark`` writes into it."""

    def make(mark, relations=RELATIONS, each=30, seed=0):
        random = torch.Generator().manual_seed(seed)
        made = []
        for place, relation in enumerate(relations):
            for at in range(each):
                for known in (True, False):
                    seen = noise(random)
                    mark(seen, 1.0 if known else -1.0, place)
                    made.append(observed(relation, known, seen, at))
        return made

    return make


def plainly(seen, sign, _relation):
    """Everything about the evidence tells known from unknown."""
    seen.numbers.add_(5 * sign)
    seen.states.add_(5 * sign)


def in_states(seen, sign, _relation):
    """Only the hidden states tell."""
    seen.states.add_(5 * sign)


def by_relation(seen, sign, relation):
    """Each relation has a number of its own that tells."""
    seen.numbers[relation] = 5 * sign


def test_a_probe_tells_known_from_unknown_in_relations_that_it_has_not_seen(tiny, conflicts):
    calibration = calibrating.fit(tiny.identity, tiny.name, conflicts(plainly))
    for other in conflicts(plainly, ["composer", "element"], seed=1):
        assert (calibration.probe(other.evidence) > 0.5) is other.known
    assert calibration.measured["auroc"] == 1
    assert calibration.measured["known"] == calibration.measured["unknown"] == 120


def test_what_holds_in_one_relation_alone_earns_no_score(tiny, conflicts):
    calibration = calibrating.fit(tiny.identity, tiny.name, conflicts(by_relation))
    assert calibration.measured["auroc"] < 0.7


def test_relations_that_are_not_stated_are_parted_all_the_same(tiny, conflicts):
    unnamed = [replace(each, relation=None) for each in conflicts(plainly)]
    assert calibrating.fit(tiny.identity, tiny.name, unnamed).measured["auroc"] == 1


def test_the_bars_stand_in_order_and_the_dial_never_turns_back(tiny, conflicts):
    calibration = calibrating.fit(tiny.identity, tiny.name, conflicts(plainly))
    for bars in (calibration.end, calibration.auto):
        assert 0 <= bars.passages <= bars.memory <= 1
    memory = [calibration.thresholds(alpha).memory for alpha in calibration.alphas]
    assert memory == sorted(memory, reverse=True)
    assert calibration.ratios == sorted(calibration.ratios)
    assert (calibration.ratios[0], calibration.ratios[-1]) == (0, 1)
    assert calibration.known == sorted(calibration.known)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_reliance_is_the_share_of_known_facts_that_memory_settles(tiny, conflicts, share):
    calibration = calibrating.fit(tiny.identity, tiny.name, conflicts(plainly))
    bar = calibration.thresholds(calibration.alpha(share)).memory
    won = sum(confidence >= bar for confidence in calibration.known)
    assert won / len(calibration.known) == pytest.approx(share, abs=0.05)


def test_adaptive_costs_unknown_facts_nothing(tiny, conflicts):
    observations = conflicts(plainly)
    calibration = calibrating.fit(tiny.identity, tiny.name, observations)
    for each in observations:
        if not each.known:
            assert calibration.probe(each.evidence) < calibration.auto.memory


def test_a_probe_for_any_model_reads_no_hidden_states(tiny, conflicts):
    tiny = replace(tiny, identity="0123")
    own = calibrating.fit(tiny.identity, tiny.name, conflicts(in_states))
    anyones = calibrating.fit_any({"a": conflicts(in_states)})
    assert (own.model, anyones.model) == ("0123", ANY_MODEL)
    assert own.measured["auroc"] == 1
    assert anyones.measured["auroc"] < 0.7
    other_size = ProbeFeatures(torch.zeros(NUMBERS), torch.zeros(STATES, 2 * SIZE))
    assert 0 < anyones.probe(other_size) < 1


def test_for_any_model_the_bars_suit_surer_and_less_sure_ones(conflicts):
    def surer(seen, sign, relation):
        plainly(seen, sign, relation)
        seen.numbers.add_(4)

    modest, sure = conflicts(plainly, each=40), conflicts(surer, each=20, seed=1)
    alone = calibrating.fit_any({"modest": modest})
    both = calibrating.fit_any({"modest": modest, "sure": sure})
    assert both.end.memory > alone.end.memory
    for seen in (modest, sure):
        told = [both.confidence(each.evidence) >= both.end.memory for each in seen]
        assert np.mean([won is each.known for won, each in zip(told, seen, strict=True)]) > 0.9
    assert both.measured["known"] == 240
    assert {"Q modest", "auroc modest", "MR sure", "unknown_right sure"} <= both.measured.keys()


def test_a_few_facts_choose_the_bars_of_a_model_and_nothing_else(conflicts):
    def surer(seen, sign, relation):
        plainly(seen, sign, relation)
        seen.numbers.add_(4)

    anyones = replace(calibrating.fit_any({"a": conflicts(plainly)}), memory_bar=-0.3)
    own = calibrating.fit_bars(anyones, "0123", "mine", conflicts(surer, ["letter"], each=12))
    assert (own.model, own.name) == ("0123", "mine")
    kept = ("probe", "auto", "memory_bar", "plausibility", "reader_bar")
    assert [getattr(own, name) for name in kept] == [getattr(anyones, name) for name in kept]
    assert own.measured["Q"] > 0.9
    for each in conflicts(surer, ["other"], each=20, seed=2):
        assert (own.confidence(each.evidence) >= own.end.memory) is each.known


@pytest.mark.parametrize(("known", "unknown"), [(7, 30), (30, 7)])
def test_too_few_facts_choose_no_bars(tiny, conflicts, known, unknown):
    made = conflicts(plainly)
    anyones = calibrating.fit_any({"a": made})
    few = [
        *[each for each in made if each.known][:known],
        *[each for each in made if not each.known][:unknown],
    ]
    with pytest.raises(DataError, match="needs 12 of each"):
        calibrating.fit_bars(anyones, tiny.identity, tiny.name, few)


@pytest.mark.parametrize(("known", "unknown"), [(7, 30), (30, 7), (0, 0)])
def test_too_few_conflicts_on_one_side_are_counted(tiny, conflicts, known, unknown):
    made = conflicts(plainly)
    observations = [
        *[each for each in made if each.known][:known],
        *[each for each in made if not each.known][:unknown],
        *[replace(each, evidence=None, conflict=False) for each in made],  # both sides agree
    ]
    with pytest.raises(DataError, match=f"on {known} facts .* and {unknown} that .* needs 20"):
        calibrating.fit(tiny.identity, tiny.name, observations)


def test_a_calibration_is_read_as_it_was_written(tiny, conflicts, tmp_path):
    calibration = calibrating.fit(tiny.identity, tiny.name, conflicts(plainly))
    calibration.save(tmp_path / "new" / "calibration.json")
    read = calibrations.fitting(tmp_path / "new" / "calibration.json", tiny)
    assert read == calibration
    assert read.digest == calibration.digest


@pytest.fixture
def items(data, babble):
    """Two facts that the tiny model knows, three that it does not, and one of no use."""
    changes = [{"question": f"What is {letter}?"} for letter in "abcdef"]
    for change in changes[:2]:
        change["memory_answers"] = [babble(change["question"])]
    *useful, useless = datasets.conflicts(data(*changes))
    return [*useful, replace(useless, true_context=None)]


def same(first, second):
    """Whether observations are equal, evidence and all."""
    return [(each.id, each.known) for each in first] == [
        (each.id, each.known) for each in second
    ] and all(
        replace(one, evidence=None) == replace(two, evidence=None)
        and (one.evidence is None) == (two.evidence is None)
        and (
            one.evidence is None
            or (
                torch.equal(one.evidence.numbers, two.evidence.numbers)
                and torch.equal(one.evidence.states, two.evidence.states)
            )
        )
        for one, two in zip(first, second, strict=True)
    )


def lines(target):
    return (target / "observations.jsonl").read_text(encoding="utf-8").splitlines()


def test_known_facts_are_asked_wrongly_and_unknown_ones_truly(tiny, tmp_path, items):
    observations = suite.run(tiny, items, tmp_path, batch_size=2)
    assert [each.id for each in observations] == [item.id for item in items[:-1]]
    assert [each.known for each in observations] == [True, True, False, False, False]
    for each in observations:
        assert each.conflict
        assert each.evidence.numbers.isfinite().all()
        assert each.memory["memory"] is each.known
        assert {"plain", "memory"} <= each.context.keys() == each.memory.keys()
        assert ("grounded" in each.memory) is each.loose


def test_of_known_and_of_other_facts_so_many_are_asked(tiny, tmp_path, items):
    observed = suite.run(tiny, items, tmp_path, each=1)
    assert sorted(each.known for each in observed) == [False, True]


def test_an_interrupted_measurement_goes_on_where_it_stopped(tiny, tmp_path, items, monkeypatch):
    whole = suite.run(tiny, items, tmp_path / "whole", batch_size=2)
    asked = []
    begin = drafts.compare

    def failing(model, prompts, how, **more):
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(prompts)
        return begin(model, prompts, how, **more)

    monkeypatch.setattr(drafts, "compare", failing)
    with pytest.raises(KeyboardInterrupt):
        suite.run(tiny, items, tmp_path / "broken", batch_size=2)
    assert len(lines(tmp_path / "broken")) == 2
    monkeypatch.setattr(drafts, "compare", begin)
    assert same(suite.run(tiny, items, tmp_path / "broken", batch_size=2), whole)
    assert len(lines(tmp_path / "broken")) == len(whole)

    monkeypatch.setattr(drafts, "compare", failing)  # all is known now: nothing is asked
    assert same(suite.run(tiny, items, tmp_path / "broken", batch_size=2), whole)


def test_a_half_written_last_line_is_asked_again(tiny, tmp_path, items):
    whole = suite.run(tiny, items, tmp_path, batch_size=1)
    path = tmp_path / "observations.jsonl"
    before = path.read_text(encoding="utf-8")
    path.write_text(before[:-40], encoding="utf-8")
    assert same(suite.run(tiny, items, tmp_path, batch_size=1), whole)
    assert path.read_text(encoding="utf-8") == before
    assert [json.loads(line)["id"] for line in lines(tmp_path)] == [each.id for each in whole]


def test_observations_of_another_run_are_not_mixed_in(tiny, tmp_path, items):
    suite.run(tiny, items[:2], tmp_path)
    with pytest.raises(DataError, match="another run"):
        suite.run(tiny, items[:3], tmp_path)


def test_what_was_measured_is_shown_in_percent_along_the_dial(tiny, conflicts, capsys):
    calibration = calibrating.fit(tiny.identity, tiny.name, conflicts(plainly))
    Console(width=100).print(calibrating.table(calibration))
    shown = capsys.readouterr().out
    assert "0.50" in shown
    assert "100.0" in shown
    assert f"auroc {calibration.measured['auroc']}" in shown


def test_each_source_is_judged_by_a_probe_that_was_fitted_on_the_others(conflicts):
    built_in = conflicts(plainly)
    natural = [
        replace(each, source="natural") for each in conflicts(plainly, ["letter"], each=25, seed=1)
    ]
    calibration = calibrating.fit("m", "M", [*built_in, *natural])
    assert {"Q built-in", "Q natural"} <= calibration.measured.keys()
    transferred = calibrating.transfer([*built_in, *natural])
    assert {source: came_to["auroc"] for source, came_to in transferred.items()} == {
        "built-in": 1,
        "natural": 1,
    }
    assert calibrating.transfer(built_in) == {}


def test_calibration_draws_half_of_its_facts_from_natural_text():
    drawn = datasets.for_calibration(40)
    assert [item.source for item in drawn].count("natural") == 20
    assert len(drawn) == 40
    assert {item.split for item in drawn} == {"calibration"}


def misread(rows):
    """Unknown facts: the reader's sureness, whether its sentence and plain RAG are right."""
    return [
        replace(
            observed("capital", False, None, at),
            memory={"plain": plain, "memory": False, "grounded": quote},
            misread=sure,
        )
        for at, (sure, quote, plain) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("rows", "bar"),
    [
        ([(0.97, True, False)] * 20 + [(0.86, False, True)] * 10, 0.95),
        ([(0.82, True, False)] * 20 + [(0.97, True, False)] * 20, 0.8),
        ([(0.97, True, False)] * 20 + [(0.97, False, True)] * 20, math.inf),
        ([(0.97, True, False)] * 4, math.inf),  # chance
        ([(0.0, True, False)] * 40, math.inf),  # what is not misread stays
        ([], math.inf),
    ],
)
def test_the_reader_counts_above_a_model_from_where_more_answers_become_right(rows, bar):
    assert calibrating.reader_bar(misread(rows)) == bar
    known = [replace(each, known=True) for each in misread([(0.97, True, False)] * 20)]
    assert calibrating.reader_bar([*misread(rows), *known]) == bar


def test_what_memory_remembers_is_no_misreading():
    rows = [replace(each, remembered=-0.1) for each in misread([(0.97, True, False)] * 20)]
    assert calibrating.reader_bar(rows, memory_bar=-0.2) == math.inf
    assert calibrating.reader_bar(rows, memory_bar=0.0) == 0.95


def test_a_reader_that_corrects_the_model_is_trusted_in_its_calibration(tiny, conflicts):
    rows = [*conflicts(plainly), *misread([(0.97, True, False)] * 20)]
    assert calibrating.fit(tiny.identity, tiny.name, rows).reader_bar == 0.95
    made_up = [replace(rows[0], likely=-0.2)]
    of_any = calibrating.fit_any({"a": rows}, invented=[made_up])
    assert (of_any.reader_bar, of_any.memory_bar) == (math.inf, -0.2)


def test_known_claims_are_told_from_what_memory_makes_up_against_passages(tiny, conflicts):
    rows = [replace(each, likely=-0.1) for each in conflicts(plainly)]
    assert calibrating.fit(tiny.identity, tiny.name, rows).plausibility is None
    made_up = [replace(each, likely=-1.0) for each in rows if not each.known]
    fitted = calibrating.fit(tiny.identity, tiny.name, rows, invented=[made_up])
    assert fitted.plausibility.draft_weight > 0
    passing = [
        each
        for each in made_up
        if fitted.plausibility(fitted.confidence(each.evidence), each.likely)
    ]
    assert len(passing) <= 1 + 0.02 * len(made_up)
    assert all(
        fitted.plausibility(fitted.confidence(each.evidence), each.likely)
        for each in rows
        if each.known
    )
    assert fitted.memory_bar == -1.0
    silent = [replace(each, likely=None, evidence=None, conflict=False) for each in made_up]
    for nearly in (silent, [*silent, made_up[0]]):  # 1 of 121: less than the share that may pass
        assert calibrating.fit("m", "M", rows, invented=[nearly]).plausibility is None


class FirstWordReader:
    """Finds every text's first word, and is sure of it."""

    def read(self, asked):
        return [Reading(text.split()[0], 0, 0.9) for _, text in asked]


def test_questions_to_documents_are_observed_once_with_what_the_reader_would_tell(tiny, tmp_path):
    def observe(reader):
        return suite.of_passages(tiny, suite.in_documents(3), tmp_path / "seen", 2, reader)

    assert observe(None) == []
    seen = observe(FirstWordReader())
    assert [each.source for each in seen] == [suite.DOCUMENTS] * 3
    assert not any(each.known for each in seen)
    assert [each.id for each in observe(object())] == [each.id for each in seen]


def test_questions_about_invented_things_are_observed_with_the_passage_about_them(tiny, tmp_path):
    path = tmp_path / f"{suite.INVENTED_THINGS}.jsonl"
    seen = suite.of_passages(tiny, suite.about_invented(3), path, 2, FirstWordReader())
    assert len({each.id for each in seen}) == 3
    assert not any(each.known for each in seen)
    assert [each.evidence is not None for each in seen] == [each.conflict for each in seen]
    assert [each.id for each in suite.read(tmp_path, suite.INVENTED_THINGS)] == [
        each.id for each in seen
    ]
    assert suite.read(tmp_path / "none", suite.INVENTED_THINGS) == []
