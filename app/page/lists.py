"""HTML lists with buttons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.page import views
from foundation.errors import InputError

Refresh = tuple[Callable[..., Any], Sequence[gr.components.Component], Sequence[gr.blocks.Block]]
"""(renders a list again, the components that it reads, those that show it)"""

# A button has an action and an id, and the text of the box beside it if there is one; a button that
# cannot be undone needs a second press.
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
  const value = button.parentElement.querySelector('textarea')?.value ?? '';
  trigger('select', {action, id, value});
});
"""


def html_list(name: str, elem_id: str | None = None, **values: Any) -> gr.HTML:
    """Render ``templates/NAME.jinja``; its event ``select`` tells of a `PressedButton`."""
    drawn = views.render(name, **values)
    return gr.HTML(drawn, js_on_load=SCRIPT, apply_default_css=False, elem_id=elem_id)


@dataclass(frozen=True)
class PressedButton:
    """A button of a list.

    Attributes:
        action: What it does.
        id: Of the item.
        value: The text of the box beside it; empty without one.
    """

    action: str
    id: str
    value: str


def pressed_button(event: gr.EventData) -> PressedButton:
    """Return the button of an event ``select``.

    Raises:
        InputError: The event names none.
    """
    told = [getattr(event, name, None) for name in ("action", "id", "value")]
    if not all(isinstance(text, str) for text in told):
        raise InputError("no button is named; press one of the list")
    return PressedButton(*map(str, told))
