"""Fulcrum's own dial: one decision for each answer, not one for each token.

A token rule decides at every token, and no single token distinguishes a fact that the model knows
from one that it makes up. Here the drafts of the passages' answer (plain RAG) and of the memory's
answer (closed-book) are decoded together and compared (`control.conflict.drafts`). Then:

1. Where memory claims nothing that the passages lack, the passages' answer is given.
2. Where it does, `control.conflict.probe` estimates how likely memory is right. Towards alpha 1
   memory wins more conflicts, the most confident first, and never those in which it is more likely
   wrong: what the model does not know is still answered from the passages.
3. Towards alpha 0, an answer without support in the passages gives way to their wording
   (`control.decoding.grounding`), the least confident first; at 0 every such answer.

At alpha 0.5 the answer is plain RAG's and is streamed while the memory draft is decoded. Elsewhere
the chosen draft is continued to its end. Both branches score each token of the answer: its trace.
An answer that begins to repeat itself ends before the repeat (`control.decoding.repetition`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import StoppingCriteria

from control.conflict import claims, drafts, text_dial
from control.conflict.calibration import Calibration, Resolution
from control.conflict.drafts import DraftBatch, DraftComparison
from control.conflict.verdict import (
    DecodedAnswer,
    choose,
    claim_against_memory,
    decoded,
    is_plain_rag,
    places,
    unrelated,
)
from control.decoding import generate
from control.decoding import trace as tracing
from control.decoding.contrastive import RuleOutput
from control.decoding.generate import Alpha, Decoding, OnToken, stop_ids
from control.decoding.repetition import RepetitionFilter
from control.decoding.rules import DIAL, MixedStep, mix, next_token
from control.decoding.trace import DecodingTrace, StepRow
from control.engines import batch, branches
from control.engines.batch import SequenceGroup
from control.engines.branches import DecodeState
from control.engines.transformers import LanguageModel
from control.forgetting import guard as guarding
from control.forgetting.guard import LeakGuard, WatchedFacts
from foundation.errors import InputError

if TYPE_CHECKING:
    from control.conflict.reader import AnswerReader
    from control.engines.base import Engine
    from control.prompts import Prompt

MEMORY = 0.5  # above it, the rule of a continued answer follows memory


def answer(
    language_model: "LanguageModel | Engine",
    prompts: Sequence["Prompt"],
    decoding: Decoding,
    calibration: Calibration | None,
    alphas: Sequence[Alpha] | None = None,
    on_token: OnToken | None = None,
    watches: Sequence[WatchedFacts] | None = None,
    reader: "AnswerReader | None" = None,
) -> list[DecodedAnswer]:
    """Answer every prompt, once for each of ``alphas``.

    Args:
        language_model: Model and tokenizer, or another engine.
        prompts: One per question.
        decoding: Rule, alpha, sampling and length; a token rule goes to
            `control.decoding.generate`.
        calibration: Of this model, or one for any; token rules need none.
        alphas: Several settings of the dial to answer at; defaults to ``decoding.alpha`` alone.
        on_token: Called with every token once it is certain, and certainly no repeat.
        watches: The facts that the answer to each prompt must not state; ``None`` for no guard.
        reader: Finds what the drafts claim; without it, the words that they add count.

    Returns:
        All alphas of the first prompt, then all of the second, and so on.

    Raises:
        InputError: The dial has no calibration.
    """
    without_repeats = RepetitionFilter(on_token)
    answers = _answer(
        language_model,
        prompts,
        decoding,
        calibration,
        alphas,
        without_repeats.token,
        watches,
        reader,
    )
    return without_repeats.end(answers)


def _answer(
    language_model: "LanguageModel | Engine",
    prompts: Sequence["Prompt"],
    decoding: Decoding,
    calibration: Calibration | None,
    alphas: Sequence[Alpha] | None,
    on_token: OnToken,
    watches: Sequence[WatchedFacts] | None,
    reader: "AnswerReader | None",
) -> list[DecodedAnswer]:
    """The answers as they are decoded; arguments as of `answer`."""
    if not isinstance(language_model, LanguageModel):
        return text_dial.answer(
            language_model, prompts, decoding, calibration, alphas, on_token, watches, reader
        )
    if decoding.rule != DIAL:
        traces = generate.generate(language_model, prompts, decoding, alphas, on_token, watches)
        return [DecodedAnswer(trace, trace.disputed, None) for trace in traces]
    settings = [decoding.alpha] if alphas is None else list(alphas)
    if not any(prompt.passages for prompt in prompts):
        closed_book = replace(decoding, rule="plain", alpha=0.5)
        flat = generate.generate(
            language_model, prompts, closed_book, [0.5] * len(settings), on_token, watches
        )
        return [DecodedAnswer(trace, False, None) for trace in flat]
    if calibration is None:
        raise InputError(
            f"rule {DIAL} needs a calibration; take control.conflict.calibration.shipped(...)"
        )
    plain = len(settings) == 1 and all(
        is_plain_rag(prompt, settings[0], calibration) for prompt in prompts
    )
    streamed = [
        DecodingTrace(prompt.passages > 0, tokenizer=language_model.tokenizer) for prompt in prompts
    ]
    # Plain RAG's answers are streamed as they are decoded, and memory is compared afterwards.
    on_step = generate.recorder(streamed, stop_ids(language_model.model), on_token)
    drafted = drafts.compare(
        language_model, prompts, decoding, watches, on_step if plain else None, reader
    )
    confidences = [calibration.confidence(each.features) for each in drafted.comparisons]
    chosen = [
        [choose(each, prompt, confidence, alpha, calibration) for alpha in settings]
        for each, confidence, prompt in zip(drafted.comparisons, confidences, prompts, strict=True)
    ]
    if plain:
        guarding.report(drafted.guards, streamed)
        rows = [[trace] for trace in streamed]
    else:
        rows = finish(drafted, chosen, on_token)
    return [
        decoded(
            each,
            resolution,
            trace,
            confidence,
            calibration,
            _says(each, prompt, resolution, trace),
        )
        for each, prompt, confidence, row, resolutions in zip(
            drafted.comparisons, prompts, confidences, rows, chosen, strict=True
        )
        for trace, resolution in zip(row, resolutions, strict=True)
    ]


def finish(
    drafted: DraftBatch,
    chosen: Sequence[Sequence[Resolution]],
    on_token: OnToken | None = None,
) -> list[list[DecodingTrace]]:
    """Decode the chosen answers to their ends; the traces, in the order of ``chosen``.

    An answer that was chosen several times is decoded once.
    """
    model, n = drafted.language_model.model, len(drafted.comparisons)
    wanted = places(chosen)
    tokenizer = drafted.language_model.tokenizer
    traces = {
        (index, resolution): DecodingTrace(drafted.prompts[index].passages > 0, tokenizer=tokenizer)
        for index, resolution in wanted
    }
    keys = list(wanted)

    def record(at: int, token: int, row: tracing.StepRow) -> None:
        entry = traces[keys[at]].add(token, row)
        if on_token is not None:
            for place in wanted[keys[at]]:
                on_token(place, entry)

    with torch.inference_mode():
        rows = [index for index, _ in wanted]
        state = drafted.state.copied([*rows, *(index + n for index in rows)])
        alphas = [[float(resolution == "memory")] for _, resolution in wanted]
        starts = [_start(drafted.comparisons[index], resolution) for index, resolution in wanted]
        guards = drafted.guards and [
            drafted.guards[index + n * (resolution == "memory")].going_on(start.ids)
            for (index, resolution), start in zip(wanted, starts, strict=True)
        ]
        alpha = torch.tensor(alphas, device=model.device)
        _continue(drafted, state, starts, alpha, record, guards)
    guarding.report(guards, list(traces.values()))
    return [[traces[index, each] for each in row] for index, row in enumerate(chosen)]


@dataclass(frozen=True)
class _DraftStart:
    """How a chosen answer begins.

    Attributes:
        ids: Its first tokens.
        forced: Place of the first of them that no branch chose.
        banned: Tokens that are not allowed later on.
    """

    ids: list[int]
    forced: int
    banned: list[int]


def _start(comparison: DraftComparison, resolution: Resolution) -> _DraftStart:
    if resolution == "grounded" and comparison.grounded is not None:
        grounded = comparison.grounded
        return _DraftStart(grounded.ids, grounded.forced, grounded.banned)
    ids = comparison.memory if resolution == "memory" else comparison.passages
    return _DraftStart(ids, len(ids), [])


def _continue(
    drafted: DraftBatch,
    state: DecodeState,
    starts: Sequence[_DraftStart],
    alpha: Tensor,
    record: Callable[[int, int, StepRow], None],
    guards: Sequence[LeakGuard] | None,
) -> None:
    """Append the beginnings, then decode to the end, recording every token.

    Args:
        drafted: The drafts and their settings.
        state: The chosen rows, those with the passages and then those without.
        starts: Beginning of each answer.
        alpha: Shape (n, 1).
        record: Called with the answer, the token and the branches' scores of it.
        guards: One for each answer.
    """
    language_model, n = drafted.language_model, len(starts)
    model, tokenizer = language_model.model, language_model.tokenizer
    ends, longest = stop_ids(model), drafted.decoding.max_new_tokens
    texts = [start.ids for start in starts]
    logits = branches.extend(model, state, [*texts, *texts])
    for at in range(max(map(len, texts))):
        live = torch.tensor([row for row in range(n) if at < len(texts[row])])
        tokens = torch.tensor([texts[row][at] for row in live], device=alpha.device)
        step = mix(
            _follow, next_token(logits[live, at]), next_token(logits[live + n, at]), alpha[live]
        )
        rows = zip(live.tolist(), tokens.tolist(), tracing.rows(step, tokens), strict=True)
        for row, token, scores in rows:
            if token not in ends:
                mixed = scores.mixed or at >= starts[row].forced
                record(row, token, replace(scores, mixed=mixed))
    running = [
        row
        for row in range(n)
        if texts[row][-1] not in ends
        and len(texts[row]) < longest
        and not generate.stopped(tokenizer, texts[row])
    ]
    if not running:
        return

    def on_step(answers: Tensor, tokens: Tensor, step: MixedStep) -> None:
        rows = zip(answers.tolist(), tokens.tolist(), tracing.rows(step, tokens), strict=True)
        for answer, token, scores in rows:
            if token not in ends:
                record(running[answer], token, scores)

    width = max(len(texts[row]) for row in running)
    firsts = {texts[row][0] for row in running}
    pad = next(token for token in range(len(firsts) + 1) if token not in firsts)
    padded = [[pad] * (width - len(texts[row])) + texts[row] for row in running]
    banned = torch.zeros(len(running), logits.shape[-1], dtype=torch.bool, device=alpha.device)
    for place, row in enumerate(running):
        banned[place, starts[row].banned] = True
    state.select(torch.tensor([*running, *(row + n for row in running)], device=alpha.device))
    group = SequenceGroup(
        state,
        torch.tensor(padded, device=alpha.device),
        _follow,
        alpha=alpha[running],
        banned=banned if banned.any() else None,
        on_step=on_step,
        guards=None if guards is None else [guards[row] for row in running],
        **generate.generation_kwargs(
            language_model, drafted.decoding, _MaxPaddedLength(longest, pad), pad=pad
        ),
    )
    batch.decode(model, group)


@dataclass(frozen=True)
class _MaxPaddedLength(StoppingCriteria):
    """As `MaxLengthCriteria`, for rows that begin with different amounts of padding."""

    longest: int
    pad: int

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
        started = (input_ids != self.pad).long().cummax(dim=1).values
        return started.sum(dim=1) >= self.longest


def _follow(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> RuleOutput:
    """The rule of an answer that has been chosen: passages at alpha 0, memory at alpha 1."""
    memory = cast("Tensor", alpha) > MEMORY  # never adaptive: see `_continue`
    return RuleOutput(torch.where(memory, log_p_m, log_p_c), memory[:, 0])


def _says(
    comparison: DraftComparison, prompt: "Prompt", resolution: Resolution, trace: DecodingTrace
) -> str:
    """What the passages claim, as far as the answer is put into their words as it was completed."""
    grounded = comparison.grounded
    if resolution != "grounded" or grounded is None or unrelated(prompt):
        return claim_against_memory(comparison, prompt)
    rest = trace.tokenizer.decode(trace.ids[len(grounded.ids) - 1 :])
    return next(iter(claims.new_words(rest, set())), comparison.passages_say)
