"""The dial between documents and memory, as one control."""

import gradio as gr

START = "0.5"

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
    : value == 0.5 ? '0.5: plain RAG'
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


def dial(value: str = START, elem_id: str = "dial") -> gr.HTML:
    """Build the dial; its value is alpha as text or ``auto``, its event ``release``."""
    return gr.HTML(
        value=value,
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
    )
