"""Prompts read once and then continued in many ways: the caches behind the decoding."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from control.trees import TokenTree, tree_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 32  # tokens that can be appended before all that was read is copied again
TREES_AT_ONCE = 16  # rows read on in one pass; more of them gain nothing on a CPU


@dataclass
class Branches:
    """Texts that the model has read, one per row.

    Attributes:
        logits: Of the next token, shape (rows, vocabulary).
        cache: Keys and values of all that was read.
        mask: 1 where a token stands, 0 where there is padding, shape (rows, length).
    """

    logits: Tensor
    cache: DynamicCache
    mask: Tensor

    def copied(self, rows: Sequence[int] | None = None) -> "Branches":
        """These rows, or all, to be continued without changing the others."""
        # Layers that keep the whole text put new tensors in place of theirs, and write into none.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        copied = Branches(self.logits, cache, self.mask)
        if rows is not None:
            copied.select(torch.tensor(rows, device=self.mask.device))
        return copied

    def without(self, kept: Sequence[int]) -> "Branches":
        """These rows, of which all but ``kept`` have read nothing; their ``logits`` are void."""
        mask = torch.zeros_like(self.mask)
        mask[list(kept)] = self.mask[list(kept)]
        return Branches(self.logits, self.cache, mask)

    def repeat(self, copies: int) -> None:
        """Turn each row into ``copies`` rows, one after the other."""
        self.cache.batch_repeat_interleave(copies)
        self.logits = self.logits.repeat_interleave(copies, dim=0)
        self.mask = self.mask.repeat_interleave(copies, dim=0)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come more than once."""
        self.cache.batch_select_indices(rows)
        self.logits, self.mask = self.logits[rows], self.mask[rows]

    def trim(self) -> None:
        """Drop what is padding in every row on the left."""
        padding = int(self.mask.any(dim=0).long().argmax())
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, padding:], layer.values[:, :, padding:]
        self.mask = self.mask[:, padding:]


def joined(parts: Sequence[Branches]) -> Branches:
    """The rows of all parts, of one model, padded on the left to one length, with `ROOM` to go on.

    Not for models that look at a sliding window.
    """
    length = max(part.mask.shape[1] for part in parts)
    cache = DynamicCache()
    cache.layers = [
        _RoomyLayer(layers, length)
        for layers in zip(*(part.cache.layers for part in parts), strict=True)
    ]
    masks = [torch.nn.functional.pad(part.mask, (length - part.mask.shape[1], 0)) for part in parts]
    return Branches(torch.cat([part.logits for part in parts]), cache, torch.cat(masks))


class _RoomyLayer(DynamicLayer):
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

    def __copy__(self) -> "_RoomyLayer":
        """See `Branches.copied`."""
        copied = _RoomyLayer.__new__(_RoomyLayer)
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


@dataclass(frozen=True)
class Reading:
    """What the model thought of a continuation that it was shown, token by token.

    Attributes:
        log_p: Log-probability of each token, in nats, shape (tokens,).
        entropy: Entropy of the next token before each, in nats, shape (tokens,).
        hidden: Hidden states at each token for each layer asked for, shape (layers, tokens, size).
    """

    log_p: Tensor
    entropy: Tensor
    hidden: Tensor

    def part(self, start: int, stop: int | None = None) -> "Reading":
        """That of the tokens from ``start`` up to ``stop``."""
        return self.at(slice(start, stop))

    def at(self, places: "slice | Sequence[int]") -> "Reading":
        """That of these tokens."""
        return Reading(self.log_p[places], self.entropy[places], self.hidden[:, places])


def read(
    model: "PreTrainedModel", ids: Tensor, mask: Tensor, groups: int = 1, whole: bool = False
) -> Branches:
    """Read left-padded prompts.

    Each group of rows is read at its own length and its keys and values padded to the longest
    after: the prompts without passages are several times shorter, and reading their padding would
    nearly double the time to the first token. Sliding-window caches cannot be padded after; such
    models read all groups at once.

    Args:
        model: A causal language model.
        ids: Prompts, shape (groups * n, length).
        mask: Attention mask, same shape.
        groups: How many groups of rows of like length there are.
        whole: Keep the whole text in the cache even where the model looks at a sliding window, so
            that what was read can be continued more than once.
    """
    length = ids.shape[1]
    groups = 1 if slides(model) else groups
    parts = []
    for own_ids, own_mask in zip(ids.chunk(groups), mask.chunk(groups), strict=True):
        width = int(own_mask.sum(dim=1).max())
        trimmed = own_mask[:, -width:]
        output = model(
            input_ids=own_ids[:, -width:],
            attention_mask=trimmed,
            position_ids=(trimmed.cumsum(dim=1) - 1).clamp_min(0),
            past_key_values=DynamicCache() if whole else DynamicCache(config=model.config),
            use_cache=True,
            **_last_logits_only(model),
        )
        parts.append((output.logits[:, -1], output.past_key_values))
    logits = torch.cat([part_logits for part_logits, _ in parts])
    joint = parts[0][1]
    if groups == 1:
        return Branches(logits, joint, mask[:, -width:])
    for layer, *others in zip(*(cache.layers for _, cache in parts), strict=True):
        layer.keys = _joined([layer.keys, *(other.keys for other in others)], length)
        layer.values = _joined([layer.values, *(other.values for other in others)], length)
    return Branches(logits, joint, mask)


