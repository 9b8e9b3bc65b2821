"""Key-value caches of running answers: with room for new tokens, and one for each row length.

Prompts with passages are several times longer than those without: in one cache half of what
attention reads would be padding. So rows of similar length share a cache, and within one forward
pass each cache is attended to by itself. The rest of the model sees one batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 32  # tokens that can be appended before the whole cache is copied again
SDPA, ROW_CACHES = "sdpa", "fulcrum_row_caches"  # names of attention functions in transformers

CacheRows = tuple[DynamicCache, Tensor]
"""A cache, and the attention mask of its rows, their new token included: (rows, length)."""

# transformers hands an attention function tensors and options of its own; on some architectures
# nothing else reaches it, so the caches of a pass are here while it runs.
_PASS: "ContextVar[Sequence[CacheRows] | None]" = ContextVar("caches of a pass", default=None)


class PreallocatedCacheLayer(DynamicLayer):
    """Keys and values with room behind them, so that a new token copies none of the earlier ones.

    A copy shares its keys and values with the original, but not the room.
    """

    def __init__(self, parts: "Sequence[DynamicLayer]", length: int) -> None:
        """Copy the rows of ``parts``, padded on the left to ``length``."""
        super().__init__()
        counts = [len(part.keys) for part in parts]
        self.lazy_initialization(parts[0].keys, parts[0].values)
        self._end = length
        self._room = [
            like.new_zeros(sum(counts), like.shape[1], length + ROOM, like.shape[3])
            for like in (parts[0].keys, parts[0].values)
        ]
        for room, given in zip(
            self._room,
            ([part.keys for part in parts], [part.values for part in parts]),
            strict=True,
        ):
            for rows, part in zip(room.split(counts), given, strict=True):
                rows[:, :, length - part.shape[2] : length] = part
        self.keys, self.values = (room[:, :, :length] for room in self._room)

    def __copy__(self) -> "PreallocatedCacheLayer":
        """See `control.engines.branches.DecodeState.copied`."""
        copied = PreallocatedCacheLayer.__new__(PreallocatedCacheLayer)
        copied.__dict__.update(self.__dict__)
        copied._room, copied._end = [self.keys, self.values], self.keys.shape[2]
        return copied

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values; see `DynamicLayer.update`."""
        start, new = self._end - self.keys.shape[2], key_states.shape[2]
        if self._end + new > self._room[0].shape[2]:
            self._room = [
                torch.nn.functional.pad(held, (0, 0, 0, ROOM + new))
                for held in (self.keys, self.values)
            ]
            start, self._end = 0, self.keys.shape[2]
        end = self._end + new
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, self._end : end] = states
        self._end = end
        self.keys, self.values = (room[:, :, start:end] for room in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows; see `DynamicLayer.batch_select_indices`."""
        length = self.keys.shape[2]
        selected = []
        for held in (self.keys, self.values):
            room = held.new_empty(len(indices), held.shape[1], length + ROOM, held.shape[3])
            torch.index_select(held, 0, indices, out=room[:, :, :length])
            selected.append(room)
        self._room, self._end = selected, length
        self.keys, self.values = (room[:, :, :length] for room in self._room)


def use_row_caches(model: "PreTrainedModel") -> bool:
    """Register attention over several caches and set it on a model; whether the model takes it.

    Registering it again changes nothing. Outside `attend_to` it is transformers' own attention.
    """
    if model.config._attn_implementation == SDPA and model._can_set_attn_implementation():
        AttentionInterface.register(ROW_CACHES, _attention)
        AttentionMaskInterface.register(ROW_CACHES, sdpa_mask)
        model.set_attn_implementation(ROW_CACHES)
    return bool(model.config._attn_implementation == ROW_CACHES)


@contextmanager
def attend_to(dtype: torch.dtype, rows: Sequence[CacheRows]) -> Iterator[None]:
    """A forward pass in the block appends one token to every row, and needs no cache of its own.

    Args:
        dtype: Of the model.
        rows: Of the batch, in its order.
    """
    token = _PASS.set([(cache, _additive(dtype, mask)) for cache, mask in rows])
    try:
        yield
    finally:
        _PASS.reset(token)


def _additive(dtype: torch.dtype, mask: Tensor) -> Tensor:
    """The mask as it is added to attention, (rows, 1, 1, length): once, not in each layer."""
    nothing = torch.zeros_like(mask, dtype=dtype)
    return nothing.masked_fill(mask == 0, -torch.inf)[:, None, None]


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers' own; tensors are of shape (rows, heads, tokens, size)."""
    caches = _PASS.get()
    if caches is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs, counts = [], [len(mask) for _, mask in caches]
    parts = zip(caches, *(states.split(counts) for states in (query, key, value)), strict=True)
    for (cache, mask), queries, *new in parts:
        keys_values = cache.layers[module.layer_idx].update(*new)
        outputs.append(sdpa_attention_forward(module, queries, *keys_values, mask, **options)[0])
    return torch.cat(outputs), None
