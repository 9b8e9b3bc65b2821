"""Drafts over any engine: how both answers begin, and what their texts and scores show.

What `control.conflict.drafts` finds from distributions and hidden states, found from the texts and
log-probabilities that a server offers: both drafts of every question are generated at once, then
each is scored by the other branch, then both claims in three frames, and whether the model calls
either of them correct.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from control.conflict import claims, probe
from control.conflict.claims import Claim, ClaimComparison
from control.conflict.drafts import BARE, SENTENCE, read_drafts
from control.conflict.probe import ClaimPair, ProbeAnswers, ProbeFeatures
from control.decoding.repetition import repeats
from control.engines.base import (
    Capabilities,
    Engine,
    EnginePrompt,
    Generation,
    GenerationRequest,
    Message,
    OnGenerated,
    ScoreRequest,
    Token,
    text,
)
from control.engines.branches import TokenScores
from foundation.text import normalise

if TYPE_CHECKING:
    from control.conflict.reader import AnswerReader, Reading
    from control.decoding.generate import Decoding
    from control.forgetting.guard import WatchedFacts
    from control.prompts import Prompt

IS_CORRECT = (
    "Question: {question}\nProposed answer: {answer}\n"
    "Is the proposed answer correct? Reply with yes or no."
)
REPLIES = ("Yes", "No")
LEAST_LEFT = 1e-4  # probability of what a server does not tell


@dataclass(frozen=True)
class Draft:
    """How one branch's answer begins, as a `control.conflict.claims.DraftText`.

    Attributes:
        tokens: Of its first sentence.
        by_other: Log-probability of each in the other branch, in nats; empty where unknown.
    """

    tokens: tuple[Token, ...]
    by_other: tuple[float, ...] = ()

    def __len__(self) -> int:
        """How many tokens it has."""
        return len(self.tokens)

    def text(self, start: int, stop: int) -> str:
        """The text of the tokens from ``start`` up to ``stop``."""
        return text(self.tokens[start:stop])

    def begins_word(self, at: int) -> bool:
        """Whether a token begins with a space."""
        return self.tokens[at].text[:1].isspace()

    @property
    def log_p(self) -> list[float]:
        """Log-probability of each token in its own branch, in nats."""
        return [token.log_p or 0.0 for token in self.tokens]

    @property
    def gain(self) -> list[float]:
        """Log-probability in its own branch minus that in the other; 0 where that is unknown."""
        if not self.by_other:
            return [0.0] * len(self.tokens)
        return [own - other for own, other in zip(self.log_p, self.by_other, strict=True)]


@dataclass(frozen=True)
class Comparison:
    """The drafts of one question and what they show.

    Attributes:
        passages: The draft with the passages.
        memory: The draft without them.
        found: What their words show.
        features: The probe's features of the conflict; ``None`` where there is none, or nothing to
            judge it by.
        misread: Whether the passages' answer says nothing of what could be quoted from them.
    """

    passages: Draft
    memory: Draft
    found: ClaimComparison
    features: ProbeFeatures | None = None
    misread: bool = False

    @property
    def conflict(self) -> bool:
        """Whether memory claims something that the passages lack."""
        return self.found.claim is not None

    @property
    def unsupported(self) -> bool:
        """Whether the passages' answer claims what they lack."""
        return bool(self.found.unsupported)

    @property
    def agrees_with_memory(self) -> bool:
        """Whether the passages' answer says what memory claims."""
        return self.found.agrees_with_memory

    @property
    def remembered_claim(self) -> Claim | None:
        """What memory claims, whether or not there is a conflict."""
        return self.found.remembered_claim

    @property
    def passages_say(self) -> str:
        """What the passages' answer claims."""
        return self.found.passages_claim.text if self.found.passages_claim else ""


