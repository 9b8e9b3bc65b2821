"""Tests that need what the machine lacks: skipped, or failed where every test has to run."""

import os
from typing import NoReturn

import pytest

# Continuous integration services set the second.
REQUIRE_ALL = ("FULCRUM_REQUIRE_ALL", "CI")


def lacking(what: str, remedy: str) -> NoReturn:
    """Skip or fail the test that asks; ``remedy`` is what to run."""
    message = f"{what} is missing; to run these tests: {remedy}"
    if any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in REQUIRE_ALL):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
