"""The commands and the Python example of the README and of the tutorial run as they stand."""

import json
import os
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
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture
def run(capsys):
    """Run a ``fulcrum`` command in this process and return what it printed."""

    def command(line):
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return command


@pytest.mark.kill
@pytest.mark.model
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, run):
    monkeypatch.setenv("FULCRUM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)
    commands = [
        line
        for block in blocks(README, "sh")
        for line in block.splitlines()
        if line.startswith("fulcrum ") and line.split()[1] in ("ingest", "ask", "forget")
    ]
    ingested, peru, follow_up, passages, memory, automatic, forgotten = map(run, commands)
    assert "passages added" in ingested
    assert "Lima" in peru
    assert "The largest city of Peru is Lima" in follow_up
    assert "Cairo" in passages.splitlines()[0]
    assert "Oslo" in memory.splitlines()[0]
    assert json.loads(automatic)["alpha"] == "auto"
    assert "Santiago is forgotten from now on" in forgotten


@pytest.mark.kill
@pytest.mark.model
def test_the_example_of_the_readme_turns_the_dial_in_an_empty_home(tmp_path):
    [example] = blocks(README, "python")
    assert '"my-home"' in example
    example = example.replace('"my-home"', repr(str(tmp_path / "my-home")))
    program = [sys.executable, "-c", example]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answers = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
    assert list(answers) == ["0.0", "0.5", "1.0"]
    assert "Cairo" in answers["0.0"]
    assert "Oslo" in answers["1.0"]
    assert len(set(answers.values())) == 3, answers


@pytest.mark.kill
@pytest.mark.model
def test_the_commands_of_the_tutorial_run(tmp_path, monkeypatch, run):
    monkeypatch.setenv("FULCRUM_HOME", str(tmp_path / "tutorial" / "home"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # `python`
    monkeypatch.chdir(tmp_path)
    printed = []
    for block in blocks(TUTORIAL, "sh"):
        if "fulcrum " not in block:  # files are written, or the report is read
            shell = ["bash", "-e", "-c", block]
            printed.append(subprocess.run(shell, check=True, capture_output=True, text=True).stdout)
            continue
        for line in block.splitlines():
            assert line.startswith("fulcrum "), line
            printed.append(run(line))
    _files, _home, ingested, allowance, documents, memory, as_json, *forgetting = printed[:-3]
    before, forgotten, refused, beside, audit, verified = forgetting
    _conflicts, measured, rows = printed[-3:]
    assert "3 documents in 3 passages added" in ingested
    assert "45 euros" in allowance.splitlines()[0]
    assert "the answer follows the newest document" in " ".join(allowance.split())
    assert "Bergen" in documents.splitlines()[0]
    assert "Oslo" in memory.splitlines()[0]
    assert json.loads(as_json)["verdict"]["follows"] == "memory"
    assert "Ada Lund" in before.splitlines()[0]
    assert "1 stored passage redacted" in forgotten
    assert "Lund" not in refused
    assert "eight" in beside.splitlines()[0]
    assert "Lund" not in beside
    assert "withheld" in audit
    assert "whole, 3 events" in verified
    assert "of 4 facts" in measured
    assert "fulcrum 1.0" in rows


def test_the_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([\w-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_links_of_the_pages_lead_to_files():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_commands_says_what_their_help_says():
    written = runpy.run_path(str(ROOT / "docs" / "commands.py"))["written"]()
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == written, "run: python docs/commands.py"
