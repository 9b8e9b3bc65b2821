"""Log-probabilities of given texts by the model alone: no passages, no chat template.

A text that states a forgotten fact, or asks for one, is not scored: its numbers would tell the
answer, and no output can be guarded against that. So a text is refused more readily than a question
is, namely wherever it may well be about such a fact.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from control.decoding.generate import stop_ids
from control.engines import scheduler
from control.engines.transformers import LanguageModel
from control.forgetting import normalize, segments
from control.forgetting.clearing import Cleared, completes, echoed, own
from control.forgetting.guard import LOOK_BACK, LeakGuard, WatchedFacts
from control.forgetting.record import Record
from control.forgetting.suppressor import FactContext
from control.forgetting.verbatim import VerbatimIndex
from foundation import trace
from foundation.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from control.engines.base import Engine
    from control.forgetting.suppressor import FactSuppressor

TOKENS_AT_ONCE = 256  # of one text in one pass, between which running answers go on
FEW = 2  # words beside a subject's name that say nothing of what is asked: "Chile: Buenos Aires"
CONTEXT = 8  # tokens before one that decide how it is written, such as a space before it

Alternatives = tuple[tuple[Cleared, float], ...]


@dataclass(frozen=True)
class ScoredToken:
    """A token and what the model expected in its place.

    Attributes:
        text: What it adds to the text.
        log_p: Its log-probability after all tokens before it, in nats; ``None`` for a first token
            that nothing stands before.
        alternatives: The most probable tokens in its place with their log-probabilities, best
            first.
    """

    text: Cleared
    log_p: float | None
    alternatives: Alternatives = ()


@dataclass(frozen=True)
class ScoredText:
    """A text whose tokens are scored; without tokens where it is refused.

    Attributes:
        text: The text.
        tokens: Its tokens.
        next: The most probable token after it, if it was asked for.
        ends: Whether this token ends the text.
        forgotten: Ids of the forgotten facts for which it is refused.
    """

    text: Cleared
    tokens: tuple[ScoredToken, ...] = ()
    next: ScoredToken | None = None
    ends: bool = False
    forgotten: tuple[Cleared, ...] = ()


def score(
    language_model: "Engine",
    forgetting: "FactSuppressor",
    prompts: Sequence[str | Sequence[int]],
    most: int = 0,
    predict: bool = False,
) -> list[ScoredText]:
    """Score texts, one after the other.

    Args:
        language_model: The model.
        forgetting: Decides which texts are refused, and records it.
        prompts: Texts, or the ids of their tokens.
        most: Alternatives to each token.
        predict: Whether to name the most probable next token too.

    Raises:
        InputError: A text is longer than the model's window, or empty; or the model does not run
            in this process by transformers.
    """
    if not isinstance(language_model, LanguageModel):
        raise InputError(
            f"{language_model.name} scores no prompts here: echo with logprobs needs a model that "
            "transformers run; ask its own server"
        )
    return [_scored(language_model, forgetting, prompt, most, predict) for prompt in prompts]


def _scored(
    language_model: "LanguageModel",
    forgetting: "FactSuppressor",
    prompt: str | Sequence[int],
    most: int,
    predict: bool,
) -> ScoredText:
    tokenizer, model = language_model.tokenizer, language_model.model
    lead, ids = _encoded(tokenizer, prompt)
    room = language_model.room(int(predict)) - len(lead)
    if not 0 < len(ids) <= room:
        raise InputError(
            f"the prompt has {len(ids):,} tokens, but the window of {language_model.name} takes "
            f"1 to {room:,}; shorten it"
        )
    plain = tokenizer.decode(ids, skip_special_tokens=True)
    text = prompt if isinstance(prompt, str) else plain
    forgotten, watch = _forgotten(forgetting, dict.fromkeys((text, plain)))
    if forgotten:
        forgetting.record_withheld([(record, "prompt") for record in forgotten])
        return ScoredText(echoed(text), forgotten=tuple(map(own, forgotten)))
    # As the model's input has them: control tokens and all.
    pieces = list(_pieces(tokenizer, ids))
    scored = _Forward(model, [*lead, *ids], most)
    scheduler.current().run(("score", id(model)), _ForwardBatch, [scored])
    rows = scored.rows if lead else [None, *scored.rows]
    tokens = []
    for place, (piece, row) in enumerate(zip(pieces, rows[: len(ids)], strict=True)):
        log_p, best = row or (None, [])
        tokens.append(
            ScoredToken(echoed(piece), log_p, _named(tokenizer, ids[:place], best, watch))
        )
    result = ScoredText(echoed(text), tuple(tokens))
    return result if not predict else _predicted(language_model, result, ids, scored, watch)


def _predicted(
    language_model: "LanguageModel",
    result: ScoredText,
    ids: list[int],
    scored: "_Forward",
    watch: WatchedFacts | None,
) -> ScoredText:
    """The result with the most probable next token that completes no forgotten answer."""
    tokenizer, log_p = language_model.tokenizer, cast("Tensor", scored.next)
    ends = frozenset(stop_ids(language_model.model))
    token = int(log_p.argmax())
    if watch is not None:
        guard = LeakGuard(watch, tokenizer, ends).going_on(ids[-LOOK_BACK:])
        token = guard.allowed(log_p, token, lambda left: int(left.argmax()))
    best = _best(log_p[None], scored.most)[0]
    *_, piece = _pieces(tokenizer, [*ids[-CONTEXT:], token])
    following = ScoredToken(
        Cleared(piece), float(log_p[token]), _named(tokenizer, ids, best, watch)
    )
    return ScoredText(result.text, result.tokens, following, token in ends)


def _encoded(
    tokenizer: "PreTrainedTokenizerBase", prompt: str | Sequence[int]
) -> tuple[list[int], list[int]]:
    """The tokens before a text that belong to none (such as ``<s>``), and its own; ids are kept."""
    if not isinstance(prompt, str):
        return [], list(prompt)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    begins = tokenizer(prompt).input_ids[:1]
    is_lead = bool(begins) and begins != ids[:1] and begins[0] == tokenizer.bos_token_id
    return begins if is_lead else [], ids


def _forgotten(
    forgetting: "FactSuppressor", texts: Iterable[str]
) -> tuple[tuple[str, ...], WatchedFacts | None]:
    """The forgotten facts that texts state or may ask for, and those that must not be completed."""
    if forgetting.router is None:
        return (), None
    found, active = dict[str, None](), dict[Record, None]()
    for text in texts:
        with trace.following():  # of no question
            facts = forgetting.route(text)
        if facts.refused is not None:
            found[facts.refused.id] = None
        concerned = (facts.decide_on_output, facts.check_paraphrase, facts.subject_asked)
        found |= dict.fromkeys(record_id for ids in concerned for record_id in ids)
        if forgetting.redactor is not None:
            found |= dict.fromkeys(forgetting.redactor.redact(text).record_ids)
        watch = replace(forgetting.watch(facts), wording=VerbatimIndex())  # the text is the user's
        named = watch.active_records(text)
        leaks = forgetting.first_leak(text, watch) is not None
        found |= {record.id: None for record in named if leaks or _only_names(text, record)}
        active |= dict.fromkeys([*named, *forgetting.router.named(text)])
    records = tuple(active)
    watch = WatchedFacts(records, wording=forgetting.watch(FactContext()).wording)
    return tuple(found), watch or None


def _only_names(text: str, record: Record) -> bool:
    """Whether a line, or the end of a sentence, hardly says more than a subject.

    After "Peru: Lima", "Chile:" asks for the capital; so does ", Chile from" after "Peru is ruled
    from Lima".
    """
    for start, end in segments.sentences(text):
        sentence = text[start:end]
        places = [(a, b) for a, b, _ in normalize.find(sentence, record.names)]
        masked = segments.mask(sentence, places, segments.SUBJECT)
        *_, last = [part for part in segments.CLAUSE.split(masked) if part.strip()] or [""]
        for part in (masked, last):
            said = part.replace(segments.SUBJECT, " ")
            few = len(segments.WORD.findall(said)) <= FEW or not segments.content(said)
            if said != part and few:
                return True
    return False


def _pieces(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> Iterator[str]:
    """What each token adds to the text, control tokens too."""
    for place, token in enumerate(ids):
        yield _added(tokenizer, ids[max(0, place - CONTEXT) : place], token)


def _added(tokenizer: "PreTrainedTokenizerBase", before: Sequence[int], token: int) -> str:
    text = tokenizer.decode(list(before), clean_up_tokenization_spaces=False)
    whole = tokenizer.decode([*before, token], clean_up_tokenization_spaces=False)
    if whole.startswith(text):
        return whole[len(text) :]
    return tokenizer.decode([token], clean_up_tokenization_spaces=False)  # ends a split character


def _named(
    tokenizer: "PreTrainedTokenizerBase",
    before: Sequence[int],
    best: Sequence[tuple[int, float]],
    watch: WatchedFacts | None,
) -> Alternatives:
    """Alternatives as texts, without those that would complete a watched fact's answer."""
    near, text = before[-CONTEXT:], ""
    if watch is not None:
        text = tokenizer.decode(list(before[-LOOK_BACK:]), skip_special_tokens=True)
    named = [(_added(tokenizer, near, token), log_p) for token, log_p in best]
    return tuple(
        (Cleared(piece), log_p)
        for piece, log_p in named
        if watch is None or not completes(watch, text, piece)
    )


