"""The dial over any engine: claims compared by their text and the log-probabilities that it gives.

The same decision as `control.conflict.dial`, with what a server offers instead of distributions and
hidden states: both drafts of every question are generated at once, then each is scored by the other
branch, then both claims in three frames, and whether the model calls either of them correct. What
the engine cannot do changes the following, in this order, and each change is one notice:

1. No scores of given text: how likely memory is right is judged by the drafts alone.
2. No log-probabilities: a verdict has no confidence, and alpha is 0, 0.5 or 1.
3. No bans: an answer without support in the passages is written again under an instruction.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from control.conflict import claims, probe
from control.conflict.calibration import ANY_MODEL, Calibration, Resolution, Thresholds
from control.conflict.claims import Claim, ClaimComparison
from control.conflict.drafts import BARE, SENTENCE, read_drafts
from control.conflict.probe import ClaimPair, MemoryProbe, ProbeAnswers, ProbeFeatures
from control.conflict.verdict import DecodedAnswer, Verdict, choose, is_plain_rag
from control.decoding.repetition import repeats
from control.decoding.rules import DIAL
from control.decoding.trace import Choice, TokenTrace, Trace
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
from foundation.errors import InputError
from foundation.text import FUNCTION_WORDS, normalise, words

if TYPE_CHECKING:
    from control.conflict.reader import AnswerReader, Reading
    from control.decoding.generate import Alpha, Decoding, OnToken
    from control.forgetting.guard import WatchedFacts
    from control.prompts import Prompt

PLAIN_RAG_RULE = "plain"
THREE_SETTINGS = (0.0, 0.5, 1.0)
KEEP_TO_PASSAGES = "Use only what the passages say, in their words, even where you know otherwise."
IS_CORRECT = (
    "Question: {question}\nProposed answer: {answer}\n"
    "Is the proposed answer correct? Reply with yes or no."
)
REPLIES = ("Yes", "No")
LEAST_LEFT = 1e-4  # probability of what a server does not tell
# Without log-probabilities memory wins every conflict at alpha 1 and none below it.
UNMEASURED = Calibration(
    ANY_MODEL,
    "unmeasured",
    MemoryProbe([], [], 0.0),
    [],
    Thresholds(0.0, -math.inf),
    Thresholds(math.inf, -math.inf),
    [0.0, 0.5, 1.0],
    [0.0, 0.0, 1.0],
    {},
)


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


def answer(
    engine: Engine,
    prompts: "Sequence[Prompt]",
    decoding: "Decoding",
    calibration: Calibration | None,
    alphas: "Sequence[Alpha] | None" = None,
    on_token: "OnToken | None" = None,
    watches: "Sequence[WatchedFacts] | None" = None,
    reader: "AnswerReader | None" = None,
) -> list[DecodedAnswer]:
    """Answer every prompt, once for each of ``alphas``; as `control.conflict.dial.answer`.

    Raises:
        InputError: An alpha needs what the engine does not give.
        ModelError: The engine failed; no answer counts.
    """
    settings: Sequence[Alpha] = [decoding.alpha] if alphas is None else list(alphas)
    _check(engine, decoding.rule, settings)
    if decoding.rule == PLAIN_RAG_RULE:
        return _plain_rag(engine, prompts, decoding, len(settings), on_token, watches)
    measured = calibration or UNMEASURED
    if not engine.capabilities.log_probabilities:
        measured = UNMEASURED
    [first, *others] = settings
    plain = [
        not prompt.passages or (not others and is_plain_rag(prompt, first, measured))
        for prompt in prompts
    ]

    def stream(place: int, token: Token) -> None:
        if on_token is not None and len(settings) == 1:
            on_token(place, _token(token, "context" if prompts[place].passages else "memory"))

    drafted = compare(engine, prompts, decoding, watches, plain, stream, reader)
    confidences = [_confidence(each, measured) for each in drafted.comparisons]
    chosen = [
        [choose(each, prompt, confidence, alpha, measured) for alpha in settings]
        for each, confidence, prompt in zip(drafted.comparisons, confidences, prompts, strict=True)
    ]

    def tell(at: int, entry: TokenTrace) -> None:
        if on_token is not None and not (len(settings) == 1 and plain[at]):
            on_token(at, entry)

    written = finish(drafted, chosen, tell)
    return [
        _decoded(drafted, place, confidence, resolution, trace, measured)
        for place, (confidence, row) in enumerate(zip(confidences, written, strict=True))
        for resolution, trace in zip(chosen[place], row, strict=True)
    ]


def _check(engine: Engine, rule: str, settings: "Sequence[Alpha]") -> None:
    """Refuse what the engine has nothing to decide by."""
    if rule not in (DIAL, PLAIN_RAG_RULE):
        raise InputError(
            f"rule {rule} mixes the distributions of both branches, which {engine.name}'s engine "
            f"does not give; take rule {DIAL}, or a model directory or Hugging Face id"
        )
    limited = [] if engine.capabilities.log_probabilities else [*settings]
    if wrong := [alpha for alpha in limited if alpha not in THREE_SETTINGS]:
        raise InputError(
            f"alpha is {wrong[0]}, but {engine.name}'s server gives no log-probabilities to judge "
            "memory by; give 0, 0.5 or 1"
        )


def _confidence(comparison: Comparison, calibration: Calibration) -> float:
    """How likely memory is right, in [0, 1]; 0 where there is no conflict to judge."""
    if calibration is UNMEASURED:
        return float(comparison.conflict)
    return 0.0 if comparison.features is None else calibration.probe(comparison.features)


def _plain_rag(
    engine: Engine,
    prompts: "Sequence[Prompt]",
    decoding: "Decoding",
    copies: int,
    on_token: "OnToken | None",
    watches: "Sequence[WatchedFacts] | None",
) -> list[DecodedAnswer]:
    """The answers with the passages, compared with nothing."""
    sources = ["context" if prompt.passages else "memory" for prompt in prompts]
    requests = [
        _request(engine, _prompt(prompt, True), decoding, watches[at] if watches else None, True)
        for at, prompt in enumerate(prompts)
    ]

    def tell(at: int, token: Token) -> None:
        if on_token is not None:
            for copy in range(copies):
                on_token(at * copies + copy, _token(token, sources[at]))

    answers = []
    for at, generation in enumerate(engine.generate(requests, tell)):
        trace = Trace(prompts[at].passages > 0)
        for token in generation.tokens:
            trace.append(_token(token, sources[at]))
        trace.withheld, trace.blocked = generation.withheld, generation.blocked
        answers += [DecodedAnswer(trace, False, None)] * copies
    return answers


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
        context = _request(engine, _prompt(prompt, True), decoding, watch, whole[place])
        requests.append(context)
        owners.append((place, True))
        if prompt.passages:
            requests.append(_request(engine, _prompt(prompt, False), decoding, watch, False))
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


def _request(
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
    return _guarded(request, watch)


def _guarded(request: GenerationRequest, watch: "WatchedFacts | None") -> GenerationRequest:
    if not watch:
        return request

    def withholds(before: str, new: str) -> str | None:
        record = watch.completed(before, new)
        return None if record is None else record.id

    return replace(request, withholds=withholds, refuses=watch.decide_on_output.__contains__)


def _prompt(prompt: "Prompt", with_passages: bool) -> EnginePrompt:
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
                    ScoreRequest(_prompt(prompts[place], False), (), drafts[place][0]),
                    ScoreRequest(_prompt(prompts[place], True), (), drafts[place][1]),
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
        _prompt(prompt, False),
        EnginePrompt(BARE.format(question=prompt.question)),
        _prompt(prompt, True),
    )
    return [ScoreRequest(frame, before, tokens) for frame in frames for tokens in claimed]


def finish(
    drafted: DraftBatch,
    chosen: Sequence[Sequence[Resolution]],
    on_token: "OnToken | None" = None,
) -> list[list[Trace]]:
    """Write the chosen answers to their ends; one that was chosen several times is written once.

    Args:
        drafted: The drafts.
        chosen: For each question, its answers.
        on_token: Called with the place of an answer, in the order of ``chosen``, and its token.
    """
    wanted: dict[tuple[int, Resolution], list[int]] = {}
    at = 0
    for place, resolutions in enumerate(chosen):
        for resolution in resolutions:
            wanted.setdefault((place, resolution), []).append(at)
            at += 1
    traces = {key: Trace(drafted.prompts[key[0]].passages > 0) for key in wanted}

    def record(
        key: tuple[int, Resolution], tokens: Sequence[Token], by_other: Sequence[float]
    ) -> None:
        source = "memory" if key[1] == "memory" or not traces[key].has_passages else "context"
        for each, token in enumerate(tokens):
            other = by_other[each] if each < len(by_other) else None
            entry = _token(token, source, other)
            traces[key].append(entry)
            if on_token is not None:
                for answer_place in wanted[key]:
                    on_token(answer_place, entry)

    requests, keys = list[GenerationRequest](), list[tuple[int, Resolution]]()
    for key in wanted:
        begun, left = _beginning(drafted, key), _rest(drafted, key)
        record(key, begun.tokens, _by_other(drafted, key))
        traces[key].withheld, traces[key].blocked = list(begun.withheld), begun.blocked
        if left is not None:
            requests.append(left)
            keys.append(key)
    rest = drafted.engine.generate(requests, lambda at, token: record(keys[at], [token], ()))
    for key, generation in zip(keys, rest, strict=True):
        traces[key].withheld += generation.withheld
        traces[key].blocked = generation.blocked
    return [[traces[place, each] for each in row] for place, row in enumerate(chosen)]


def _beginning(drafted: DraftBatch, key: tuple[int, Resolution]) -> Generation:
    place, resolution = key
    if resolution == "memory":
        return drafted.memory[place]
    if resolution == "plain":
        return drafted.passages[place]
    if place in drafted.quotes:
        return Generation(list(drafted.quotes[place]), finished=True)
    if drafted.engine.capabilities.bans and drafted.engine.capabilities.prefix:
        start = min(claim.start for claim in drafted.comparisons[place].found.unsupported)
        return Generation(drafted.passages[place].tokens[:start])
    return Generation()


def _by_other(drafted: DraftBatch, key: tuple[int, Resolution]) -> tuple[float, ...]:
    comparison = drafted.comparisons[key[0]]
    if key[1] == "grounded" and key[0] in drafted.quotes:
        return ()
    return (comparison.memory if key[1] == "memory" else comparison.passages).by_other


def _rest(drafted: DraftBatch, key: tuple[int, Resolution]) -> GenerationRequest | None:
    """What is left to be written of a chosen answer; ``None`` where nothing is."""
    place, resolution = key
    begun, decoding = _beginning(drafted, key), drafted.decoding
    watch = drafted.watches[place] if drafted.watches else None
    left = decoding.max_new_tokens - len(begun.tokens)
    can = drafted.engine.capabilities
    over = begun.finished or begun.blocked or left <= 0
    if over or (resolution != "grounded" and not can.prefix):
        return None
    if resolution != "grounded" and len(begun.tokens) > len(_draft_of(drafted, key)):
        return None  # it was written to its end
    prompt = drafted.prompts[place]
    request = GenerationRequest(
        _prompt(prompt, resolution != "memory"),
        tuple(begun.tokens),
        left,
        decoding.temperature,
        decoding.top_p,
        decoding.seed,
        ended=repeats,
    )
    if resolution == "grounded":
        if can.bans and can.prefix:
            remembered = drafted.comparisons[place].found.remembered
            request = replace(request, banned=_banned(drafted.engine, remembered, prompt.texts))
        else:
            request = replace(request, prompt=_instructed(drafted.engine, request.prompt))
    return _guarded(request, watch)


def _draft_of(drafted: DraftBatch, key: tuple[int, Resolution]) -> Draft:
    comparison = drafted.comparisons[key[0]]
    return comparison.memory if key[1] == "memory" else comparison.passages


def _banned(engine: Engine, remembered: Sequence[str], texts: Sequence[str]) -> tuple[int, ...]:
    """Ids of the tokens with which memory's words begin, unless the passages hold them too."""
    forms = [form for word in remembered for form in (word, f" {word}")]
    held, *begun = engine.tokens(["\n".join(texts), *forms])
    allowed = {token.id for token in held}
    ids = {tokens[0].id for tokens in begun if tokens} - allowed
    return tuple(sorted(each for each in ids if each is not None))


