"""An answer whose sources disagree, on the page: what does not need a model to be looked at."""

import pytest
from playwright.sync_api import expect

from app import settings as settings_module
from app.server.service import Service, ServiceState
from control.answer import Answer, Source
from control.conflict.sources import Citation, SourceClaim
from control.decoding.trace import Choice, TokenTrace
from tests.browser.conftest import DESKTOP
from tests.server import Running

QUESTION = "What is the toll of the Harbour Bridge?"
SENTENCES = (
    "The toll of the **Harbour Bridge** is 30 euros.",
    " It was 25 euros before.",
    " Pedestrians like it.",
)
TEXTS = {
    "tariffs": ("Harbour tariffs", "Since 2019 the toll is **30 euros**."),
    "history": ("Town history", "When it opened, the toll was 25 euros."),
    "minutes": ("Minutes of the council, second session", "The council set it to 30 euros."),
}
SETTLED = "Passages 1 and 3 are newer than passage 2, so the answer follows them."
NARROW = {"width": 360, "height": 720}


def disputed():
    """An answer to the question."""
    text = "".join(SENTENCES)
    ends = [sum(map(len, SENTENCES[: n + 1])) for n in range(len(SENTENCES))]
    supports = (("tariffs", "minutes"), ("history",), ())
    choices = [Choice("30", 0.9)]
    words = [("context" if "30" in word else "both", word) for word in text.split(" ")]
    return Answer(
        question=QUESTION,
        rewritten=QUESTION,
        queries=[QUESTION],
        answer=text,
        alpha=0.5,
        conflict=True,
        verdict=None,
        tokens=[
            TokenTrace(
                f" {word}" if n else word,
                *(-0.5, 1.0, 0.5, False),
                source,
                False,
                choices,
                choices,
                None,
                None,
            )
            for n, (source, word) in enumerate(words)
        ],
        sources=[
            Source(id, *(title, 0.8, True, "read", text)) for id, (title, text) in TEXTS.items()
        ],
        claims=[
            SourceClaim("memory", "20 euros", confidence=0.22, group=0),
            SourceClaim("tariffs", "30 euros", "2019-04-01", 0.8, 0.93, 1, True),
            SourceClaim("history", "25 euros", "2004", 0.5, 0.71, 2),
            SourceClaim("minutes", "30 euros", "2019-03-12", 0.9, 0.88, 1, True),
        ],
        settled=SETTLED,
        citations=[
            Citation(end - len(sentence), end, passages)
            for end, sentence, passages in zip(ends, SENTENCES, supports, strict=True)
        ],
    )


class Telling(Service):
    """Gives one answer to everything."""

    model_notices = ()

    def load(self):
        self.state = ServiceState("ready", "ready")

    def stream(self, query, decoding, cancelled=None, client=""):
        yield from disputed().tokens
        yield disputed()


@pytest.fixture
def telling(tmp_path, cache):
    """The page over an answer that is known."""
    service = Telling(settings_module.load(home=tmp_path, cache=cache))
    service.load()
    running = Running(service)
    yield running
    running.stop()


def asked(page):
    page.locator("#question textarea").fill(QUESTION)
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#latest .turn[aria-busy=false]")).to_be_visible()
    return page.locator("#latest .claims")


@pytest.mark.parametrize("viewport", [DESKTOP, NARROW], ids=["desktop", "phone"])
def test_claims_are_compared_without_scrolling_sideways(visit, telling, viewport):
    page = visit(viewport, at=telling)
    claims = asked(page)
    expect(claims).to_contain_text(SETTLED)
    rows = claims.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("30 euros")
    expect(rows.first).to_contain_text("follows it")
    expect(rows.filter(has_text="the model’s memory")).to_contain_text("22 %")
    table = claims.locator("table")
    assert table.evaluate("element => element.scrollWidth <= element.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    claims.get_by_label("passage 3").click()
    expect(page.locator("#turn-1-3")).to_be_focused()


def test_a_sentence_lights_up_its_passages(visit, telling):
    page = visit(at=telling)
    asked(page)
    said = page.locator("#latest .said")
    said.get_by_text("Harbour", exact=True).hover()
    expect(page.locator("#latest .sources li.lit")).to_have_count(2)
    expect(page.locator("#turn-1-2")).not_to_have_class("lit")
    lit = "".join(said.locator(".sentence.lit").all_text_contents())
    assert lit == "The toll of the Harbour Bridge is 30 euros."

    said.locator(".token").first.focus()
    for _ in range(9):  # to the next sentence, word by word
        page.keyboard.press("ArrowRight")
    expect(page.locator("#turn-1-2")).to_have_class("lit")
    expect(page.locator("#latest .sources li.lit")).to_have_count(1)

    said.locator(".unsupported").hover()
    expect(page.get_by_role("tooltip")).to_contain_text("no passage supports this")
    expect(page.locator("#latest .sources li.lit")).to_have_count(0)
