"""Keys and values of one layer, with room for those of the tokens to come."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 32  # tokens that can be appended before all that was read is copied again


class PreallocatedCacheLayer(DynamicLayer):
    """Keys and values with room behind them, so that a new token copies none of the earlier ones.

    A copy shares what it holds, but not the room.
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
        """See `Branches.copied`."""
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
