import json
import math
from dataclasses import replace

import pytest
import torch

from control.conflict import calibration as calibrations
from control.conflict.calibration import ANY_MODEL, Plausibility, Thresholds, decide
from control.conflict.claims import Claim
from control.conflict.probe import NUMBERS, MemoryProbe, ProbeFeatures
from foundation.errors import ModelError

STEPS = [step / 100 for step in range(101)]


def resolutions(calibration, alpha, confidences, unsupported):
    """How conflicts of these confidences are decided at an alpha."""
    return [decide(True, unsupported, each, calibration.thresholds(alpha)) for each in confidences]


@pytest.mark.parametrize("unsupported", [True, False])
def test_alpha_half_always_resolves_to_plain_rag(always, unsupported):
    assert set(resolutions(always(0.5), 0.5, STEPS, unsupported)) == {"plain"}


def test_alpha_0_grounds_every_unsupported_answer(always):
    assert set(resolutions(always(0.5), 0.0, STEPS, unsupported=True)) == {"grounded"}
    assert set(resolutions(always(0.5), 0.0, STEPS, unsupported=False)) == {"plain"}


def test_alpha_1_and_auto_use_the_measured_thresholds(always):
    calibration = always(0.5, end=Thresholds(0.3, 0.1), auto=Thresholds(0.6, 0.4))
    assert resolutions(calibration, 1.0, [0.05, 0.1, 0.29, 0.3, 1.0], unsupported=True) == [
        "grounded",
        "plain",
        "plain",
        "memory",
        "memory",
    ]
    assert calibration.thresholds("auto") == Thresholds(0.6, 0.4)


@pytest.mark.parametrize("confidence", [0.0, 0.05, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0])
def test_a_resolution_never_moves_against_the_dial(always, confidence):
    order = {"grounded": 0, "plain": 1, "memory": 2}
    upwards = [
        resolutions(always(0.5), alpha, [confidence], unsupported=False)[0] for alpha in STEPS
    ]
    assert upwards == sorted(upwards, key=order.get)
    downwards = [
        resolutions(always(0.5), alpha, [confidence], unsupported=True)[0] for alpha in STEPS[:51]
    ]
    assert downwards == sorted(downwards, key=order.get)


def test_memory_wins_linearly_more_known_conflicts_the_most_confident_first(always):
    known = [0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95]
    calibration = always(0.5, known=known, end=Thresholds(0.3, 0.1))
    for turned, winners in [(0.5, 0), (0.625, 2), (0.75, 4), (0.875, 6), (1.0, 8)]:
        won = resolutions(calibration, turned, known, unsupported=False)
        assert won == ["plain"] * (len(known) - winners) + ["memory"] * winners


def test_answers_are_grounded_the_least_confident_first(always):
    known = [0.2, 0.4, 0.6, 0.8]
    for turned, grounded in [(0.5, 0), (0.25, 2), (0.0, 4)]:
        decided = resolutions(always(0.5, known=known), turned, known, unsupported=True)
        assert decided == ["grounded"] * grounded + ["plain"] * (len(known) - grounded)


def test_without_a_known_conflict_only_the_ends_differ_from_plain_rag(always):
    calibration = always(0.5, known=[])
    between = {
        resolution
        for a in STEPS[1:-1]
        for resolution in resolutions(calibration, a, STEPS, unsupported=True)
    }
    assert between == {"plain"}
    assert set(resolutions(calibration, 0.0, STEPS, unsupported=True)) == {"grounded"}
    assert resolutions(calibration, 1.0, [1.0], unsupported=True) == ["memory"]


def test_only_conflicts_resolve_to_memory_and_only_unsupported_answers_are_grounded():
    assert decide(False, True, 1.0, Thresholds(0.0, 0.0)) == "plain"
    assert decide(True, False, 0.0, Thresholds(1.0, 1.0)) == "plain"


@pytest.mark.parametrize(
    ("confidence", "likely", "remembers"),
    [
        (None, -0.3, True),  # no conflict
        (None, -0.5, False),
        (0.9, -0.5, True),
        (0.5, -0.3, False),
        (1.0, -9.0, True),
        (0.0, -0.1, False),
        (0.5, None, True),  # an engine without log-probabilities
    ],
)
def test_against_passages_memory_remembers_what_is_likely_to_be_right(
    always, confidence, likely, remembers
):
    calibration = always(0, memory_bar=-0.4, plausibility=Plausibility(1.0, 1.0, 1.0))
    assert calibration.remembers(Claim(0, 1, "Oslo", 1.0, likely), confidence) == remembers
    assert not calibration.remembers(None, confidence)


def test_where_conflicts_were_not_measured_the_bar_of_the_draft_counts(always):
    calibration = always(0, memory_bar=-0.4)
    assert calibration.remembers(Claim(0, 1, "Oslo", 1.0, -0.3), 0.1)
    assert not calibration.remembers(Claim(0, 1, "Oslo", 1.0, -0.5), 0.9)


