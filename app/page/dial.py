"""What an answer follows: the dial between documents and memory, and what is beside it."""

import gradio as gr

from app.page.conversation import POLICY_NAMES
from control.conflict.sources import Policy

START = "0.5"
USUAL, USUAL_NAME = "usual", "the trusted or newest"  # no policy is chosen

TEMPLATE = """
<div class="dial ${value === 'auto' ? 'automatic' : ''}" role="group" aria-label="Dial">
  <span class="end" aria-hidden="true">documents</span>
  <input type="range" min="0" max="1" step="0.05" value="${value === 'auto' ? 0.5 : value}"
    aria-label="From documents (0) to memory (1)"
    aria-valuetext="${value === 'auto' ? 'auto' : Number(value).toFixed(2)}">
  <span class="end" aria-hidden="true">memory</span>
  <button type="button" aria-pressed="${value === 'auto'}"
    title="Decide each conflict by how sure memory is">auto</button>
  <output>${value === 'auto' ? 'auto: by confidence'
    : value == 0 ? '0: documents alone'
    : value == 0.5 ? '0.5: documents, as the model reads them'
    : value == 1 ? '1: memory, where it knows'
    : value < 0.5 ? value + ': towards the documents'
    : value + ': towards memory'}</output>
</div>
"""
# The template is rendered again when the value changes, so the listeners are on its parent.
SCRIPT = """
const set = value => { props.value = String(value); };
element.addEventListener('input', event => set(event.target.value));
element.addEventListener('change', () => trigger('release'));
element.addEventListener('click', event => {
  if (!event.target.closest('button')) return;
  set(props.value === 'auto' ? element.querySelector('input').value : 'auto');
  trigger('release');
});
"""


def dial() -> gr.HTML:
    """Build the dial; its value is alpha as text or ``auto``, its event ``release``."""
    return gr.HTML(
        value=START,
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id="dial",
    )


# On a small screen the rest of the composer stays folded until it is asked for.
MORE = """
<button type="button" aria-expanded="false" aria-controls="settled reading">More settings</button>
"""
MORE_SCRIPT = """
element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (!button) return;
  const open = element.closest('#composer').classList.toggle('unfolded');
  button.setAttribute('aria-expanded', open);
  button.textContent = open ? 'Fewer settings' : 'More settings';
});
"""


def more() -> gr.HTML:
    """Build the button that unfolds, on a small screen, what is beside the dial."""
    return gr.HTML(
        html_template=MORE, js_on_load=MORE_SCRIPT, apply_default_css=False, elem_id="more"
    )


def only_documents(value: bool) -> gr.Checkbox:
    """Build the choice to answer nothing from memory."""
    return gr.Checkbox(
        value,
        label="Only documents",
        info="answers nothing from memory",
        container=False,
        min_width=0,
        elem_id="only-documents",
    )


def policy(usual: Policy | None) -> gr.Dropdown:
    """Build the choice of the documents to follow where they disagree.

    Args:
        usual: The policy of the home. Without one, `USUAL` can be chosen too.
    """
    names: list[tuple[str, str]] = [(name, each) for each, name in POLICY_NAMES.items()]
    return gr.Dropdown(
        names if usual else [(USUAL_NAME, USUAL), *names],
        value=usual or USUAL,
        label="If documents disagree",
        filterable=False,
        min_width=0,
        elem_id="policy",
    )
