"""Attention of rows whose keys and values lie in caches of different widths.

All answers under way take their next token in one pass, but prompts with passages are several times
longer than those without: in one cache half of what attention reads would be padding. So rows of
like length share a cache, and within the pass each of the caches is attended to by itself. All else
of the model sees one batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLAIN, NAME = "sdpa", "fulcrum_rows_of_like_length"

Rows = tuple[DynamicCache, Tensor]
"""A cache, and the attention mask of its rows, their new token included: (rows, length)."""

_APART: "ContextVar[Sequence[Rows] | None]" = ContextVar("caches of a pass", default=None)


def can_attend_apart(model: "PreTrainedModel") -> bool:
    """Whether a model's rows may lie in several caches; it is made ready for that if so."""
    if model.config._attn_implementation == PLAIN and model._can_set_attn_implementation():
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)


@contextmanager
def attending_apart(dtype: torch.dtype, rows: Sequence[Rows]) -> Iterator[None]:
    """A pass in here appends one token to every row, and needs no cache of its own.

    Args:
        dtype: Of the model.
        rows: Of the batch, in its order.
    """
    token = _APART.set([(cache, _added(dtype, mask)) for cache, mask in rows])
    try:
        yield
    finally:
        _APART.reset(token)


def _added(dtype: torch.dtype, mask: Tensor) -> Tensor:
    """What is added to attention, (rows, 1, 1, length): made once, not in each layer."""
    nothing = torch.zeros_like(mask, dtype=dtype)
    return nothing.masked_fill(mask == 0, -torch.inf)[:, None, None]


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **how: Any,
) -> tuple[Tensor, None]:
    """As transformers' own; tensors are of shape (rows, heads, tokens, size)."""
    apart = _APART.get()
    if apart is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **how)
    outputs, counts = [], [len(mask) for _, mask in apart]
    parts = zip(apart, *(states.split(counts) for states in (query, key, value)), strict=True)
    for (cache, mask), asked, *new in parts:
        held = cache.layers[module.layer_idx].update(*new)
        outputs.append(sdpa_attention_forward(module, asked, *held, mask, **how)[0])
    return torch.cat(outputs), None