RATIOS = [0.1, 0.2, 0.2, 0.6, 0.9]


@pytest.mark.parametrize(
    ("reliance", "alpha"),
    [(0.0, 0.0), (0.1, 0.0), (0.15, 0.125), (0.2, 0.25), (0.4, 0.625), (0.9, 1.0), (1.0, 1.0)],
)
def test_a_reliance_is_the_alpha_at_which_it_was_measured(always, reliance, alpha):
    assert always(0.5, ratios=RATIOS).alpha(reliance) == pytest.approx(alpha)


def test_more_reliance_is_never_a_lower_alpha(always):
    asked = [always(0.5, ratios=RATIOS).alpha(reliance) for reliance in STEPS]
    assert asked == sorted(asked)
    assert asked[0] == 0
    assert asked[-1] == 1


def test_a_probe_weighs_numbers_and_states():
    probe = MemoryProbe([0.5, -1.0], [[0.0, 2.0]], 0.25)
    seen = ProbeFeatures(torch.tensor([2.0, 1.0]), torch.tensor([[7.0, 1.0]]))
    assert probe(seen) == pytest.approx(1 / (1 + math.exp(-2.25)))


def test_what_is_saved_is_loaded_again(always, tmp_path):
    probe = MemoryProbe([0.1] * NUMBERS, [[1.0, -2.5]], 0.3)
    told = Plausibility(1.2, 4.0, -0.5)
    saved = always(0.7, probe=probe, measured={"known": 42.0, "Q": 0.7}, plausibility=told)
    path = tmp_path / "not" / "there" / "calibration.json"
    saved.save(path)
    assert calibrations.load(path) == saved
    assert calibrations.load(path).digest == saved.digest != always(0.7).digest


def write(path, **changed):
    """Change fields of a saved calibration; ``None`` takes one away."""
    values = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({name: each for name, each in values.items() if each is not None}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(path.read_text()[:-20]),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}"),
        lambda path: write(path, known=None),
        lambda path: write(path, known="high"),
        lambda path: write(path, probe={"numbers": []}),
        lambda path: write(path, probe={"numbers": [0.0] * 9, "states": [], "bias": 0.0}),
        lambda path: write(path, end=[0.5, 0.5]),
        lambda path: write(path, ratios=[0.0, 1.0]),
        lambda path: write(path, alphas=[], ratios=[]),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tiny, always, tmp_path, damage):
    path = tmp_path / "calibration.json"
    always(0.5).save(path)
    damage(path)
    with pytest.raises(ModelError, match=r"no calibration that can be used.*eval dial") as refused:
        calibrations.fitting(path, tiny)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.fixture
def mine(tiny):
    """A model with an identity of its own."""
    return replace(tiny, identity="mine")


def test_a_calibration_of_another_model_is_refused_in_one_line(mine, always, tmp_path):
    path = tmp_path / "calibration.json"
    always(0.5, model="another", name="the other one").save(path)
    with pytest.raises(
        ModelError, match=r"on the other one \(another\), not on tiny \(mine\)"
    ) as refused:
        calibrations.fitting(path, mine)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("model", ["mine", ANY_MODEL])
def test_a_calibration_of_this_model_or_of_any_is_accepted(mine, always, tmp_path, model):
    always(0.5, model=model).save(tmp_path / "calibration.json")
    assert calibrations.fitting(tmp_path / "calibration.json", mine).model == model


def test_a_measured_calibration_takes_precedence_over_the_shipped_one(mine, always, tmp_path):
    assert calibrations.find(mine, tmp_path) == calibrations.shipped(mine)
    measured = always(0.5, model="mine")
    measured.save(calibrations.stored(mine, tmp_path))
    assert calibrations.find(mine, tmp_path) == measured
    other = replace(mine, identity="other")
    assert calibrations.find(other, tmp_path) == calibrations.shipped(other)


def test_a_stored_calibration_of_another_model_is_an_error(mine, always, tmp_path):
    always(0.5, model="another").save(calibrations.stored(mine, tmp_path))
    with pytest.raises(ModelError, match="was measured on"):
        calibrations.find(mine, tmp_path)


def test_the_default_model_s_own_calibration_is_shipped(real):
    assert calibrations.shipped(real).model == real.identity


def test_the_calibration_shipped_for_other_models_uses_no_hidden_states(tiny):
    shipped = calibrations.shipped(tiny)
    assert shipped.model == ANY_MODEL
    assert not shipped.probe.states


def test_a_calibration_keeps_its_digest_when_it_is_loaded_again(always, tmp_path):
    saved = always(0.5, measured={"known": 42, "Q": 0.7})
    saved.save(tmp_path / "calibration.json")
    assert calibrations.load(tmp_path / "calibration.json").digest == saved.digest
