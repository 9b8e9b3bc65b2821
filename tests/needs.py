"""Tests that need what the machine lacks: skipped, or failed where every test has to run."""

import os
from typing import NoReturn

import pytest

REQUIRE_ALL = ("FULCRUM_REQUIRE_ALL", "CI")  # services that build and test set the second


class Lacking(pytest.skip.Exception):
    """Why a test is skipped: a program that the machine lacks."""


def lacking(what: str, remedy: str) -> NoReturn:
    """Skip or fail the test that asks; ``remedy`` is what to do about it."""
    message = f"{what} is missing; to run these tests, {remedy}"
    if any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in REQUIRE_ALL):
        pytest.fail(message, pytrace=False)
    raise Lacking(message)