@dataclass(frozen=True)
class DraftBatch:
    """Questions with both answers begun and compared.

    Attributes:
        engine: The model.
        prompts: The questions.
        decoding: Sampling and length.
        watches: The facts that each answer must not state.
        passages: How each answer with the passages begins, or all of it.
        memory: The same without them.
        comparisons: One for each question.
        quotes: By place the words of what is quoted instead of an unsupported answer.
    """

    engine: Engine
    prompts: "Sequence[Prompt]"
    decoding: "Decoding"
    watches: "Sequence[WatchedFacts] | None"
    passages: list[Generation]
    memory: list[Generation]
    comparisons: list[Comparison]
    quotes: dict[int, tuple[Token, ...]] = field(default_factory=dict)


def compare(
    engine: Engine,
    prompts: "Sequence[Prompt]",
    decoding: "Decoding",
    watches: "Sequence[WatchedFacts] | None" = None,
    whole: Sequence[bool] = (),
    on_token: "OnGenerated | None" = None,
    reader: "AnswerReader | None" = None,
) -> DraftBatch:
    """Begin both answers of every question, all at once, and compare them.

    Args:
        engine: The model.
        prompts: The questions; without passages, memory alone is asked.
        decoding: Sampling and length.
        watches: The facts that each answer must not state.
        whole: For each question, whether its answer with the passages is written to its end.
        on_token: Called with the tokens of those, as they come.
        reader: Finds the claims in the drafts; without it, the words that they add count.
    """
    whole = whole or [False] * len(prompts)
    requests, owners = list[GenerationRequest](), list[tuple[int, bool]]()
    for place, prompt in enumerate(prompts):
        watch = watches[place] if watches else None
        context = first_request(engine, branch_prompt(prompt, True), decoding, watch, whole[place])
        requests.append(context)
        owners.append((place, True))
        if prompt.passages:
            requests.append(
                first_request(engine, branch_prompt(prompt, False), decoding, watch, False)
            )
            owners.append((place, False))

    def tell(at: int, token: Token) -> None:
        place, of_passages = owners[at]
        if of_passages and whole[place] and on_token is not None:
            on_token(place, token)

    generated = engine.generate(requests, tell)
    by_owner = dict(zip(owners, generated, strict=True))
    passages = [by_owner[place, True] for place in range(len(prompts))]
    memory = [by_owner.get((place, False), Generation()) for place in range(len(prompts))]
    drafts = [
        (_first_sentence(ours.tokens), _first_sentence(theirs.tokens))
        for ours, theirs in zip(passages, memory, strict=True)
    ]
    comparisons = _comparisons(engine, prompts, drafts, reader)
    quotes = _quotes(engine, prompts, comparisons, decoding.max_new_tokens, watches)
    comparisons = [
        replace(each, misread=each.found.misread and place in quotes)
        for place, each in enumerate(comparisons)
    ]
    return DraftBatch(engine, prompts, decoding, watches, passages, memory, comparisons, quotes)


def _quotes(
    engine: Engine,
    prompts: "Sequence[Prompt]",
    comparisons: Sequence[Comparison],
    longest: int,
    watches: "Sequence[WatchedFacts] | None",
) -> dict[int, tuple[Token, ...]]:
    """By place the words of what may be quoted instead of unsupported or misread answers."""
    texts = {
        place: prompt.quote.text
        for place, (prompt, each) in enumerate(zip(prompts, comparisons, strict=True))
        if prompt.quote is not None and (each.unsupported or each.found.misread)
    }
    if watches:
        texts = {at: said for at, said in texts.items() if not watches[at].completed("", said)}
    if not texts:
        return {}
    found = {}
    for place, tokens in zip(texts, engine.tokens(list(texts.values())), strict=True):
        said = tuple(Token(word) for word in re.findall(r"\s*\S+", texts[place]))
        if len(tokens or said) <= longest:  # a server may tell no tokens
            found[place] = said
    return found


