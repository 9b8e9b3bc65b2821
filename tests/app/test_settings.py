"""Settings that come from the environment."""

import pytest

from app.settings import load


@pytest.mark.parametrize(
    ("written", "left_out"),
    [
        ("", set()),
        (" ", set()),
        ("[]", set()),
        ("rewriter", {"rewriter"}),
        ("rewriter, filter,", {"rewriter", "filter"}),
        ('["rewriter", "filter"]', {"rewriter", "filter"}),
    ],
)
def test_modules_to_leave_out_are_words_or_json(monkeypatch, written, left_out):
    monkeypatch.setenv("FULCRUM_WITHOUT", written)
    assert load().without == left_out
    assert load(without=("reader",)).without == {"reader"}
