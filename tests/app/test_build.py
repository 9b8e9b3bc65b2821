from dataclasses import replace

import pytest

from app import build
from app import settings as settings_module
from control import calibration as calibrations
from foundation.errors import ModelError


@pytest.fixture
def settings(tmp_path):
    """Settings with a cache of their own, where calibrations are kept."""

    def load(**given):
        return settings_module.load(cache=tmp_path / "cache", **given)

    return load


@pytest.fixture
def model(tiny):
    return replace(tiny, identity="0123456789abcdef")


@pytest.fixture
def measured(model):
    return replace(calibrations.shipped(model), model=model.identity, name=model.name)


def test_a_calibration_that_was_measured_is_the_one_in_use(tmp_path, settings, model, measured):
    assert build.calibration(settings(), model) == calibrations.shipped(model)
    kept = build.keep(measured, model, settings(), tmp_path / "out")
    assert build.calibration(settings(), model) == measured
    assert calibrations.load(kept) == measured
    assert calibrations.load(tmp_path / "out" / "calibration.json") == measured


def test_it_is_not_in_use_for_another_model(tmp_path, settings, model, measured):
    build.keep(measured, model, settings(), tmp_path / "out")
    other = replace(model, identity="fedcba9876543210")
    assert build.calibration(settings(), other) == calibrations.shipped(other)
    named = settings(calibration=tmp_path / "out" / "calibration.json")
    with pytest.raises(ModelError, match=r"was measured on tiny \(\w+\), not on tiny \(\w+\)"):
        build.calibration(named, other)


def test_a_calibration_that_is_named_comes_first(tmp_path, settings, model, measured):
    build.keep(measured, model, settings(), tmp_path / "out")
    named = replace(measured, known=[0.25])
    named.save(tmp_path / "named.json")
    assert build.calibration(settings(calibration=tmp_path / "named.json"), model) == named
