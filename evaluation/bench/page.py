"""How soon the page is there: a browser that has never seen it opens it."""

import shutil
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.table import Table

from evaluation import report
from evaluation.bench.index import percentiles
from foundation.errors import InputError, ModelError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PAINTS = "performance.getEntriesByType('paint').map(paint => [paint.name, paint.startTime])"
NAMES = {
    "first_paint_ms": "first paint",
    "first_words_ms": "first words",
    "question_ms": "a question can be typed",
}


def run(url: str, rounds: int, progress: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Open the page so many times, each time with an empty cache.

    Args:
        url: Of the server.
        rounds: How often; a first time, which is not counted, comes before.
        progress: Told each time.

    Returns:
        Milliseconds from the request, p50 and p95, until something is painted, until the first
        words are, and until a question can be typed.

    Raises:
        InputError: There is no Playwright, or no Chromium.
        ModelError: The page cannot be opened.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise InputError("timing the page needs Playwright; run: pip install playwright") from error
    chromium = installed()
    if chromium is None:
        raise InputError(f"no browser was found; install one of {', '.join(BROWSERS)}")
    opened = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            for _ in range(rounds + 1):
                opened.append(_opened(browser, url))
                progress()
        except Error as error:
            first = str(error).splitlines()[0]
            raise ModelError(f"{url}: the page cannot be opened ({first})") from error
        finally:
            browser.close()
    result: dict[str, Any] = {"rounds": rounds}
    for name in NAMES:
        result |= percentiles(name, [each[name] / 1000 for each in opened], warm_up=1)
    return result


def installed() -> str | None:
    """The path of a browser that starts; under some systems the name is a script that explains."""
    for path in filter(None, map(shutil.which, BROWSERS)):
        shown = subprocess.run([path, "--version"], capture_output=True, check=False)  # noqa: S603
        if shown.returncode == 0:
            return path
    return None


def table(result: dict[str, Any]) -> Table:
    """The result as a table for a terminal."""
    return report.table(
        f"opened {result['rounds']} times, cache empty",
        ("until", "p50", "p95"),
        (
            (label, *(f"{result[f'{name}_{each}']:,.0f} ms" for each in ("p50", "p95")))
            for name, label in NAMES.items()
        ),
    )


def _opened(browser: "Browser", url: str) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        page = context.new_page()
        started = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.wait_for_selector("#question textarea")
        ready = 1000 * (time.perf_counter() - started)
        paints = dict(page.evaluate(PAINTS))
        return {
            "first_paint_ms": paints["first-paint"],
            "first_words_ms": paints["first-contentful-paint"],
            "question_ms": ready,
        }
    finally:
        context.close()
