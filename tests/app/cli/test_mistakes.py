"""Each mistake of ``mistakes.toml`` gets its line, and nothing but that line."""

import os
import re
import shlex
import socket
import tomllib
from pathlib import Path

import pytest

from app import cli
from data import DIRECTORY as DATA

MISTAKES = tomllib.loads(Path(__file__).with_name("mistakes.toml").read_text("utf-8"))["mistake"]
LONG = "x" * 100_000


@pytest.fixture(autouse=True)
def umask():
    """A server keeps others out of what it writes."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(each, id=each["command"], marks=[pytest.mark.model] * each.get("model", False))
        for each in MISTAKES
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, mistake):
    monkeypatch.chdir(tmp_path)
    for name, content in mistake.get("files", {}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    with monkeypatch.context() as changed:
        for name, value in mistake.get("environment", {}).items():
            changed.setenv(name, value)
        words = [word.replace("LONG", LONG) for word in shlex.split(mistake["command"])]
        code = cli.main(words)
    shown = capsys.readouterr()
    line = shown.err.replace(str(tmp_path), "DIR").replace(str(DATA), "DATA")
    parts = map(re.escape, mistake["says"].split("…"))
    assert (code, shown.out) == (2, "")
    assert re.fullmatch(f"fulcrum: {'.+'.join(parts)}\n", line), line
    if words[:2] == ["forget", "add"]:
        assert cli.main(["forget", "list"]) == 0
        assert capsys.readouterr().out == "nothing is forgotten\n"


def test_a_port_that_is_taken_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "--port", port]) == 2
    assert capsys.readouterr() == (
        "",
        f"fulcrum: port {port} of 127.0.0.1 is taken by another program; give another one by "
        "--port, or --port 0 for a free one\n",
    )