def step(model: "PreTrainedModel", branches: Branches, tokens: Tensor) -> None:
    """Append one token to every row, ``tokens`` of shape (rows,)."""
    position = branches.mask.sum(dim=1, keepdim=True)
    ones = branches.mask.new_ones(branches.mask.shape[0], 1)
    branches.mask = torch.cat([branches.mask, ones], dim=1)
    branches.logits = model(
        input_ids=tokens[:, None],
        attention_mask=branches.mask,
        position_ids=position,
        past_key_values=branches.cache,
        use_cache=True,
    ).logits[:, -1]


def extend(model: "PreTrainedModel", branches: Branches, texts: Sequence[Sequence[int]]) -> Tensor:
    """Append to every row tokens of its own, at least one, in one forward pass.

    Returns:
        The logits of every appended token, from those that chose the first one on, shape (rows,
        longest, vocabulary); what stands beyond a row's own tokens has no meaning.
    """
    logits, _ = _forward(model, branches, [TokenTree([text]) for text in texts])
    counts = torch.tensor([len(text) for text in texts], device=logits.device)
    before = torch.cat([branches.logits[:, None], logits[:, :-1]], dim=1)
    branches.logits = logits[torch.arange(len(texts), device=logits.device), counts - 1]
    if slides(model):
        _close_gaps(branches)
    return before


def _close_gaps(branches: Branches) -> None:
    """Move padding behind shorter texts to the left, where no sliding window counts it."""
    order = branches.mask.argsort(dim=1, stable=True)
    for layer in branches.cache.layers:
        where = order[:, None, :, None].to(layer.keys.device)
        layer.keys = layer.keys.gather(2, where.expand_as(layer.keys))
        layer.values = layer.values.gather(2, where.expand_as(layer.values))
    branches.mask = branches.mask.gather(1, order)


def read_on(
    model: "PreTrainedModel",
    branches: Branches,
    continuations: Sequence[Sequence[list[int]]],
    layers: Sequence[int] = (),
) -> list[list[Reading]]:
    """Show the model several continuations of every row; the rows stay as they are.

    Args:
        model: The model.
        branches: From `read` with ``whole``.
        continuations: For each row its texts, as token ids, each at least one.
        layers: Indices of the hidden states wanted; 0 are the embeddings.

    Returns:
        The readings of each row's continuations.
    """
    trees = [
        (row, TokenTree(own))
        for row, texts in enumerate(continuations)
        # A window cannot be told which texts it looks at: there every text is read by itself.
        for own in ([[text] for text in texts] if slides(model) else [texts])
    ]
    order = list(range(len(trees)))
    if len(order) > TREES_AT_ONCE:  # what is of like length together: padding costs as much as text
        order.sort(key=lambda place: len(trees[place][1].tokens))
    readings = dict[int, list[Reading]]()
    for start in range(0, len(order), TREES_AT_ONCE):
        places = order[start : start + TREES_AT_ONCE]
        rows = [trees[place][0] for place in places]
        own = branches.copied(None if rows == list(range(len(branches.mask))) else rows)
        grown = [trees[place][1] for place in places]
        logits, hidden = _forward(model, own, grown, layers)
        for at, (place, tree) in enumerate(zip(places, grown, strict=True)):
            count = len(tree.tokens)
            # The logits that chose a token are those of its parent, or of the text before.
            before = torch.cat([own.logits[at : at + 1], logits[at, :count]])
            before = before[torch.tensor(tree.parents, device=before.device) + 1]
            log_p = before.float().log_softmax(dim=-1)
            whole = Reading(
                log_p[torch.arange(count), torch.tensor(tree.tokens)].cpu(),
                -(log_p.exp() * log_p).sum(dim=-1).cpu(),
                hidden[:, at, :count].float().cpu(),
            )
            readings[place] = [whole.at(path) for path in tree.paths]
    found: list[list[Reading]] = [[] for _ in continuations]
    for place, (row, _) in enumerate(trees):
        found[row] += readings[place]
    return found


def _forward(
    model: "PreTrainedModel",
    branches: Branches,
    trees: Sequence[TokenTree],
    layers: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Logits (rows, longest, vocabulary) and hidden states (layers, rows, longest, size)."""
    device = branches.mask.device
    longest = max(len(tree.tokens) for tree in trees)
    ids = torch.zeros(len(trees), longest, dtype=torch.long)
    added, depths = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, tree in enumerate(trees):
        count = len(tree.tokens)
        ids[row, :count] = torch.tensor(tree.tokens)
        depths[row, :count] = torch.tensor(tree.depths)
        added[row, :count] = 1
    past = branches.mask.sum(dim=1, keepdim=True)
    seen = branches.mask
    branches.mask = torch.cat([branches.mask, added.to(branches.mask)], dim=1)
    forks = any(tree.forks for tree in trees)
    output = model(
        input_ids=ids.to(device),
        attention_mask=tree_mask(model.dtype, seen, trees, longest) if forks else branches.mask,
        position_ids=past + depths.to(device),
        past_key_values=branches.cache,
        use_cache=True,
        output_hidden_states=bool(layers),
    )
    if not layers:
        return output.logits, output.logits.new_zeros(0, len(trees), longest, 0)
    return output.logits, torch.stack([output.hidden_states[layer] for layer in layers])


def slides(model: "PreTrainedModel") -> bool:
    """Whether some of its layers look at a sliding window only."""
    return any(DynamicCache(config=model.config).is_sliding)


def _joined(states: list[Tensor], length: int) -> Tensor:
    """Keys or values (rows, heads, own length, size) left-padded to ``length``, one batch."""
    padded = [
        torch.nn.functional.pad(state, (0, 0, length - state.shape[-2], 0)) for state in states
    ]
    return torch.cat(padded)


def _last_logits_only(model: "PreTrainedModel") -> dict[str, int]:
    accepted = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if accepted else {}
