"""Fulcrum's own dial: a conflict is decided as a whole, not token by token.

A token rule decides again at every token, and no single token tells a fact that the model knows
from one that it makes up. Here the passages' answer (plain RAG) and the memory's answer
(closed-book) begin side by side (`control.conflict.comparison`). Then:

1. Where memory claims nothing that the passages lack, the passages' answer stands.
2. Where it does, `control.conflict.probe` says how likely memory is right. Towards alpha 1 memory
   wins ever more conflicts, the surest first, and never those in which it is more likely wrong:
   what the model does not know is still answered from the passages.
3. Towards alpha 0, an answer that owes the passages nothing is put into their words
   (`control.decoding.grounding`), the least sure of memory first; at 0 every one.

At alpha 0.5 the answer is plain RAG's, and is told while memory still speaks. Elsewhere the answer
that was chosen goes on to its end. Both branches are asked about each of its tokens: that is its
trace.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from transformers import StoppingCriteria

from control.conflict import claims, comparison
from control.conflict.calibration import Calibration, Way, decide
from control.conflict.comparison import DraftBatch, DraftComparison
from control.decoding import generate
from control.decoding import trace as tracing
from control.decoding.contrastive import RuleOutput
from control.decoding.generate import Alpha, Decoding, OnToken, stop_ids
from control.decoding.rules import DIAL, MixedStep, mix, next_token
from control.decoding.trace import StepRow, Trace
from control.engines import batch, branches
from control.engines.batch import SequenceGroup
from control.engines.branches import DecodeState
from control.forgetting import guard as guarding
from control.forgetting.guard import LeakGuard, WatchedFacts
from foundation.errors import InputError
from foundation.text import words

if TYPE_CHECKING:
    from control.engines.transformers import LanguageModel
    from control.prompts import Prompt

NEUTRAL_TRUST = 0.5
MEMORY = 0.5  # above it, the rule of an answer that goes on follows memory


@dataclass(frozen=True)
class Verdict:
    """What the two sides say, and whom the answer follows.

    Attributes:
        passages_say: What the passages' answer claims.
        memory_says: What memory claims instead.
        confidence: How likely memory is right, in [0, 1].
        follows: Whose answer was given.
    """

    passages_say: str
    memory_says: str
    confidence: float
    follows: Literal["passages", "memory"]

    def __str__(self) -> str:
        return (
            f'The passages say "{self.passages_say}", the model remembers "{self.memory_says}" '
            f"with confidence {self.confidence:.2f}; the answer follows "
            + ("the passages." if self.follows == "passages" else "the model's memory.")
        )


@dataclass(frozen=True)
class DecodedAnswer:
    """An answer and how it came to stand.

    Attributes:
        trace: Its tokens.
        conflict: Whether memory and passages disagree.
        verdict: On what; ``None`` where they do not, where the passages' answer claims nothing, and
            from token rules, which cannot say.
    """

    trace: Trace
    conflict: bool
    verdict: Verdict | None


def answer(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    how: Decoding,
    calibration: Calibration | None,
    alphas: Sequence[Alpha] | None = None,
    on_token: OnToken | None = None,
    watches: Sequence[WatchedFacts] | None = None,
) -> list[DecodedAnswer]:
    """Answer every prompt, once for each of ``alphas``.

    Args:
        language_model: Model and tokenizer.
        prompts: One per question.
        how: Rule, alpha, sampling and length; a token rule goes to `control.decoding.generate`.
        calibration: Of this model, or one for any; token rules need none.
        alphas: Several settings of the dial to answer at; defaults to ``how.alpha`` alone.
        on_token: Told every token once it is certain.
        watches: What the answer to each prompt must not say; ``None`` where all may be said.

    Returns:
        All alphas of the first prompt, then all of the second, and so on.
    """
    if how.rule != DIAL:
        traces = generate.generate(language_model, prompts, how, alphas, on_token, watches)
        return [DecodedAnswer(trace, trace.disputed, None) for trace in traces]
    settings = [how.alpha] if alphas is None else list(alphas)
    if not any(prompt.passages for prompt in prompts):
        closed_book = replace(how, rule="plain", alpha=0.5)
        flat = generate.generate(
            language_model, prompts, closed_book, [0.5] * len(settings), on_token, watches
        )
        return [DecodedAnswer(trace, False, None) for trace in flat]
    if calibration is None:
        raise InputError(
            f"rule {DIAL} needs a calibration; take control.conflict.calibration.shipped(...)"
        )
    if len(settings) == 1 and _stands(prompts, settings[0], calibration):
        return _stream_plain(language_model, prompts, how, calibration, on_token, watches)
    begun = comparison.begin(language_model, prompts, how, watches)
    confidences = _confidences(begun, calibration)
    ways = [
        [choose(view, confidence, alpha, _trust(view, prompt), calibration) for alpha in settings]
        for view, confidence, prompt in zip(begun.views, confidences, prompts, strict=True)
    ]
    rows = finish(begun, ways, on_token)
    return [
        DecodedAnswer(trace, view.claim is not None, _verdict(view, confidence, way, trace))
        for view, confidence, row, chosen in zip(begun.views, confidences, rows, ways, strict=True)
        for trace, way in zip(row, chosen, strict=True)
    ]


def _stands(prompts: Sequence["Prompt"], alpha: Alpha, calibration: Calibration) -> bool:
    """Whether the passages' answers are given whatever memory says: plain RAG, without a trust."""
    trusts = {trust for prompt in prompts for trust in prompt.trust or (NEUTRAL_TRUST,)}
    return alpha != "auto" and all(
        calibration.bars(_turned(alpha, trust)).settle_nothing for trust in trusts
    )