def first_request(
    engine: Engine,
    prompt: EnginePrompt,
    decoding: "Decoding",
    watch: "WatchedFacts | None",
    whole: bool,
) -> GenerationRequest:
    """An answer or, where it can be continued later, its first sentence."""
    request = GenerationRequest(
        prompt,
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        seed=decoding.seed,
        ended=repeats,
    )
    if not whole and engine.capabilities.prefix:
        length = min(SENTENCE, decoding.max_new_tokens)
        request = replace(request, max_new_tokens=length, ended=claims.ends_sentence)
    return guarded(request, watch)


def guarded(request: GenerationRequest, watch: "WatchedFacts | None") -> GenerationRequest:
    """A request whose answer states none of the facts."""
    if not watch:
        return request

    def withholds(before: str, new: str) -> str | None:
        record = watch.completed(before, new)
        return None if record is None else record.id

    return replace(request, withholds=withholds, refuses=watch.decide_on_output.__contains__)


def branch_prompt(prompt: "Prompt", with_passages: bool) -> EnginePrompt:
    """The prompt of one branch: with the passages, or of memory."""
    if with_passages:
        return EnginePrompt(prompt.context, prompt.context_chat)
    return EnginePrompt(prompt.memory, prompt.memory_chat)


def _first_sentence(tokens: Sequence[Token]) -> tuple[Token, ...]:
    so_far = ""
    for at, token in enumerate(tokens[:SENTENCE], start=1):
        so_far += token.text
        if claims.ends_sentence(so_far):
            return tuple(tokens[:at])
    return tuple(tokens[:SENTENCE])


def _comparisons(
    engine: Engine,
    prompts: "Sequence[Prompt]",
    drafts: Sequence[tuple[tuple[Token, ...], tuple[Token, ...]]],
    reader: "AnswerReader | None",
) -> list[Comparison]:
    """Compare what the drafts claim; only where they differ is anything scored."""
    readings = read_drafts(reader, prompts, [(text(ours), text(theirs)) for ours, theirs in drafts])
    found = [
        _compared(prompt, Draft(ours), Draft(theirs), read)
        for prompt, (ours, theirs), read in zip(prompts, drafts, readings, strict=True)
    ]
    differing = [place for place, each in enumerate(found) if each.conflict or each.unsupported]
    can = engine.capabilities
    if can.scores:
        scores = engine.score(
            [
                request
                for place in differing
                for request in (
                    ScoreRequest(branch_prompt(prompts[place], False), (), drafts[place][0]),
                    ScoreRequest(branch_prompt(prompts[place], True), (), drafts[place][1]),
                )
                if request.continuation
            ]
        )
        left = iter(scores)
        for place in differing:
            ours, theirs = drafts[place]
            by_memory = tuple(next(left)) if ours else ()
            by_passages = tuple(next(left)) if theirs else ()
            found[place] = _compared(
                prompts[place],
                Draft(ours, by_memory),
                Draft(theirs, by_passages),
                readings[place],
            )
    _set_features(engine, prompts, found, can)
    return found


def _compared(
    prompt: "Prompt", passages: Draft, memory: Draft, read: "tuple[Reading, Reading] | None"
) -> Comparison:
    likely = [token.log_p for token in memory.tokens]
    found = claims.compare(
        prompt.question,
        prompt.texts,
        passages,
        passages.gain,
        memory,
        memory.gain,
        [] if None in likely else memory.log_p,
        read,
        prompt.quote,
    )
    return Comparison(passages, memory, found)


