"""Lists with buttons, drawn as one piece of HTML."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.page import views
from foundation.errors import InputError

Refresh = tuple[Callable[[gr.Request], str], gr.HTML]
"""What draws a list anew, and where it is shown."""

# A button names what it does and to what; one that cannot be taken back asks for a second press.
SCRIPT = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  const {action, id, sure} = button.dataset;
  if (sure && !button.classList.contains('sure')) {
    button.classList.add('sure');
    button.textContent = sure;
    return;
  }
  trigger('select', {action, id});
});
"""


def listing(name: str, elem_id: str | None = None, **values: Any) -> gr.HTML:
    """The HTML of ``page_NAME.jinja``; its event ``select`` tells the button's action and id."""
    drawn = views.render(name, **values)
    return gr.HTML(drawn, js_on_load=SCRIPT, apply_default_css=False, elem_id=elem_id)


@dataclass(frozen=True)
class PressedButton:
    """A button of a list.

    Attributes:
        action: What it does.
        id: To what.
    """

    action: str
    id: str


def pressed(event: gr.EventData) -> PressedButton:
    """The button that an event ``select`` tells of.

    Raises:
        InputError: It tells of none.
    """
    told = [getattr(event, name, None) for name in ("action", "id")]
    if not all(isinstance(text, str) for text in told):
        raise InputError("no button is named; press one of the list")
    return PressedButton(*map(str, told))