def _stream_plain(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    how: Decoding,
    calibration: Calibration,
    on_token: OnToken | None,
    watches: Sequence[WatchedFacts] | None,
) -> list[DecodedAnswer]:
    """Answers that stand whatever memory says, told as they come; memory is compared after."""
    traces = [Trace(language_model.tokenizer, prompt.passages > 0) for prompt in prompts]
    told = generate.recorder(traces, stop_ids(language_model.model), on_token)
    begun = comparison.begin(language_model, prompts, how, watches, told)
    guarding.report(begun.guards, traces)
    return [
        DecodedAnswer(trace, view.claim is not None, _verdict(view, confidence, "plain", trace))
        for view, confidence, trace in zip(
            begun.views, _confidences(begun, calibration), traces, strict=True
        )
    ]


def _confidences(begun: DraftBatch, calibration: Calibration) -> list[float]:
    """How likely memory is right in each question's conflict; 0 where there is none."""
    return [
        calibration.probe(view.evidence) if view.evidence is not None else 0.0
        for view in begun.views
    ]


def choose(
    view: DraftComparison, confidence: float, alpha: Alpha, trust: float, calibration: Calibration
) -> Way:
    """Which of the answers stands at ``alpha``.

    Args:
        view: Both sides.
        confidence: How likely memory is right, in [0, 1].
        alpha: The dial.
        trust: In the passages of this conflict, in [0, 1]. At a fixed alpha it turns the dial for
            this conflict, by half its range to the passages at 1 and to memory at 0; at alpha auto
            it counts as the passages' own chance of being right (Bayes' rule in odds).
        calibration: Of the model.
    """
    if alpha == "auto":
        for_memory = confidence * (1 - trust)
        confidence = for_memory / max(for_memory + (1 - confidence) * trust, sys.float_info.min)
    else:
        alpha = _turned(alpha, trust)
    conflict, loose = view.claim is not None, view.grounded is not None
    return decide(conflict, loose, confidence, calibration.bars(alpha))


def _turned(alpha: float, trust: float) -> float:
    """The dial for a conflict whose passages are so trusted."""
    return min(max(alpha + NEUTRAL_TRUST - trust, 0.0), 1.0)


def finish(
    begun: DraftBatch, ways: Sequence[Sequence[Way]], on_token: OnToken | None = None
) -> list[list[Trace]]:
    """Let the chosen answers go on to their ends; the traces, in the order of ``ways``.

    An answer that was chosen several times is decoded once.
    """
    model = begun.language_model.model
    wanted: dict[tuple[int, Way], list[int]] = {}
    place = 0
    for index, chosen in enumerate(ways):
        for way in chosen:
            wanted.setdefault((index, way), []).append(place)
            place += 1
    rows = [index for index, _ in wanted]
    places = list(wanted.values())
    traces = [
        Trace(begun.language_model.tokenizer, begun.prompts[index].passages > 0) for index in rows
    ]

    def record(at: int, token: int, row: tracing.StepRow) -> None:
        entry = traces[at].add(token, row)
        if on_token is not None:
            for each in places[at]:
                on_token(each, entry)

    with torch.inference_mode():
        state = begun.state.copied([*rows, *(index + len(begun.views) for index in rows)])
        alphas = [[float(way == "memory")] for _, way in wanted]
        starts = [_start(begun.views[index], way) for index, way in wanted]
        guards = begun.guards and [
            begun.guards[index + len(begun.views) * (way == "memory")].going_on(start.ids)
            for (index, way), start in zip(wanted, starts, strict=True)
        ]
        _go_on(begun, state, starts, torch.tensor(alphas, device=model.device), record, guards)
    guarding.report(guards, traces)
    by_place = {
        place: trace for trace, shared in zip(traces, places, strict=True) for place in shared
    }
    ordered = iter([by_place[place] for place in sorted(by_place)])
    return [[next(ordered) for _ in chosen] for chosen in ways]


@dataclass(frozen=True)
class _DraftStart:
    """The tokens with which an answer begins, the first that no branch chose, and the banned."""

    ids: list[int]
    forced: int
    banned: list[int]


