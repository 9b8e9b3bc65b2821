import shutil

import pytest

from evaluation.bench import page
from foundation.errors import InputError, ModelError


def test_the_page_is_opened_and_timed(browser, site):
    told = []
    result = page.run(site.url, 2, lambda: told.append(1))
    assert len(told) == 3
    assert 0 < result["first_paint_ms_p50"] <= result["first_words_ms_p50"]
    assert result["first_words_ms_p50"] < result["question_ms_p95"]
    assert page.table(result).row_count == 3


def test_a_page_that_is_not_there(browser):
    with pytest.raises(ModelError, match="cannot be opened"):
        page.run("http://127.0.0.1:9", 1)


def test_without_a_browser(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InputError, match="install one of chromium"):
        page.run("http://127.0.0.1:9", 1)
