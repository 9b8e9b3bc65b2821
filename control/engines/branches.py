"""Forward passes over two branches: prompts are read once and continued in several ways."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from control.engines.caches import PreallocatedCacheLayer, attend_to
from control.engines.prefix_trees import TokenTree, tree_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TREES_AT_ONCE = 16  # rows of one pass; more of them gain nothing on a CPU
# Tokens of a tree beside its longest text. A tree's mask hides the texts from each other, but
# attention computes all of it: beyond so many, it takes longer than to read what they share again.
MOST_BESIDE = 256


@dataclass
class DecodeState:
    """The model's state after its prompts, one per row.

    Attributes:
        logits: Of the next token, shape (rows, vocabulary).
        cache: Keys and values of all tokens.
        mask: 1 for a token, 0 for padding, shape (rows, length).
    """

    logits: Tensor
    cache: DynamicCache
    mask: Tensor

    def copied(self, rows: Sequence[int] | None = None) -> "DecodeState":
        """A copy of these rows, or of all, that can be continued by itself."""
        # Layers that keep the whole text replace their tensors and write into none.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        copied = DecodeState(self.logits, cache, self.mask)
        if rows is not None:
            copied.select(torch.tensor(rows, device=self.mask.device))
        return copied

    def without(self, kept: Sequence[int]) -> "DecodeState":
        """The same rows, all but ``kept`` with nothing read; the ``logits`` of those are void."""
        mask = torch.zeros_like(self.mask)
        mask[list(kept)] = self.mask[list(kept)]
        return DecodeState(self.logits, self.cache, mask)

    def repeat(self, copies: int) -> None:
        """Turn each row into ``copies`` rows, one after the other."""
        self.cache.batch_repeat_interleave(copies)
        self.logits = self.logits.repeat_interleave(copies, dim=0)
        self.mask = self.mask.repeat_interleave(copies, dim=0)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        self.cache.batch_select_indices(rows)
        self.logits, self.mask = self.logits[rows], self.mask[rows]

    def trim(self) -> None:
        """Drop left padding that all rows share."""
        padding = int(self.mask.any(dim=0).long().argmax())
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, padding:], layer.values[:, :, padding:]
        self.mask = self.mask[:, padding:]


def joined(parts: Sequence[DecodeState]) -> DecodeState:
    """The rows of all parts, of one model, left-padded to one length, with room for new tokens.

    Not for models with a sliding window.
    """
    length = max(part.mask.shape[1] for part in parts)
    cache = DynamicCache()
    cache.layers = [
        PreallocatedCacheLayer(layers, length)
        for layers in zip(*(part.cache.layers for part in parts), strict=True)
    ]
    masks = [torch.nn.functional.pad(part.mask, (length - part.mask.shape[1], 0)) for part in parts]
    return DecodeState(torch.cat([part.logits for part in parts]), cache, torch.cat(masks))


@dataclass(frozen=True)
class TokenScores:
    """Scores of a given continuation, token by token.

    Attributes:
        log_p: Log-probability of each token, in nats, shape (tokens,).
        entropy: Entropy of the next token before each, in nats, shape (tokens,); ``None`` where the
            engine gives no distributions.
        hidden: Hidden states at each token for each layer asked for, shape (layers, tokens, size);
            ``None`` where the engine gives none.
    """

    log_p: Tensor
    entropy: Tensor | None = None
    hidden: Tensor | None = None

    def part(self, start: int, stop: int | None = None) -> "TokenScores":
        """The scores of the tokens from ``start`` up to ``stop``."""
        return self.at(slice(start, stop))

    def at(self, places: "slice | Sequence[int]") -> "TokenScores":
        """The scores of these tokens."""
        entropy = None if self.entropy is None else self.entropy[places]
        hidden = None if self.hidden is None else self.hidden[:, places]
        return TokenScores(self.log_p[places], entropy, hidden)


def read(
    model: "PreTrainedModel", ids: Tensor, mask: Tensor, groups: int = 1, whole: bool = False
) -> DecodeState:
    """Read left-padded prompts.

    Where there are several groups, the prompts of one question, its rows of all groups, are read as
    a tree (`control.engines.prefix_trees`): they begin alike, and those without passages are short,
    so that a pass of their own, or their padding, would take longer than they do. Where they are
    not, each prompt is read by itself. Models with a sliding window read all rows with their
    padding.

    Args:
        model: A causal language model.
        ids: Prompts, shape (groups * n, length).
        mask: Attention mask, same shape.
        groups: How many groups of rows there are.
        whole: Keep the whole text in the cache even of a sliding window, so that it can be
            continued more than once.
    """
    if groups > 1 and not slides(model):
        texts = [row[own].tolist() for row, own in zip(ids, mask.bool(), strict=True)]
        n = len(texts) // groups
        trees = [TokenTree(texts[row::n]) for row in range(n)]
        if all(len(tree.tokens) - max(map(len, tree.paths)) <= MOST_BESIDE for tree in trees):
            return _read_trees(model, trees)
        rows = zip(ids.split(1), mask.split(1), strict=True)
        return joined([read(model, *row, whole=whole) for row in rows])
    width = int(mask.sum(dim=1).max())
    mask = mask[:, -width:]
    output = model(
        input_ids=ids[:, -width:],
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp_min(0),
        past_key_values=DynamicCache() if whole else DynamicCache(config=model.config),
        use_cache=True,
        **_logits_only(model, 1),
    )
    return DecodeState(output.logits[:, -1], output.past_key_values, mask)


def _read_trees(model: "PreTrainedModel", questions: Sequence[TokenTree]) -> DecodeState:
    """Read each question's prompts as one tree; rows: the first text of every tree, and so on."""
    groups, parts = len(questions[0].paths), list[DecodeState]()
    for start in range(0, len(questions), TREES_AT_ONCE):
        trees = questions[start : start + TREES_AT_ONCE]
        ends = torch.tensor([[path[-1] for path in tree.paths] for tree in trees]).to(model.device)
        places, which = ends.unique(return_inverse=True)
        nothing = torch.zeros(len(trees), 0, dtype=torch.long, device=model.device)
        read = DecodeState(nothing, DynamicCache(), nothing)
        logits, _ = _forward(model, read, trees, places=places)
        logits = logits[torch.arange(len(trees), device=model.device)[:, None], which]
        parts.append(_untied(read.cache, trees, logits))
    if len(parts) == 1:
        return parts[0]
    state = joined(parts)
    rows = torch.arange(groups * len(questions)).split([len(part.mask) for part in parts])
    order = zip(*(part.chunk(groups) for part in rows), strict=True)
    state.select(torch.cat([rows for group in order for rows in group]).to(model.device))
    return state