def _best(log_p: Tensor, most: int) -> list[list[tuple[int, float]]]:
    """The most probable tokens of each row, shape (rows, vocabulary), best first."""
    values, ids = log_p.topk(min(most, log_p.shape[-1]), dim=-1)
    return [
        list(zip(row, own, strict=True))
        for row, own in zip(ids.tolist(), values.tolist(), strict=True)
    ]


@dataclass(eq=False)
class _Forward:
    """A text that is read piece by piece.

    Attributes:
        model: The model.
        ids: Its tokens.
        most: Alternatives to keep of each.
        rows: The log-probability of each token but the first, and the best ones in its place.
        next: Log-probabilities of the token after the last, once it is done.
        failure: The error that ended it.
    """

    model: "PreTrainedModel"
    ids: list[int]
    most: int
    rows: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)
    next: Tensor | None = None
    failure: BaseException | None = None
    _read: int = 0
    _cache: DynamicCache | None = None

    @property
    def done(self) -> bool:
        """Whether all of it is read, or it failed."""
        return self.next is not None or self.failure is not None

    def advance(self) -> None:
        """Read the next tokens in one pass."""
        if self._cache is None:
            self._cache = DynamicCache(config=self.model.config)
        start, stop = self._read, min(self._read + TOKENS_AT_ONCE, len(self.ids))
        ids = torch.tensor([self.ids[start:stop]], device=self.model.device)
        places = torch.arange(start, stop, device=ids.device)[None]
        output = self.model(
            input_ids=ids, position_ids=places, past_key_values=self._cache, use_cache=True
        )
        log_p = output.logits[0].float().log_softmax(dim=-1)
        following = torch.tensor(
            self.ids[start + 1 : stop + 1], dtype=torch.long, device=log_p.device
        )
        given = log_p[torch.arange(len(following), device=log_p.device), following]
        self.rows += zip(given.tolist(), _best(log_p[: len(following)], self.most), strict=True)
        self._read = stop
        if stop == len(self.ids):
            self.next, self._cache = log_p[-1].clone(), None


class _ForwardBatch:
    """Texts of which one reads on at every step."""

    def __init__(self) -> None:
        self._waiting: list[_Forward] = []

    @property
    def empty(self) -> bool:
        """Whether no text waits."""
        return not self._waiting

    def add(self, request: _Forward) -> None:
        """Add a text."""
        self._waiting.append(request)

    def remove(self, request: _Forward) -> None:
        """Remove a text, whether it is read or not."""
        if request in self._waiting:
            self._waiting.remove(request)

    def step(self) -> None:
        """Read on in the text that has waited longest."""
        if not self._waiting:
            return
        text = self._waiting.pop(0)
        try:
            with torch.inference_mode():
                text.advance()
        except BaseException as error:  # raised where it is waited for
            text.failure = error
        if not text.done:
            self._waiting.append(text)
