"""What the tests of the dial share."""

import pytest

from control.belief import Probe
from control.calibration import ANY_MODEL, Bars, Calibration

NUMBERS = 50  # that a probe sees of a conflict


@pytest.fixture(scope="session")
def always():
    """Calibrations that are equally sure of memory in every conflict: 1, 0, or undecided 0.5."""

    def calibration(confidence, **changed):
        values = {
            "model": ANY_MODEL,
            "name": "made up",
            "probe": Probe([0.0] * NUMBERS, [], 40 * (confidence - 0.5)),
            "known": [0.2, 0.4, 0.6, 0.8],
            "end": Bars(memory=0.3, passages=0.1),
            "auto": Bars(memory=0.5, passages=0.2),
            "alphas": [0.0, 0.25, 0.5, 0.75, 1.0],
            "ratios": [0.0, 0.1, 0.2, 0.6, 0.9],
            "measured": {"MR": 0.9},
        }
        return Calibration(**{**values, **changed})

    return calibration
