"""Take docs/page.png, the README's picture, from the running page.

`fulcrum serve`, and beside it: `python docs/page_picture.py http://127.0.0.1:7860/`
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

PICTURE = Path(__file__).with_name("page.png")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
SIZE = {"width": 1120, "height": 760}
PATIENCE = 600_000  # milliseconds


def main(address: str) -> None:
    """Ask the first example, turn the dial to memory, point at the word that changed."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(FLAGS)
        )
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5, reduced_motion="reduce")
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.get_by_role("button", name="What is the capital of Norway?").click()
        _answered(page, "Cairo")
        page.locator("#dial input").press("End")
        _answered(page, "Oslo")
        page.evaluate("scrollTo(0, 0)")
        page.locator("#latest .token.memory", has_text="Oslo").first.hover()
        page.screenshot(path=PICTURE)
        browser.close()


def _answered(page: Page, word: str) -> None:
    expect(page.locator("#latest .turn[aria-busy=false] .said")).to_contain_text(word)


if __name__ == "__main__":
    main(sys.argv[1])
