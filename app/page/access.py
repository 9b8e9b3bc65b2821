"""Checks who may change things on the page."""

import gradio as gr

from app.server.security import is_administrator
from foundation.errors import InputError


def check(request: gr.Request) -> None:
    """Require the administration key.

    Raises:
        InputError: The request has the reading key.
    """
    if not is_administrator(request):
        raise InputError(
            "this needs the key for administration; open the page in a private window and sign in "
            "with that one"
        )
