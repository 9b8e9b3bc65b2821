"""The README's commands and its Python example run as they stand."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.kill
@pytest.mark.model
def test_the_commands_and_the_example_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FULCRUM_HOME", str(tmp_path / "home"))
    commands = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("fulcrum ") and line.split()[1] in ("ingest", "ask", "forget")
    ]
    monkeypatch.chdir(ROOT)
    shown = []
    for line in commands:
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
        shown.append(capsys.readouterr().out)
    assert len(shown) >= 4
    assert "passages added" in shown[0]
    assert "Lima" in shown[1]
    assert "Santiago is forgotten from now on" in shown[-1]

    [example] = blocks("python")
    example = example.replace('"my-home"', repr(str(tmp_path / "home")))
    program = [sys.executable, "-c", example]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Lima" in ran.stdout
    assert "nats" in ran.stdout


def test_the_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_page_of_commands_says_what_their_help_says():
    written = runpy.run_path(str(ROOT / "docs" / "commands.py"))["written"]()
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == written, "run: python docs/commands.py"
