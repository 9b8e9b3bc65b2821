"""The documentation as a site: it builds without a warning, and loads nothing from elsewhere."""

import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.needs import lacking

ROOT = Path(__file__).parent.parent
HOOK = runpy.run_path(str(ROOT / "docs" / "site_hook.py"))
LOADING = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
PATIENCE = 300  # seconds


def nav(entries):
    """The pages that the navigation names."""
    for entry in entries:
        [target] = entry.values()
        yield from [target] if isinstance(target, str) else nav(target)


class Loads(HTMLParser):
    """What a page loads when it is opened."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in LOADING and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get(LOADING[tag]) or "")


def elsewhere(address):
    return re.match(r"(?:\w+:)?//", address) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if find_spec("mkdocs") is None or find_spec("material") is None:
        lacking("mkdocs", "run: pip install '.[docs]'")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert built.returncode == 0, built.stderr
    return target


@pytest.mark.kill
def test_every_page_is_built_and_loads_nothing_from_elsewhere(site):
    assert len(list(site.glob("*/index.html"))) >= 15
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        assert [address for address in loads.found if elsewhere(address)] == [], page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"url\([\"']?(?:\w+:)?//", text), sheet


@pytest.mark.kill
def test_drawings_are_pictures_and_the_first_page_is_the_readme(site):
    architecture = (site / "architecture" / "index.html").read_text(encoding="utf-8")
    assert architecture.count("drawings/") == 4
    assert "mermaid" not in architecture
    first = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="answer.svg"' in first
    assert "](docs/" not in first


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_drawing_of_a_page_is_drawn(page):
    for drawing in HOOK["FENCE"].findall(page.read_text(encoding="utf-8")):
        assert HOOK["target"](drawing).is_file(), "run: python docs/drawings.py"


def test_every_page_of_the_documentation_is_in_the_navigation():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    listed = set(nav(settings["nav"]))
    assert pages | set(HOOK["PAGES"]) <= listed
