"""A running page with the real small model, and a browser that looks at it."""

from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from app import settings as settings_module
from app.server.service import Service
from evaluation.bench.page import installed
from tests.chromium import REMEDY
from tests.needs import lacking
from tests.server import Running

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 120_000  # milliseconds; a busy machine is slow, and no test measures time
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 720}


@pytest.fixture(scope="module")
def site(tmp_path_factory, cache):
    """The page over the real model, loaded."""
    home = tmp_path_factory.mktemp("browser")
    service = Service(settings_module.load(home=home, cache=cache))
    service.load()
    assert service.state.name == "ready", service.state.message
    running = Running(service)
    yield running
    running.stop()


@pytest.fixture
def broken(tmp_path, cache):
    """The page over a model that does not load."""
    service = Service(settings_module.load(home=tmp_path, cache=cache, model="nowhere.gguf"))
    service.load()
    running = Running(service)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser():
    """The path of a browser of this machine."""
    return installed() or lacking("Chromium", REMEDY)


@pytest.fixture(scope="module")  # while it is open no other test can run an event loop
def chromium(browser):
    """One browser for all tests."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def visit(chromium, site):
    """Open the page; whatever it says in an alert, or asks of other servers, is a failure."""
    opened, faults = [], []
    expect.set_options(timeout=PATIENCE)

    def open_page(viewport=DESKTOP, at=None, **options):
        context = chromium.new_context(viewport=viewport, reduced_motion="reduce", **options)
        opened.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        address = (at or site).url
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "data:", "blob:"))
                else faults.append(request.url)
            ),
        )
        page.goto(address)
        expect(page.locator("#question textarea")).to_be_visible()
        return page

    yield open_page
    for context in opened:
        context.close()
    assert faults == []


@pytest.fixture
def document(tmp_path):
    """Write a document."""

    def write(name, text):
        path = Path(tmp_path / name)
        path.write_text(text, encoding="utf-8")
        return path

    return write
