"""The operations of the engine protocol on a model of this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import EosTokenCriteria, MaxLengthCriteria, StoppingCriteria, StoppingCriteriaList

from control.decoding.contrastive import FLOOR
from control.decoding.generate import Decoding, sampling_kwargs, stop_ids
from control.decoding.rules import MixedStep, plain
from control.engines import base, batch
from control.engines.base import (
    Candidate,
    Generation,
    GenerationRequest,
    OnGenerated,
    ScoreRequest,
    Token,
)
from control.engines.batch import SequenceGroup
from control.engines.json_grammar import JsonGrammar

if TYPE_CHECKING:
    from control.engines.transformers import LanguageModel


def tokens(model: "LanguageModel", texts: Sequence[str]) -> list[tuple[Token, ...]]:
    """The tokens of each text, outside any template."""
    encoded = model.tokenizer(list(texts), add_special_tokens=False).input_ids
    return [
        tuple(Token(model.tokenizer.decode([token]), token) for token in ids) for ids in encoded
    ]


def generate(
    model: "LanguageModel",
    requests: Sequence[GenerationRequest],
    on_token: OnGenerated | None = None,
) -> list[Generation]:
    """Continue texts, all in one batch."""
    running = [_Running(model, request, place, on_token) for place, request in enumerate(requests)]
    with torch.inference_mode():
        batch.decode(model.model, *(each.group() for each in running))
    return [each.generation for each in running]


def score(model: "LanguageModel", requests: Sequence[ScoreRequest]) -> list[list[float]]:
    """Log-probabilities of continuations, in nats; a prompt that several share is read once."""
    chains: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for place, request in enumerate(requests):
        chains.setdefault((request.prompt.text, _ids(request.prefix)), []).append(place)
    found: dict[int, list[float]] = {}
    with torch.inference_mode():
        for (text, prefix), places in chains.items():
            state = batch.read(model.model, *_encoded(model, text, prefix))
            continuations = [list(_ids(requests[place].continuation)) for place in places]
            [scores] = batch.read_on(model.model, state, [continuations])
            for place, scored in zip(places, scores, strict=True):
                found[place] = scored.log_p.tolist()
    return [found[place] for place in range(len(requests))]


def _ids(given: Sequence[Token]) -> tuple[int, ...]:
    return tuple(token.id for token in given if token.id is not None)


def _encoded(model: "LanguageModel", text: str, prefix: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Ids of a prompt and their mask, each of shape (1, tokens)."""
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    encoded = torch.tensor([[*ids, *prefix]], device=model.model.device)
    return encoded, torch.ones_like(encoded)


@dataclass(eq=False)
class _Running(StoppingCriteria):
    """One continuation under way: its guard, its end and its tokens."""

    model: "LanguageModel"
    request: GenerationRequest
    place: int
    on_token: OnGenerated | None
    generation: Generation = field(default_factory=Generation)
    ids: list[int] = field(default_factory=list)
    text: str = ""
    grammar: JsonGrammar | None = None

    def group(self) -> SequenceGroup:
        """The rows of the batch that decode it."""
        model, request = self.model.model, self.request
        if schema := request.json_schema:
            self.grammar = JsonGrammar(self.model.tokenizer, stop_ids(model), schema)
        prefix = _ids(request.prefix)
        self.ids, self.text = list(prefix), base.text(request.prefix)
        state = batch.read(model, *_encoded(self.model, request.prompt.text, prefix))
        how = Decoding(temperature=request.temperature, top_p=request.top_p, seed=request.seed)
        banned = torch.zeros(1, state.logits.shape[-1], dtype=torch.bool, device=model.device)
        banned[0, list(request.banned)] = True
        criteria = StoppingCriteriaList([MaxLengthCriteria(request.max_new_tokens), self])
        if ends := stop_ids(model):
            criteria.append(EosTokenCriteria(sorted(ends)))
        nothing = torch.zeros(1, 0, dtype=torch.long, device=model.device)
        return SequenceGroup(
            state,
            nothing,
            plain,
            branches=1,
            banned=banned if request.banned else None,
            stopping_criteria=criteria,
            on_step=self.record,
            guards=[self],  # it checks tokens as a `LeakGuard` does
            **sampling_kwargs(how, model.device),
        )

    def allowed(self, scores: Tensor, token: int, draw: Callable[[Tensor], int]) -> int:
        """The token, or one drawn instead that fits and completes no forgotten fact."""
        ends, remaining = stop_ids(self.model.model), scores
        if self.grammar is not None:
            if self.grammar.ended:
                return min(ends, default=token)
            mask = self.grammar.allowed(len(scores)).to(scores.device)
            remaining = scores.masked_fill(~mask, FLOOR)
            token = draw(remaining)
        for _ in range(base.MOST_BANS):
            withheld = token not in ends and self.request.withholds
            fact = withheld and withheld(self.text, self._new(token))
            if not fact:
                return token
            if fact not in self.generation.withheld:
                self.generation.withheld.append(fact)
            if self.request.refuses(fact):
                break
            remaining = remaining.clone()
            remaining[token] = FLOOR
            token = draw(remaining)
        self.generation.blocked = True
        return min(ends, default=token)

    def record(self, _: Tensor, drawn: Tensor, step: MixedStep) -> None:
        """Keep the token of a step."""
        token = int(drawn[0])
        if token in stop_ids(self.model.model):
            self.generation.finished = not self.generation.blocked
            return
        best = step.log_p_c[0].topk(base.CANDIDATES)
        candidates = tuple(
            Candidate(self.model.tokenizer.decode([each]), value)
            for each, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        if self.grammar is not None:
            self.grammar.take(token)
        new = self._new(token)
        self.ids.append(token)
        self.text += new
        entry = Token(new, token, float(step.log_p_c[0, token]), candidates)
        self.generation.tokens.append(entry)
        if self.on_token is not None:
            self.on_token(self.place, entry)

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
        """Whether the answer has ended, shape (1,)."""
        return torch.tensor([self.request.ended(self.text)], device=input_ids.device)

    def _new(self, token: int) -> str:
        """What a token adds to the text; nothing while a character is incomplete."""
        text = self.model.tokenizer.decode([*self.ids, token], skip_special_tokens=True)
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else text[len(self.text) :]
