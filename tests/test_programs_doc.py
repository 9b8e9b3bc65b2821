"""The examples for other people's programs run as they stand."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers import dynamic_module_utils

pytestmark = pytest.mark.model
PAGE = Path(__file__).parent.parent / "docs" / "programs.md"
TRANSFORMERS, LLAMAINDEX = re.findall(
    r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
)


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Run an example and return what it printed."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(example):
        script = tmp_path / "example.py"
        script.write_text(example, encoding="utf-8")
        runpy.run_path(str(script))
        return capsys.readouterr().out

    return run


def test_the_transformers_example_turns_the_dial(printed):
    plain, memory = printed(TRANSFORMERS).splitlines()
    assert plain.startswith("0.5")
    assert "Quito" in plain
    assert memory.startswith("1.0")
    assert "Lima" in memory


def test_the_llamaindex_example_answers_from_memory_and_streams(printed):
    answer, *tokens = printed(LLAMAINDEX).splitlines()
    assert "Lima" in answer
    assert len(tokens) > 1
    assert {token.split()[-1] for token in tokens} <= {"context", "memory", "both"}