def _start(view: DraftComparison, way: Way) -> _DraftStart:
    if way == "grounded" and view.grounded is not None:
        ids = view.grounded.ids
        return _DraftStart(ids, len(ids) - 1, view.grounded.banned)
    ids = view.memory if way == "memory" else view.passages
    return _DraftStart(ids, len(ids), [])


def _go_on(
    begun: DraftBatch,
    state: DecodeState,
    starts: Sequence[_DraftStart],
    alpha: Tensor,
    record: Callable[[int, int, StepRow], None],
    guards: Sequence[LeakGuard] | None,
) -> None:
    """Append the beginnings, then decode to the end, recording every token.

    Args:
        begun: Settings.
        state: The chosen rows, those with the passages and then those without.
        starts: Beginning of each answer.
        alpha: Shape (n, 1).
        record: Told the answer, the token and what the branches thought of it.
        guards: One for each answer.
    """
    model, tokenizer, n = begun.language_model.model, begun.language_model.tokenizer, len(starts)
    ends, longest = stop_ids(model), begun.how.max_new_tokens
    texts = [start.ids for start in starts]
    logits = branches.extend(model, state, [*texts, *texts])
    for at in range(max(map(len, texts))):
        live = torch.tensor([row for row in range(n) if at < len(texts[row])])
        tokens = torch.tensor([texts[row][at] for row in live], device=alpha.device)
        step = mix(
            _follow, next_token(logits[live, at]), next_token(logits[live + n, at]), alpha[live]
        )
        rows = zip(live.tolist(), tokens.tolist(), tracing.rows(step, tokens), strict=True)
        for row, token, seen in rows:
            if token not in ends:
                mixed = seen.mixed or at >= starts[row].forced
                record(row, token, replace(seen, mixed=mixed))
    going = [
        row
        for row in range(n)
        if texts[row][-1] not in ends
        and len(texts[row]) < longest
        and not generate.stopped(tokenizer, texts[row])
    ]
    if not going:
        return

    def on_step(answers: Tensor, tokens: Tensor, step: MixedStep) -> None:
        rows = zip(answers.tolist(), tokens.tolist(), tracing.rows(step, tokens), strict=True)
        for answer, token, seen in rows:
            if token not in ends:
                record(going[answer], token, seen)

    width = max(len(texts[row]) for row in going)
    firsts = {texts[row][0] for row in going}
    pad = next(token for token in range(len(firsts) + 1) if token not in firsts)
    padded = [[pad] * (width - len(texts[row])) + texts[row] for row in going]
    banned = torch.zeros(len(going), logits.shape[-1], dtype=torch.bool, device=alpha.device)
    for place, row in enumerate(going):
        banned[place, starts[row].banned] = True
    state.select(torch.tensor([*going, *(row + n for row in going)], device=alpha.device))
    group = SequenceGroup(
        state,
        torch.tensor(padded, device=alpha.device),
        _follow,
        alpha=alpha[going],
        banned=banned if banned.any() else None,
        on_step=on_step,
        guards=None if guards is None else [guards[row] for row in going],
        **generate.generation_kwargs(begun.language_model, begun.how, _LongEnough(longest, pad)),
    )
    batch.decode(model, group)


@dataclass(frozen=True)
class _LongEnough(StoppingCriteria):
    """As `MaxLengthCriteria`, for rows that begin with different amounts of padding."""

    longest: int
    pad: int

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
        begun = (input_ids != self.pad).long().cummax(dim=1).values
        return begun.sum(dim=1) >= self.longest


def _follow(log_p_c: Tensor, log_p_m: Tensor, alpha: Tensor | None) -> RuleOutput:
    """The rule of an answer that has been chosen: passages at alpha 0, memory at alpha 1."""
    memory = cast("Tensor", alpha) > MEMORY  # never adaptive: see `_go_on`
    return RuleOutput(torch.where(memory, log_p_m, log_p_c), memory[:, 0])


def _verdict(view: DraftComparison, confidence: float, way: Way, trace: Trace) -> Verdict | None:
    if view.claim is None or not view.passages_say:
        return None
    said = view.passages_say
    if way == "grounded" and view.grounded is not None:  # the word as it was completed
        rest = trace.tokenizer.decode(trace.ids[len(view.grounded.ids) - 1 :])
        said = next(iter(claims.new_words(rest, set())), said)
    memory = way == "memory" or (view.spoken and way == "plain")
    return Verdict(said, view.claim.text, confidence, "memory" if memory else "passages")


def _trust(view: DraftComparison, prompt: "Prompt") -> float:
    """Highest trust among the passages that hold what the passages' answer claims, else of all."""
    if not prompt.trust:
        return NEUTRAL_TRUST
    claimed = words(view.passages_say)
    holding = [
        trust
        for text, trust in zip(prompt.texts, prompt.trust, strict=True)
        if claimed and claimed <= words(text)
    ]
    return max(holding or prompt.trust)
