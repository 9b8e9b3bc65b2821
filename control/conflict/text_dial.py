"""The dial over any engine: claims compared by their text and the log-probabilities that it gives.

The same decision as `control.conflict.dial`, from what `control.conflict.text_drafts` finds. What
the engine cannot do changes the following, in this order, and each change is one notice:

1. No scores of given text: how likely memory is right is judged by the drafts alone.
2. No log-probabilities: a verdict has no confidence, and alpha is 0, 0.5 or 1.
3. No bans: an answer without support in the passages is written again under an instruction.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from control.conflict import claims
from control.conflict.calibration import ANY_MODEL, Calibration, Resolution, Thresholds
from control.conflict.probe import MemoryProbe
from control.conflict.text_drafts import (
    Comparison,
    DraftBatch,
    branch_prompt,
    compare,
    first_request,
    guarded,
)
from control.conflict.verdict import (
    DecodedAnswer,
    choose,
    claim_against_memory,
    decoded,
    is_plain_rag,
    places,
    unrelated,
)
from control.decoding.repetition import repeats
from control.decoding.rules import DIAL
from control.decoding.trace import Choice, TokenTrace, Trace
from control.engines.base import Engine, EnginePrompt, Generation, GenerationRequest, Message, Token
from foundation.errors import InputError
from foundation.text import FUNCTION_WORDS, words

if TYPE_CHECKING:
    from control.conflict.reader import AnswerReader
    from control.decoding.generate import Alpha, Decoding, OnToken
    from control.forgetting.guard import WatchedFacts
    from control.prompts import Prompt

PLAIN_RAG_RULE = "plain"
LIKELIEST = math.log(0.5)  # above it a token is a branch's first choice, whatever the others have
THREE_SETTINGS = (0.0, 0.5, 1.0)
KEEP_TO_PASSAGES = "Use only what the passages say, in their words, even where you know otherwise."
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
        decoded(
            each,
            resolution,
            trace,
            None if measured is UNMEASURED else confidence,
            measured,
            _says(drafted, (place, resolution), trace),
        )
        for place, (each, confidence, row) in enumerate(
            zip(drafted.comparisons, confidences, written, strict=True)
        )
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
    return calibration.confidence(comparison.features)


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
        first_request(
            engine, branch_prompt(prompt, True), decoding, watches[at] if watches else None, True
        )
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
    wanted = places(chosen)
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
    """Log-probabilities without the passages of how an answer with them begins, where scored."""
    if key[1] == "memory" or (key[1] == "grounded" and key[0] in drafted.quotes):
        return ()
    return drafted.comparisons[key[0]].passages.by_other


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
    prompt, comparison = drafted.prompts[place], drafted.comparisons[place]
    draft = comparison.memory if resolution == "memory" else comparison.passages
    if resolution != "grounded" and len(begun.tokens) > len(draft):
        return None  # it was written to its end
    request = GenerationRequest(
        branch_prompt(prompt, resolution != "memory"),
        tuple(begun.tokens),
        left,
        decoding.temperature,
        decoding.top_p,
        decoding.seed,
        ended=repeats,
    )
    if resolution == "grounded":
        if can.bans and can.prefix:
            banned = _banned(drafted.engine, comparison.found.remembered, prompt.texts)
            request = replace(request, banned=banned)
        else:
            request = replace(request, prompt=_instructed(drafted.engine, request.prompt))
    return guarded(request, watch, begun.withheld)


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
    both = all(each is not None and each > LIKELIEST for each in (token.log_p, other))
    choices = [Choice(each.text, math.exp(each.log_p)) for each in token.candidates]
    return TokenTrace(
        text=token.text,
        confidence_gain=None,
        entropy_context=None,
        entropy_memory=None,
        mixed=False,
        source="both" if both else "memory" if from_memory else "context",
        disputed=False,
        context_choices=[] if from_memory else choices,
        memory_choices=choices if from_memory else [],
        log_p_context=other if from_memory else token.log_p,
        log_p_memory=token.log_p if from_memory else other,
    )


def _says(drafted: DraftBatch, key: tuple[int, Resolution], trace: Trace) -> str:
    """What the passages claim, as far as the answer is put into their words as it was written."""
    place, resolution = key
    says, prompt = drafted.comparisons[place].passages_say, drafted.prompts[place]
    if resolution != "grounded" or unrelated(prompt):
        return claim_against_memory(drafted.comparisons[place], prompt)
    if place in drafted.quotes and prompt.quote is not None:
        return prompt.quote.claim
    begun = len(_beginning(drafted, key).tokens)
    written = "".join(token.text for token in trace.tokens[begun:])
    asked = FUNCTION_WORDS | words(prompt.question)
    return next(iter(claims.new_words(written, asked)), says)
