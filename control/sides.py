"""Both sides of a question: what passages and memory each begin to say, and where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import MaxLengthCriteria, StoppingCriteria

from control import belief, branches, claims, decoding, grounding
from control.belief import Answers, Evidence, Frame
from control.branches import Branches, Reading
from control.claims import FUNCTION_WORDS, Claim
from control.decoding import Decoding, stop_ids
from control.forgetting.guard import Guard, Watch, guards
from control.grounding import Grounded
from control.groups import OnStep, SequenceGroup
from control.rules import Step, plain
from foundation.text import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from control.model import LanguageModel
    from control.prompts import Prompt

SENTENCE = 32  # tokens; longest beginning that is compared
SENTENCE_TAIL = 8  # tokens that show whether a sentence ends
OWED = 3.0  # nats; an answer owes the passages something if they raise one of its claims so much
BARE = "Question: {question}\nAnswer:"


@dataclass(frozen=True)
class View:
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
    evidence: Evidence | None
    grounded: Grounded | None

    @property
    def passages_say(self) -> str:
        """What the passages claim, even where their answer says something else."""
        return self.grounded.claim if self.grounded else self.passages_claim


@dataclass(frozen=True)
class Begun:
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
    state: Branches
    views: list[View]
    guards: list[Guard] | None = None


@dataclass(frozen=True)
class _Compared:
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
    watches: Sequence[Watch] | None = None,
    aloud: OnStep | None = None,
) -> Begun:
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
        state = branches.read(
            model, encoded.input_ids, encoded.attention_mask, groups=2, whole=True
        )
        both = None if watches is None else [*watches, *watches]
        watching = guards(both, tokenizer, stop_ids(model))
        if aloud is None:
            sentences, said = _first_sentences(language_model, state.copied(), how, watching)
            decoding.decode(model, sentences)
        else:
            alone = state.copied(range(n, 2 * n))
            own = watching and watching[n:]
            sentences, remembered = _first_sentences(language_model, alone, how, own)
            answers, heard = _answers(language_model, state.copied(), how, watching, aloud)
            decoding.decode(model, answers, sentences)
            said = [_first_sentence(tokenizer, ids) for ids in heard] + remembered
        views = _views(language_model, prompts, state, said)
    return Begun(language_model, prompts, how, state, views, watching)


def _views(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    state: Branches,
    said: Sequence[list[int]],
) -> list[View]:
    """Compare both sides of every question, reading more only where they differ."""
    model, n = language_model.model, len(prompts)
    ends = stop_ids(model)
    bare = [[token for token in ids if token not in ends] or ids for ids in said]
    pairs = list(zip(bare[:n], bare[n:], strict=True))
    read = branches.read_on(model, state, [*pairs, *pairs], belief.layers(model))
    answers = [
        Answers(
            passages=read[row][0],
            passages_by_memory=read[row + n][0],
            memory=read[row + n][1],
            memory_by_passages=read[row][1],
        )
        for row in range(n)
    ]
    found = [
        _compared(language_model.tokenizer, prompt, *pair, answer)
        for prompt, pair, answer in zip(prompts, pairs, answers, strict=True)
    ]
    evidence = _evidence(language_model, prompts, state, pairs, answers, found)
    grounded = _grounded(language_model, prompts, state, bare, found)
    return [
        View(
            passages=said[row],
            memory=said[row + n],
            claim=each.claim,
            passages_claim=each.passages_claim.text if each.passages_claim else "",
            spoken=each.spoken,
            evidence=evidence.get(row),
            grounded=grounded.get(row),
        )
        for row, each in enumerate(found)
    ]


def _compared(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: "Prompt",
    passages_ids: Sequence[int],
    memory_ids: Sequence[int],
    answers: Answers,
) -> _Compared:
    if not prompt.passages:
        return _Compared(None, None, [], spoken=False, supported=False, loose=[])
    asked = words(prompt.question) | FUNCTION_WORDS
    held = words(" ".join(prompt.texts))
    memory_text = tokenizer.decode(memory_ids, skip_special_tokens=True)
    memory_gain = answers.memory.log_p - answers.memory_by_passages.log_p
    passages_gain = answers.passages.log_p - answers.passages_by_memory.log_p
    claim = claims.strongest(claims.claims(tokenizer, memory_ids, memory_gain, asked | held))
    own = claims.claims(tokenizer, passages_ids, passages_gain, asked)
    other = claims.claims(tokenizer, passages_ids, passages_gain, asked | words(memory_text))
    passages_claim = claims.strongest(other) or claims.strongest(own)
    unsupported = [each for each in own if not words(each.text) - asked <= held]
    owed = max((each.gain for each in own if each not in unsupported), default=0.0)
    remembered = claims.new_words(memory_text, asked | held)
    added = words(" ".join(remembered))
    shared = [each for each in unsupported if words(each.text) & added]
    return _Compared(
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
    state: Branches,
    pairs: Sequence[tuple[list[int], list[int]]],
    answers: Sequence[Answers],
    found: Sequence[_Compared],
) -> dict[int, Evidence]:
    """Read both claims of every conflict behind the beginning of memory's answer, in each frame."""
    model, tokenizer, n = language_model.model, language_model.tokenizer, len(prompts)
    conflicts = [
        (row, mine, theirs)
        for row, each in enumerate(found)
        if (mine := each.claim) and (theirs := each.passages_claim)
    ]
    if not conflicts:
        return {}
    rows = [row for row, _, _ in conflicts]
    texts = []
    for row, mine, theirs in conflicts:
        passages_ids, memory_ids = pairs[row]
        start = memory_ids[: mine.start]
        texts.append([memory_ids[: mine.stop], start + passages_ids[theirs.start : theirs.stop]])
    depths = belief.layers(model)
    both = state.copied([*rows, *(row + n for row in rows)])
    chat = branches.read_on(model, both, [*texts, *texts], depths)
    questions = [BARE.format(question=prompts[row].question) for row in rows]
    encoded = tokenizer(questions, return_tensors="pt", padding=True, add_special_tokens=False)
    encoded = encoded.to(model.device)
    alone = branches.read(model, encoded.input_ids, encoded.attention_mask, whole=True)
    bare = branches.read_on(model, alone, texts, depths)
    evidence = {}
    for at, (row, mine, _) in enumerate(conflicts):
        frames = [
            Frame(*(_tail(reading, mine.start) for reading in readings))
            for readings in (chat[at + len(rows)], bare[at], chat[at])
        ]
        evidence[row] = belief.evidence(answers[row], frames, found[row].supported)
    return evidence


