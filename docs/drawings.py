"""Draw the mermaid drawings of docs/*.md for the site: `python docs/drawings.py`.

A page that shows them may load nothing from elsewhere, so they are drawn once, by the copy of
mermaid that comes with gradio, and kept as `drawings/HASH.svg`; the hash is of the text, and a test
says when one is missing.
"""

import shutil
from pathlib import Path

from site_hook import DRAWINGS, FENCE, target

HERE = Path(__file__).parent
PLAIN_TEXT = (
    '%%{init: {"htmlLabels": false, "flowchart": {"htmlLabels": false, "wrappingWidth": 360}}}%%\n'
)
# At its natural size, not as wide as the page.
TAKE = """drawing => {
  drawing.setAttribute("width", Math.round(drawing.viewBox.baseVal.width));
  drawing.setAttribute("height", Math.round(drawing.viewBox.baseVal.height));
  return new XMLSerializer().serializeToString(drawing);
}"""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
PATIENCE = 120_000  # milliseconds


def main() -> None:
    """Draw what is new, remove what is no longer used."""
    import gradio
    from playwright.sync_api import sync_playwright

    pages = [page.read_text(encoding="utf-8") for page in HERE.glob("*.md")]
    drawings = {target(text): text for page in pages for text in FENCE.findall(page)}
    DRAWINGS.mkdir(exist_ok=True)
    for path in set(DRAWINGS.glob("*.svg")) - drawings.keys():
        path.unlink()
    for path, text in drawings.items():
        if path.exists():
            continue
        with gradio.Blocks() as blocks:
            gradio.Markdown(f"```mermaid\n{PLAIN_TEXT}{text}```")
        _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=list(FLAGS)
            )
            page = browser.new_page()
            page.goto(address, timeout=PATIENCE)
            svg = page.locator("svg[aria-roledescription]").first
            svg.wait_for(timeout=PATIENCE)
            path.write_text(f"{svg.evaluate(TAKE)}\n", encoding="utf-8")
            browser.close()
        blocks.close()


if __name__ == "__main__":
    main()
