"""A conversation as Markdown or JSON, to keep or to pass on."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from app.page import views
from app.page.conversation import ConversationTurn

FORMATS: Final = ("md", "json")


def to_file(turns: Sequence[ConversationTurn], kind: str) -> str:
    """Return the HTML that has the browser save a file of the turns.

    Args:
        turns: The turns.
        kind: One of ``FORMATS``.
    """
    content = to_json(turns) if kind == "json" else to_markdown(turns)
    return views.render("file", name=f"fulcrum.{kind}", content=content)


def to_json(turns: Sequence[ConversationTurn]) -> str:
    """Return the turns with all that is known of them, the answers as ``fulcrum ask --json``."""
    return json.dumps([asdict(turn) for turn in turns], ensure_ascii=False, indent=1)


def to_markdown(turns: Sequence[ConversationTurn]) -> str:
    """Return questions, answers, claims and passages to read."""
    return views.MARKDOWN.get_template("export.jinja").render(turns=turns).strip() + "\n"