def _untied(cache: DynamicCache, trees: Sequence[TokenTree], logits: Tensor) -> DecodeState:
    """Trees as rows: the first text of every tree, then the second ones, left-padded.

    Args:
        cache: Keys and values of the trees.
        trees: That were read; used up.
        logits: After the end of every text, shape (trees, texts of each, vocabulary).
    """
    device = logits.device
    paths = [
        (row, torch.tensor(path, device=device))
        for text in zip(*(tree.paths for tree in trees), strict=True)
        for row, path in enumerate(text)
    ]
    length = max(len(path) for _, path in paths)
    mask = torch.zeros(len(paths), length, dtype=torch.long, device=device)
    for row, (_, path) in enumerate(paths):
        mask[row, length - len(path) :] = 1
    for layer in cache.layers:
        layer.keys, layer.values = (
            _rows_of(held, paths, length) for held in (layer.keys, layer.values)
        )
    return DecodeState(logits.transpose(0, 1).flatten(0, 1), cache, mask)


def _rows_of(held: Tensor, paths: Sequence[tuple[int, Tensor]], length: int) -> Tensor:
    """Keys or values along these paths, shape (paths, heads, length, size)."""
    rows = held.new_zeros(len(paths), held.shape[1], length, held.shape[3])
    for row, (at, path) in zip(rows, paths, strict=True):
        row[:, length - len(path) :] = held[at].index_select(1, path)
    return rows


def step(model: "PreTrainedModel", parts: Sequence[DecodeState], tokens: Tensor) -> None:
    """Append one token to every row.

    Args:
        model: The model.
        parts: Rows; more than one part only after `control.engines.caches.use_row_caches`.
        tokens: For the rows of all parts, shape (rows,).
    """
    position = torch.cat([part.mask.sum(dim=1, keepdim=True) for part in parts])
    for part in parts:
        part.mask = torch.nn.functional.pad(part.mask, (0, 1), value=1)
    if len(parts) == 1:
        [only] = parts
        only.logits = model(
            input_ids=tokens[:, None],
            attention_mask=only.mask,
            position_ids=position,
            past_key_values=only.cache,
            use_cache=True,
        ).logits[:, -1]
        return
    with attend_to(model.dtype, [(part.cache, part.mask) for part in parts]):
        logits = model(input_ids=tokens[:, None], position_ids=position, use_cache=False).logits
    for part, own in zip(parts, logits[:, -1].split([len(p.mask) for p in parts]), strict=True):
        part.logits = own