def _instructed(engine: Engine, prompt: EnginePrompt) -> EnginePrompt:
    """The prompt with an instruction to keep to the passages, after the system's own."""
    given = [each["content"] for each in prompt.messages if each["role"] == "system"]
    rest = [each for each in prompt.messages if each["role"] != "system"]
    system: Message = {"role": "system", "content": "\n\n".join([*given, KEEP_TO_PASSAGES])}
    messages = (system, *rest)
    return EnginePrompt(engine.render(messages), messages)


def _token(token: Token, source: str, other: float | None = None) -> TokenTrace:
    """The trace of a token; what the engine does not tell is ``None``."""
    from_memory = source == "memory"
    choices = [Choice(each.text, math.exp(each.log_p)) for each in token.candidates]
    return TokenTrace(
        text=token.text,
        confidence_gain=None,
        entropy_context=None,
        entropy_memory=None,
        mixed=False,
        source="memory" if from_memory else "context",
        disputed=False,
        context_choices=[] if from_memory else choices,
        memory_choices=choices if from_memory else [],
        log_p_context=other if from_memory else token.log_p,
        log_p_memory=token.log_p if from_memory else other,
    )


def _decoded(
    drafted: DraftBatch,
    place: int,
    confidence: float,
    resolution: Resolution,
    trace: Trace,
    measured: Calibration,
) -> DecodedAnswer:
    comparison = drafted.comparisons[place]
    found, says = comparison.found, comparison.passages_say
    if resolution != "memory" and not measured.remembers(found.remembered_claim):
        return DecodedAnswer(trace, False, None)
    if found.claim is None or not says:
        return DecodedAnswer(trace, found.claim is not None, None, found.remembered_claim)
    quote = drafted.prompts[place].quote if place in drafted.quotes else None
    if resolution == "grounded" and quote is not None:
        says = quote.claim
    elif resolution == "grounded":
        begun = len(_beginning(drafted, (place, resolution)).tokens)
        written = "".join(token.text for token in trace.tokens[begun:])
        asked = FUNCTION_WORDS | words(drafted.prompts[place].question)
        says = next(iter(claims.new_words(written, asked)), says)
    memory = resolution == "memory" or (found.states_memory and resolution == "plain")
    verdict = Verdict(
        says,
        found.claim.text,
        None if measured is UNMEASURED else confidence,
        "memory" if memory else "passages",
    )
    return DecodedAnswer(trace, True, verdict, found.remembered_claim, verdict.confidence)
