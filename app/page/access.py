"""Who may change things on the page."""

import gradio as gr

from app.server.security import administers
from foundation.errors import InputError

__all__ = ["administers", "check"]


def check(request: gr.Request) -> None:
    """Let administrators pass.

    Raises:
        InputError: Who asks has shown the key for reading alone.
    """
    if not administers(request):
        raise InputError(
            "this needs the key for administration; open the page in a private window and sign in "
            "with that one"
        )