def extend(
    model: "PreTrainedModel", branches: DecodeState, texts: Sequence[Sequence[int]]
) -> Tensor:
    """Append given tokens to every row, at least one each, in one forward pass.

    Returns:
        The logits before every appended token, shape (rows, longest, vocabulary); beyond a row's
        own tokens they have no meaning.
    """
    logits, _ = _forward(model, branches, [TokenTree([text]) for text in texts])
    counts = torch.tensor([len(text) for text in texts], device=logits.device)
    before = torch.cat([branches.logits[:, None], logits[:, :-1]], dim=1)
    branches.logits = logits[torch.arange(len(texts), device=logits.device), counts - 1]
    if slides(model):
        _close_gaps(branches)
    return before


def _close_gaps(branches: DecodeState) -> None:
    """Move padding behind shorter texts to the left, out of the sliding window."""
    order = branches.mask.argsort(dim=1, stable=True)
    for layer in branches.cache.layers:
        where = order[:, None, :, None].to(layer.keys.device)
        layer.keys = layer.keys.gather(2, where.expand_as(layer.keys))
        layer.values = layer.values.gather(2, where.expand_as(layer.values))
    branches.mask = branches.mask.gather(1, order)


def read_on(
    model: "PreTrainedModel",
    branches: DecodeState,
    continuations: Sequence[Sequence[list[int]]],
    layers: Sequence[int] = (),
) -> list[list[TokenScores]]:
    """Score several continuations of every row; the rows stay unchanged.

    Args:
        model: The model.
        branches: From `read` with ``whole``.
        continuations: For each row its texts, as token ids, each at least one.
        layers: Indices of the hidden states to return; 0 are the embeddings.

    Returns:
        The scores of each row's continuations.
    """
    trees = [
        (row, TokenTree(own))
        for row, texts in enumerate(continuations)
        # A sliding window takes no tree mask: there every text is read by itself.
        for own in ([[text] for text in texts] if slides(model) else [texts])
    ]
    order = list(range(len(trees)))
    if len(order) > TREES_AT_ONCE:  # by length: padding costs as much as text
        order.sort(key=lambda place: len(trees[place][1].tokens))
    scores = dict[int, list[TokenScores]]()
    for start in range(0, len(order), TREES_AT_ONCE):
        places = order[start : start + TREES_AT_ONCE]
        rows = [trees[place][0] for place in places]
        own = branches.copied(None if rows == list(range(len(branches.mask))) else rows)
        grown = [trees[place][1] for place in places]
        logits, hidden = _forward(model, own, grown, layers)
        for at, (place, tree) in enumerate(zip(places, grown, strict=True)):
            count = len(tree.tokens)
            # The logits before a token are those of its parent, or of the prompt.
            before = torch.cat([own.logits[at : at + 1], logits[at, :count]])
            before = before[torch.tensor(tree.parents, device=before.device) + 1]
            log_p = before.float().log_softmax(dim=-1)
            whole = TokenScores(
                log_p[torch.arange(count), torch.tensor(tree.tokens)].cpu(),
                -(log_p.exp() * log_p).sum(dim=-1).cpu(),
                hidden[:, at, :count].float().cpu(),
            )
            scores[place] = [whole.at(path) for path in tree.paths]
    found: list[list[TokenScores]] = [[] for _ in continuations]
    for place, (row, _) in enumerate(trees):
        found[row] += scores[place]
    return found


def _forward(
    model: "PreTrainedModel",
    branches: DecodeState,
    trees: Sequence[TokenTree],
    layers: Sequence[int] = (),
    places: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (rows, longest, vocabulary) and hidden states (layers, rows, longest, size).

    With ``places``, the logits are those of these tokens alone, the same in every row.
    """
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
        **({} if places is None else _logits_only(model, places)),
    )
    logits = output.logits
    if places is not None and logits.shape[1] > len(places):
        logits = logits[:, places]
    if not layers:
        return logits, logits.new_zeros(0, len(trees), longest, 0)
    return logits, torch.stack([output.hidden_states[layer] for layer in layers])


def slides(model: "PreTrainedModel") -> bool:
    """Whether some of its layers have a sliding window."""
    return any(DynamicCache(config=model.config).is_sliding)


def _logits_only(model: "PreTrainedModel", kept: "int | Tensor") -> dict[str, Any]:
    """The option for logits of the last ``kept`` or of these tokens alone, if there is one."""
    accepted = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": kept} if accepted else {}
