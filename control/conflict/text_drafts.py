"""Drafts over any engine: how both answers begin, and what their texts and scores show.

What `control.conflict.drafts` finds from distributions and hidden states, found from the texts and
log-probabilities that a server offers: both drafts of every question are generated at once, then
what the passages claim is scored in memory's place, and the model is asked whether it calls either
claim correct. Scores cost as much as writing, so nothing else is scored; but an answer that the
passages seem to lack is, without them.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from control.conflict import claims, probe
from control.conflict.claims import DraftClaims
from control.conflict.drafts import SENTENCE, read_drafts
from control.conflict.probe import ProbeFeatures
from control.decoding.repetition import repeats
from control.engines.base import (
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
        by_other: Log-probability of each in the other branch, in nats; empty where not scored, as
            memory's never is.
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


@dataclass(frozen=True, kw_only=True)
class Comparison(DraftClaims):
    """The drafts of one question and what they show.

    Attributes:
        passages: The draft with the passages.
        memory: The draft without them.
    """

    passages: Draft
    memory: Draft


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
    quotes: dict[int, tuple[Token, ...]]


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
        (Draft(_first_sentence(ours.tokens)), Draft(_first_sentence(theirs.tokens)))
        for ours, theirs in zip(passages, memory, strict=True)
    ]
    found = _comparisons(engine, prompts, drafts, reader)
    features = _features(engine, prompts, found)
    quotes = _quotes(engine, prompts, found, decoding.max_new_tokens, watches)
    comparisons = [
        replace(each, features=features.get(place), misread=each.found.misread and place in quotes)
        for place, each in enumerate(found)
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


def guarded(
    request: GenerationRequest, watch: "WatchedFacts | None", before: Iterable[str] = ()
) -> GenerationRequest:
    """A request whose answer states none of the facts.

    Args:
        request: The request.
        watch: The facts.
        before: Ids of the records that the answer's beginning was about to state.
    """
    if not watch:
        return request
    withheld = set(before)

    def withholds(before: str, new: str) -> str | None:
        record = watch.completed(before, new, withheld)
        if record is not None:
            withheld.add(record.id)
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
    drafts: Sequence[tuple[Draft, Draft]],
    reader: "AnswerReader | None",
) -> list[Comparison]:
    """Compare what the drafts claim; what the passages seem to lack is scored without them."""
    readings = read_drafts(reader, prompts, drafts)
    found = [
        _compared(prompt, *pair, read)
        for prompt, pair, read in zip(prompts, drafts, readings, strict=True)
    ]
    lacking = [place for place, each in enumerate(found) if each.unsupported]
    if engine.capabilities.scores and lacking:
        scores = engine.score(
            [
                ScoreRequest(branch_prompt(prompts[place], False), (), drafts[place][0].tokens)
                for place in lacking
            ]
        )
        for place, by_memory in zip(lacking, scores, strict=True):
            ours, theirs = drafts[place]
            ours = replace(ours, by_other=tuple(by_memory))
            found[place] = _compared(prompts[place], ours, theirs, readings[place])
    return found


def _compared(
    prompt: "Prompt", passages: Draft, memory: Draft, read: "tuple[Reading, Reading] | None"
) -> Comparison:
    known = all(token.log_p is not None for token in memory.tokens)
    found = claims.compare(prompt, passages, memory, memory.log_p if known else [], read)
    return Comparison(passages=passages, memory=memory, found=found)


def _features(
    engine: Engine, prompts: "Sequence[Prompt]", found: Sequence[Comparison]
) -> dict[int, ProbeFeatures]:
    """By place the features of each conflict, of what the engine gives the scores for."""
    can = engine.capabilities
    conflicts = [
        (place, mine, theirs)
        for place, each in enumerate(found)
        if (mine := each.found.claim) and (theirs := each.found.passages_claim)
    ]
    if not can.log_probabilities or not conflicts:
        return {}
    features = [_draft_features(found[place]) for place, _, _ in conflicts]
    if can.scores:
        # The passages' claim behind the beginning of memory's draft; memory's has that of its own.
        scores = engine.score(
            [
                ScoreRequest(
                    branch_prompt(prompts[place], with_passages),
                    found[place].memory.tokens[: mine.start],
                    found[place].passages.tokens[theirs.start : theirs.stop],
                )
                for place, mine, theirs in conflicts
                for with_passages in (False, True)
            ]
        )
        for at, (place, mine, _) in enumerate(conflicts):
            log_p = (
                found[place].memory.log_p[mine.start : mine.stop],
                *scores[2 * at : 2 * at + 2],
            )
            features[at] = probe.claim_features(features[at], *map(torch.tensor, log_p))
    places = [place for place, _, _ in conflicts]
    asked = [prompts[place].question for place in places]
    # One after the other: the beginning that both prompts share is in a server's cache then.
    of_memory = _log_odds(
        engine, asked, [found[at].memory.text(0, len(found[at].memory)) for at in places]
    )
    of_passages = _log_odds(engine, asked, [found[at].passages_say for at in places])
    judged = map(probe.with_judgement, features, of_memory, of_passages)
    return dict(zip(places, judged, strict=True))


def _draft_features(each: Comparison) -> ProbeFeatures:
    passages, memory = (torch.tensor(draft.log_p) for draft in (each.passages, each.memory))
    return probe.draft_features(passages, memory, each.found.supported)


def _log_odds(engine: Engine, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Log-odds, in nats, that the model calls each answer correct: of "Yes" against "No".

    Where the engine scores no given text, a reply that is not among the likeliest counts as all the
    others.
    """
    asked = [_judgement(engine, *each) for each in zip(questions, answers, strict=True)]
    if engine.capabilities.scores:
        replies = engine.tokens(REPLIES)
        scores = engine.score(
            [ScoreRequest(each, (), reply) for each in asked for reply in replies]
        )
        yes, no = (list(map(sum, scores[start::2])) for start in (0, 1))
    else:
        tops = engine.generate([GenerationRequest(each, max_new_tokens=1) for each in asked])
        yes, no = ([_log_p(each, reply) for each in tops] for reply in REPLIES)
    return [one - other for one, other in zip(yes, no, strict=True)]


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
    asked = IS_CORRECT.format(question=question, answer=answer.strip())
    messages: tuple[Message, ...] = ({"role": "user", "content": asked},)
    return EnginePrompt(engine.render(messages), messages)