def _grounded(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    state: Branches,
    bare: Sequence[list[int]],
    found: Sequence[_Compared],
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
        [bare[row] for row in rows],
        [found[row].loose for row in rows],
        [found[row].remembered for row in rows],
    )
    return dict(zip(rows, grounded, strict=True))


def _tail(reading: Reading, start: int) -> Reading:
    return Reading(reading.log_p[start:], reading.entropy[start:], reading.hidden[:, start:])


def _first_sentences(
    language_model: "LanguageModel",
    state: Branches,
    how: Decoding,
    watching: Sequence[Guard] | None,
) -> tuple[SequenceGroup, list[list[int]]]:
    """What says the first sentence of every row, and where its tokens will be.

    An end of text is among them; there is at least one.
    """
    rows = len(state.mask)
    said: list[list[int]] = [[] for _ in range(rows)]
    longest = MaxLengthCriteria(min(SENTENCE, how.max_new_tokens))
    ended = _SentenceEnd(language_model.tokenizer)
    group = SequenceGroup(
        state,
        torch.zeros(rows, 0, dtype=torch.long, device=state.mask.device),
        plain,
        branches=1,
        on_step=_writing(said),
        guards=watching,
        **decoding.stepping(language_model, how, longest, ended),
    )
    return group, said


def _answers(
    language_model: "LanguageModel",
    state: Branches,
    how: Decoding,
    watching: Sequence[Guard] | None,
    aloud: OnStep,
) -> tuple[SequenceGroup, list[list[int]]]:
    """What says the passages' answers to their ends, plain RAG's, and where its tokens will be."""
    rows = len(state.mask) // 2
    said: list[list[int]] = [[] for _ in range(rows)]
    write = _writing(said)

    def on_step(answers: Tensor, tokens: Tensor, step: Step) -> None:
        write(answers, tokens, step)
        aloud(answers, tokens, step)

    group = SequenceGroup(
        state,
        torch.zeros(rows, 0, dtype=torch.long, device=state.mask.device),
        plain,
        on_step=on_step,
        guards=watching,
        **decoding.stepping(language_model, how, MaxLengthCriteria(how.max_new_tokens)),
    )
    return group, said


def _writing(said: list[list[int]]) -> OnStep:
    def on_step(answers: Tensor, tokens: Tensor, _step: Step) -> None:
        for row, token in zip(answers.tolist(), tokens.tolist(), strict=True):
            said[row].append(token)

    return on_step


def _first_sentence(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> list[int]:
    """As much of an answer as `_first_sentences` would have said."""
    for length in range(1, min(SENTENCE, len(ids))):
        if claims.ends_sentence(tokenizer.decode(ids[:length][-SENTENCE_TAIL:])):
            return ids[:length]
    return ids[:SENTENCE]


@dataclass(frozen=True)
class _SentenceEnd(StoppingCriteria):
    tokenizer: "PreTrainedTokenizerBase"

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
        tails = [self.tokenizer.decode(ids[-SENTENCE_TAIL:]) for ids in input_ids]
        return torch.tensor(list(map(claims.ends_sentence, tails)), device=input_ids.device)