def _set_features(
    engine: Engine, prompts: "Sequence[Prompt]", found: list[Comparison], can: Capabilities
) -> None:
    """Give every conflict the features that the engine has the scores for."""
    conflicts = [
        place for place, each in enumerate(found) if each.conflict and each.found.passages_claim
    ]
    if not can.log_probabilities or not conflicts:
        return
    asked = [(prompts[place], found[place]) for place in conflicts]
    if not can.scores:
        for place, judgement in zip(conflicts, _judgements(engine, asked), strict=True):
            each = found[place]
            log_p = [torch.tensor(draft.log_p) for draft in (each.passages, each.memory)]
            features = probe.draft_features(log_p[0], log_p[1], each.found.supported)
            found[place] = replace(each, features=probe.with_judgement(features, *judgement))
        return
    requests = [
        request for place in conflicts for request in _claim_requests(prompts[place], found[place])
    ]
    scores = [torch.tensor(each) for each in engine.score(requests)]
    judged = _judgements(engine, asked)  # last: the prompts before are still in a server's cache
    for at, (place, judgement) in enumerate(zip(conflicts, judged, strict=True)):
        each = found[place]
        own = [TokenScores(log_p) for log_p in scores[6 * at : 6 * at + 6]]
        frames = [ClaimPair(*own[start : start + 2]) for start in (0, 2, 4)]
        whole = ProbeAnswers(
            *(
                TokenScores(torch.tensor(log_p))
                for log_p in (
                    each.passages.log_p,
                    each.passages.by_other,
                    each.memory.log_p,
                    each.memory.by_other,
                )
            )
        )
        features = probe.features(whole, frames, each.found.supported)
        found[place] = replace(each, features=probe.with_judgement(features, *judgement))


def _judgements(
    engine: Engine, conflicts: "Sequence[tuple[Prompt, Comparison]]"
) -> list[tuple[float, float]]:
    """Log-odds, in nats, that the model calls memory's answer correct, and the passages' claim.

    Where it scores no given text, a reply that is not among the likeliest counts as all the others.
    """
    asked = [
        _judgement(engine, prompt.question, said.strip())
        for prompt, each in conflicts
        for said in (each.memory.text(0, len(each.memory)), each.passages_say)
    ]
    if engine.capabilities.scores:
        replies = engine.tokens(REPLIES)
        scores = engine.score(
            [ScoreRequest(each, (), reply) for each in asked for reply in replies]
        )
        yes, no = (list(map(sum, scores[start::2])) for start in (0, 1))
    else:
        tops = engine.generate([GenerationRequest(each, max_new_tokens=1) for each in asked])
        yes, no = ([_log_p(each, reply) for each in tops] for reply in REPLIES)
    odds = [one - other for one, other in zip(yes, no, strict=True)]
    return list(zip(odds[::2], odds[1::2], strict=True))


def _log_p(generated: Generation, reply: str) -> float:
    """The log-probability of a reply as the first token, in nats, or of all that is not told."""
    likely = dict[str, float]()
    for token in generated.tokens[:1]:
        told = [(each.text, each.log_p) for each in token.candidates]
        likely |= dict([*told, (token.text, token.log_p or 0.0)])
    same = [log_p for text, log_p in likely.items() if normalise(text) == normalise(reply)]
    left = 1 - sum(map(math.exp, likely.values()))
    return max(same or [math.log(max(left, LEAST_LEFT))])


def _judgement(engine: Engine, question: str, answer: str) -> EnginePrompt:
    asked = IS_CORRECT.format(question=question, answer=answer)
    messages: tuple[Message, ...] = ({"role": "user", "content": asked},)
    return EnginePrompt(engine.render(messages), messages)


def _claim_requests(prompt: "Prompt", each: Comparison) -> list[ScoreRequest]:
    """Both claims behind the beginning of memory's draft, in each frame.

    After the question alone, in a bare text, and after question and passages.
    """
    mine, theirs = each.found.claim, each.found.passages_claim
    if mine is None or theirs is None:
        return []
    before = each.memory.tokens[: mine.start]
    claimed = (
        each.memory.tokens[mine.start : mine.stop],
        each.passages.tokens[theirs.start : theirs.stop],
    )
    frames = (
        branch_prompt(prompt, False),
        EnginePrompt(BARE.format(question=prompt.question)),
        branch_prompt(prompt, True),
    )
    return [ScoreRequest(frame, before, tokens) for frame in frames for tokens in claimed]
