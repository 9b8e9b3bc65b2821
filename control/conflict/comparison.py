"""Both sides of a question: what passages and memory each begin to say, and where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from control.conflict import claims
from control.conflict import probe as belief
from control.conflict.claims import FUNCTION_WORDS, Claim
from control.conflict.drafts import Draft, DraftRecorder, saying
from control.conflict.probe import ClaimPair, ProbeAnswers, ProbeFeatures
from control.decoding import grounding
from control.decoding.generate import Decoding, stop_ids
from control.decoding.grounding import Grounded
from control.engines import batch
from control.engines.batch import OnStep
from control.engines.branches import DecodeState
from control.forgetting.guard import LeakGuard, WatchedFacts, guards
from foundation.text import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from control.engines.transformers import LanguageModel
    from control.prompts import Prompt

OWED = 3.0  # nats; an answer owes the passages something if they raise one of its claims so much
BARE = "Question: {question}\nAnswer:"


@dataclass(frozen=True)
class DraftComparison:
    """Both sides of one question, after their first sentences.

    Attributes:
        passages: Token ids of the passages' answer, an end of text included.
        memory: The same of the memory's answer.
        claim: What memory claims that the passages lack; ``None`` where there is no conflict.
        passages_claim: What the passages' answer claims.
        spoken: Whether the passages' answer says what memory claims and owes the passages nothing.
        evidence: What a probe sees of the conflict, if there is one.
        grounded: How the answer would begin in the passages' own words; ``None`` where it owes them
            something already.
    """

    passages: list[int]
    memory: list[int]
    claim: Claim | None
    passages_claim: str
    spoken: bool
    evidence: ProbeFeatures | None
    grounded: Grounded | None

    @property
    def passages_say(self) -> str:
        """What the passages claim, even where their answer says something else."""
        return self.grounded.claim if self.grounded else self.passages_claim


@dataclass(frozen=True)
class DraftBatch:
    """Questions whose answers have begun on both sides.

    Attributes:
        language_model: The model.
        prompts: The n questions.
        how: Sampling and length.
        state: What has been read: the n prompts with passages, then those without.
        views: Both sides of each.
        guards: Of the n beginnings with passages, then of those without.
    """

    language_model: "LanguageModel"
    prompts: Sequence["Prompt"]
    how: Decoding
    state: DecodeState
    views: list[DraftComparison]
    guards: list[LeakGuard] | None = None


@dataclass(frozen=True)
class _TokenComparison:
    """What comparing two first sentences shows.

    ``remembered`` are words that memory adds to question and passages, ``loose`` the claims of the
    passages' answer that they lack.
    """

    claim: Claim | None
    passages_claim: Claim | None
    remembered: list[str]
    spoken: bool
    supported: bool
    loose: list[Claim]


def begin(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    how: Decoding,
    watches: Sequence[WatchedFacts] | None = None,
    aloud: OnStep | None = None,
) -> DraftBatch:
    """Read all prompts and let both sides say their first sentence, within their watches.

    Args:
        language_model: The model.
        prompts: The n questions.
        how: Sampling and length.
        watches: What the answer to each prompt must not say.
        aloud: Told every token of the passages' answers, which then are decoded to their ends: for
            those that stand whatever the comparison shows.
    """
    model, tokenizer, n = language_model.model, language_model.tokenizer, len(prompts)
    texts = [prompt.context for prompt in prompts] + [prompt.memory for prompt in prompts]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    encoded = encoded.to(model.device)
    with torch.inference_mode():
        state = batch.read(model, encoded.input_ids, encoded.attention_mask, groups=2, whole=True)
        both = None if watches is None else [*watches, *watches]
        watching = guards(both, tokenizer, stop_ids(model))
        ours, theirs = watching and watching[:n], watching and watching[n:]
        memory_first = [*range(n, 2 * n), *range(n)]
        passages, memory = DraftRecorder.nothing(n), DraftRecorder.nothing(n)
        batch.decode(
            model,
            saying(language_model, state.copied(), how, passages, ours, aloud),
            saying(language_model, state.copied(memory_first), how, memory, theirs),
        )
        if aloud is not None:
            passages = passages.first_sentences(tokenizer)
        views = _views(language_model, prompts, state, passages, memory)
    return DraftBatch(language_model, prompts, how, state, views, watching)


def _views(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    state: DecodeState,
    passages: DraftRecorder,
    memory: DraftRecorder,
) -> list[DraftComparison]:
    """Compare both sides of every question, reading more only where they differ."""
    ends = stop_ids(language_model.model)
    pairs = list(zip(passages.heard(ends), memory.heard(ends), strict=True))
    found = [
        _compared(language_model.tokenizer, prompt, *pair)
        for prompt, pair in zip(prompts, pairs, strict=True)
    ]
    evidence = _evidence(language_model, prompts, state, pairs, found)
    grounded = _grounded(language_model, prompts, state, pairs, found)
    return [
        DraftComparison(
            passages=passages.ids[row],
            memory=memory.ids[row],
            claim=each.claim,
            passages_claim=each.passages_claim.text if each.passages_claim else "",
            spoken=each.spoken,
            evidence=evidence.get(row),
            grounded=grounded.get(row),
        )
        for row, each in enumerate(found)
    ]


def _compared(
    tokenizer: "PreTrainedTokenizerBase", prompt: "Prompt", passages: Draft, memory: Draft
) -> _TokenComparison:
    if not prompt.passages:
        return _TokenComparison(None, None, [], spoken=False, supported=False, loose=[])
    asked = words(prompt.question) | FUNCTION_WORDS
    held = words(" ".join(prompt.texts))
    memory_text = tokenizer.decode(memory.ids, skip_special_tokens=True)
    claim = claims.strongest(claims.claims(tokenizer, memory.ids, memory.gain, asked | held))
    own = claims.claims(tokenizer, passages.ids, passages.gain, asked)
    other = claims.claims(tokenizer, passages.ids, passages.gain, asked | words(memory_text))
    passages_claim = claims.strongest(other) or claims.strongest(own)
    unsupported = [each for each in own if not words(each.text) - asked <= held]
    owed = max((each.gain for each in own if each not in unsupported), default=0.0)
    remembered = claims.new_words(memory_text, asked | held)
    added = words(" ".join(remembered))
    shared = [each for each in unsupported if words(each.text) & added]
    return _TokenComparison(
        claim,
        passages_claim,
        remembered,
        spoken=bool(shared) and owed < OWED,
        supported=passages_claim is not None and words(passages_claim.text) <= held,
        # What stands before the word that is replaced stays: so the first word of memory's goes.
        loose=(shared[:1] or unsupported) if owed < OWED else [],
    )


def _evidence(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    state: DecodeState,
    pairs: Sequence[tuple[Draft, Draft]],
    found: Sequence[_TokenComparison],
) -> dict[int, ProbeFeatures]:
    """Read both claims of every conflict behind the beginning of memory's answer, in each frame.

    All of it in one pass: after question and passages, after the question alone, and in a bare
    text, which follows nothing. Each side's answer is read once more for its hidden states.
    """
    model, n = language_model.model, len(prompts)
    conflicts = [
        (row, mine, theirs)
        for row, each in enumerate(found)
        if (mine := each.claim) and (theirs := each.passages_claim)
    ]
    if not conflicts:
        return {}
    rows = [row for row, _, _ in conflicts]
    bare = language_model.tokenizer(
        [BARE.format(question=prompts[row].question) for row in rows], add_special_tokens=False
    ).input_ids
    texts, starts, answers = [], [], []
    for row, mine, theirs in conflicts:
        passages, memory = pairs[row]
        start = memory.ids[: mine.start]
        texts.append([memory.ids[: mine.stop], start + passages.ids[theirs.start : theirs.stop]])
        starts.append(mine.start)
        answers.append((passages.ids, memory.ids))
    read = batch.read_on(
        model,
        state.copied([*rows, *(row + n for row in rows), *rows]).without(range(2 * len(rows))),
        [
            *([*both, passages] for both, (passages, _) in zip(texts, answers, strict=True)),
            *([*both, memory] for both, (_, memory) in zip(texts, answers, strict=True)),
            *(
                [question + text for text in both]
                for both, question in zip(texts, bare, strict=True)
            ),
        ],
        belief.layers(model),
    )
    evidence = {}
    for at, row in enumerate(rows):
        after_passages, alone, plainly = (read[at + each * len(rows)] for each in range(3))
        passages, memory = pairs[row]
        frames = [
            ClaimPair(*(reading.part(starts[at] + before) for reading in readings[:2]))
            for readings, before in ((alone, 0), (plainly, len(bare[at])), (after_passages, 0))
        ]
        whole = ProbeAnswers(after_passages[2], passages.by_other, alone[2], memory.by_other)
        evidence[row] = belief.evidence(whole, frames, found[row].supported)
    return evidence


def _grounded(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    state: DecodeState,
    pairs: Sequence[tuple[Draft, Draft]],
    found: Sequence[_TokenComparison],
) -> dict[int, Grounded | None]:
    """The answers that owe the passages nothing, begun in their words."""
    n = len(prompts)
    rows = [row for row in range(n) if found[row].loose]
    if not rows:
        return {}
    grounded = grounding.ground(
        language_model,
        state.copied([*rows, *(row + n for row in rows)]),
        [prompts[row] for row in rows],
        [pairs[row][0].ids for row in rows],
        [found[row].loose for row in rows],
        [found[row].remembered for row in rows],
    )
    return dict(zip(rows, grounded, strict=True))
