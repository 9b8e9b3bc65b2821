"""What the pages for developers name exists, and their code does what they say."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from control.decoding import rules
from control.decoding.contrastive import log_probabilities
from retrieval.ingest import readers

ROOT = Path(__file__).parent.parent
PAGES = ("docs/architecture.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
FOLDERS = ("app", "control", "data", "docs", "evaluation", "examples", "foundation", "retrieval")
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)}|tests|training)/[\w./-]*")


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page):
    assert [
        path for path in PATH.findall(text(page)) if not (ROOT / path.rstrip(".")).exists()
    ] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text(page))
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page):
    makefile = text("Makefile")
    for target in set(re.findall(r"`make ([\w-]+)|^make ([\w-]+)", text(page), re.MULTILINE)):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def test_every_file_that_the_architecture_names_without_a_folder_exists():
    known = {path.name for path in ROOT.rglob("*.*") if ".venv" not in path.parts}
    named = set(re.findall(r"[\w-]+\.(?:py|json)\b", text("docs/architecture.md")))
    assert named - known == set()


def test_the_rule_and_the_format_of_the_guide_work(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", text("CONTRIBUTING.md"), re.DOTALL)
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))
    monkeypatch.setattr(readers, "READERS", dict(readers.READERS))
    for block in blocks[:2]:
        exec(block, {"__name__": "guide"})  # noqa: S102
    likely = (
        log_probabilities(torch.tensor([[3.0, 0.0]])),
        log_probabilities(torch.tensor([[0.0, 3.0]])),
    )
    for alpha, first in ((0.0, 0), (1.0, 1)):
        output = rules.RULES["linear"](*likely, torch.full((1, 1), alpha))
        assert output.scores.argmax().item() == first
        assert output.mixed.all()
    table = tmp_path / "table.ini"
    table.write_text("[Peru]\ncapital = Lima\n", encoding="utf-8")
    assert [content.text for content in readers.read_content(table)] == ["# Peru\n\ncapital: Lima"]


def test_the_sketches_of_a_store_and_an_engine_are_python():
    for block in re.findall(r"```python\n(.*?)```", text("CONTRIBUTING.md"), re.DOTALL):
        ast.parse(f"def sketch():\n{block}" if block.startswith("    ") else block)


def test_the_citation_names_this_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
