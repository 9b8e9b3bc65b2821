"""Drafts: how the answers of passages and memory begin, and where they differ.

The context branch and the memory branch each decode their first sentence; in the same forward
passes, each draft's tokens are scored by the other branch too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import MaxLengthCriteria, StoppingCriteria

from control.conflict import claims, probe
from control.conflict.claims import ClaimComparison, DecodedTokens, DraftClaims, DraftText
from control.conflict.probe import ProbeFeatures
from control.conflict.reader import read_answers
from control.decoding import generate, grounding
from control.decoding.generate import Decoding, stop_ids
from control.decoding.grounding import Grounded
from control.decoding.rules import MixedStep, plain
from control.engines import batch
from control.engines.batch import OnStep, SequenceGroup
from control.engines.branches import DecodeState, TokenScores
from control.forgetting.guard import LeakGuard, WatchedFacts, guards

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from control.conflict.reader import AnswerReader, Reading
    from control.engines.transformers import LanguageModel
    from control.prompts import Prompt

SENTENCE = 32  # tokens; longest draft that is compared
SENTENCE_TAIL = 8  # tokens that show whether a sentence ends
BARE = "Question: {question}\nAnswer:"
LONGEST_BARE = 256  # tokens of that text, the last; all texts are padded to the longest


@dataclass(frozen=True)
class Draft(DecodedTokens):
    """The first sentence of one branch's answer.

    Attributes:
        own: Scores of its tokens in the branch itself.
        by_other: Their scores in the other branch.
    """

    own: TokenScores
    by_other: TokenScores

    @property
    def gain(self) -> list[float]:
        """Log-probability of each token in its own branch minus that in the other, in nats."""
        gain: list[float] = (self.own.log_p - self.by_other.log_p).tolist()
        return gain


@dataclass(frozen=True)
class DraftRecorder:
    """The drafts of one branch for n questions, token by token.

    Attributes:
        ids: Tokens of each, an end of text included.
        scores: For each token its log-probability and the entropy before it, in nats: in the branch
            itself, then in the other one.
    """

    ids: list[list[int]]
    scores: list[list[list[float]]]

    @classmethod
    def empty(cls, n: int) -> "DraftRecorder":
        """For n questions, without tokens."""
        return cls([[] for _ in range(n)], [[] for _ in range(n)])

    def write(self, answers: Tensor, tokens: Tensor, step: MixedStep) -> None:
        """Record a step."""
        both = ((step.log_p_c, step.entropy_context), (step.log_p_m, step.entropy_memory))
        columns = [
            column
            for log_p, entropy in both
            for column in (log_p.gather(1, tokens[:, None])[:, 0], entropy)
        ]
        table = torch.stack(columns, dim=1).tolist()
        for row, token, numbers in zip(answers.tolist(), tokens.tolist(), table, strict=True):
            self.ids[row].append(token)
            self.scores[row].append(numbers)

    def first_sentences(self, tokenizer: "PreTrainedTokenizerBase") -> "DraftRecorder":
        """The part of each that is compared."""
        lengths = [_first_sentence(tokenizer, ids) for ids in self.ids]
        return DraftRecorder(
            [ids[:length] for ids, length in zip(self.ids, lengths, strict=True)],
            [scores[:length] for scores, length in zip(self.scores, lengths, strict=True)],
        )

    def drafts(self, tokenizer: "PreTrainedTokenizerBase", ends: set[int]) -> list[Draft]:
        """Each without its end of text, unless there is nothing else; no hidden states."""
        found = []
        for ids, scores in zip(self.ids, self.scores, strict=True):
            kept = [at for at, token in enumerate(ids) if token not in ends] or [*range(len(ids))]
            numbers = torch.tensor([scores[at] for at in kept]).T
            none = numbers.new_zeros(0)
            own, other = (TokenScores(log_p, entropy, none) for log_p, entropy in numbers.chunk(2))
            found.append(Draft(tokenizer, [ids[at] for at in kept], own, other))
        return found


@dataclass(frozen=True, kw_only=True)
class DraftComparison(DraftClaims):
    """The drafts of one question and what they claim.

    Attributes:
        passages: Token ids of the draft with the passages, an end of text included.
        memory: The same of the draft from memory.
        grounded: How the answer begins when it is restricted to the passages' wording, if it can be
            and they lack what it says, or it says nothing of what they claim.
    """

    passages: list[int]
    memory: list[int]
    grounded: Grounded | None

    @property
    def passages_say(self) -> str:
        """What the passages claim, even where the draft states something else."""
        return self.grounded.claim if self.grounded else super().passages_say

    @property
    def unsupported(self) -> bool:
        """Whether the answer has no support in the passages, and could be put into their words."""
        return super().unsupported and self.grounded is not None


@dataclass(frozen=True)
class DraftBatch:
    """Questions with both drafts decoded and compared.

    Attributes:
        language_model: The model.
        prompts: The n questions.
        decoding: Sampling and length.
        state: The prompts that were read: the n with passages, then those without.
        comparisons: One for each question.
        guards: Of the n drafts with passages, then of those without.
    """

    language_model: "LanguageModel"
    prompts: Sequence["Prompt"]
    decoding: Decoding
    state: DecodeState
    comparisons: list[DraftComparison]
    guards: list[LeakGuard] | None = None


def compare(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    decoding: Decoding,
    watches: Sequence[WatchedFacts] | None = None,
    on_step: OnStep | None = None,
    reader: "AnswerReader | None" = None,
) -> DraftBatch:
    """Read all prompts, decode both drafts of each question within its guard, and compare them.

    Args:
        language_model: The model.
        prompts: The n questions.
        decoding: Sampling and length.
        watches: The facts that the answer to each prompt must not state.
        on_step: Called with every step of the answers with the passages, which are then decoded to
            their ends: for answers that stand whatever the comparison shows.
        reader: Finds the claims in the drafts; without it, the words that they add count.
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
        passages, memory = DraftRecorder.empty(n), DraftRecorder.empty(n)
        batch.decode(
            model,
            _draft_group(language_model, state.copied(), decoding, passages, ours, on_step),
            _draft_group(language_model, state.copied(memory_first), decoding, memory, theirs),
        )
        if on_step is not None:
            passages = passages.first_sentences(tokenizer)
        comparisons = _compare(
            language_model, prompts, state, passages, memory, reader, decoding, watches
        )
    return DraftBatch(language_model, prompts, decoding, state, comparisons, watching)


def _draft_group(
    language_model: "LanguageModel",
    state: DecodeState,
    decoding: Decoding,
    recorder: DraftRecorder,
    guards: Sequence[LeakGuard] | None,
    on_step: OnStep | None = None,
) -> SequenceGroup:
    """The drafts of one branch, to be decoded.

    Args:
        language_model: The model.
        state: The n rows of the branch, then those of the other.
        decoding: Sampling and length.
        recorder: Records the tokens.
        guards: Of the n.
        on_step: Called with every step, of whole answers then instead of first sentences.
    """

    def record(answers: Tensor, tokens: Tensor, step: MixedStep) -> None:
        recorder.write(answers, tokens, step)
        if on_step is not None:
            on_step(answers, tokens, step)

    ends = [MaxLengthCriteria(decoding.max_new_tokens)]
    if on_step is None:
        ends = [
            MaxLengthCriteria(min(SENTENCE, decoding.max_new_tokens)),
            _SentenceEnd(language_model.tokenizer),
        ]
    return SequenceGroup(
        state,
        torch.zeros(len(recorder.ids), 0, dtype=torch.long, device=state.mask.device),
        plain,
        on_step=record,
        guards=guards,
        **generate.generation_kwargs(language_model, decoding, *ends),
    )


def _compare(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    state: DecodeState,
    passages: DraftRecorder,
    memory: DraftRecorder,
    reader: "AnswerReader | None",
    decoding: Decoding,
    watches: Sequence[WatchedFacts] | None,
) -> list[DraftComparison]:
    """Compare both drafts of every question; further passes only where they differ."""
    tokenizer, ends = language_model.tokenizer, stop_ids(language_model.model)
    both = (recorder.drafts(tokenizer, ends) for recorder in (passages, memory))
    pairs = list(zip(*both, strict=True))
    found = [
        claims.compare(prompt, ours, theirs, theirs.own.log_p.tolist(), read)
        for prompt, (ours, theirs), read in zip(
            prompts, pairs, read_drafts(reader, prompts, pairs), strict=True
        )
    ]
    features = _probe_features(language_model, prompts, state, pairs, found)
    quotes = {
        row: grounding.quoted(language_model, prompt, decoding.max_new_tokens, watch)
        for row, (prompt, watch) in enumerate(zip(prompts, watches or repeat(None), strict=False))
        if found[row].unsupported or found[row].misread
    }
    left = [row for row, quote in quotes.items() if quote is None and found[row].unsupported]
    grounded = dict(quotes)
    if left:
        begun = grounding.ground(
            language_model,
            state.copied([*left, *(row + len(prompts) for row in left)]),
            [prompts[row] for row in left],
            [pairs[row][0].ids for row in left],
            [found[row].unsupported for row in left],
            [found[row].remembered for row in left],
        )
        grounded |= zip(left, begun, strict=True)
    return [
        DraftComparison(
            found=each,
            features=features.get(row),
            misread=each.misread and quotes[row] is not None,
            passages=passages.ids[row],
            memory=memory.ids[row],
            grounded=grounded.get(row),
        )
        for row, each in enumerate(found)
    ]


def read_drafts(
    reader: "AnswerReader | None",
    prompts: Sequence["Prompt"],
    drafts: Sequence[tuple[DraftText, DraftText]],
) -> "Sequence[tuple[Reading, Reading] | None]":
    """What the reader finds in both drafts of each question; ``None`` without a reader.

    Args:
        reader: The reader.
        prompts: The questions; nothing is read where there are no passages.
        drafts: The draft with the passages, and memory's.
    """
    if reader is None:
        return [None] * len(prompts)
    places = [place for place, prompt in enumerate(prompts) if prompt.texts]
    asked = [
        (prompts[place].question, draft.text(0, len(draft)))
        for place in places
        for draft in drafts[place]
    ]
    found = iter(read_answers(reader, asked))
    by_place = {place: (next(found), next(found)) for place in places}
    return [by_place.get(place) for place in range(len(prompts))]


def _probe_features(
    language_model: "LanguageModel",
    prompts: Sequence["Prompt"],
    state: DecodeState,
    pairs: Sequence[tuple[Draft, Draft]],
    found: Sequence[ClaimComparison],
) -> dict[int, ProbeFeatures]:
    """Score both claims of every conflict behind the beginning of memory's draft, in each frame.

    All of it in one pass: after question and passages, after the question alone, and in a bare
    text, which follows nothing. Each draft is read once more for its hidden states.
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
    bare = [ids[-LONGEST_BARE:] for ids in bare]
    after_passages, alone, plainly = [], [], []  # the texts to score in each frame
    for (row, mine, theirs), question in zip(conflicts, bare, strict=True):
        passages, memory = pairs[row]
        start = memory.ids[: mine.start]
        both = [memory.ids[: mine.stop], start + passages.ids[theirs.start : theirs.stop]]
        after_passages.append([*both, passages.ids])
        alone.append([*both, memory.ids])
        plainly.append([question + text for text in both])
    scores = batch.read_on(
        model,
        state.copied([*rows, *(row + n for row in rows), *rows]).without(range(2 * len(rows))),
        [*after_passages, *alone, *plainly],
        probe.layers(model),
    )
    features = {}
    for at, (row, mine, _) in enumerate(conflicts):
        with_passages, without, bare_text = (scores[at + each * len(rows)] for each in range(3))
        passages, memory = pairs[row]
        frames = [
            (own.part(mine.start + before), other.part(mine.start + before))
            for (own, other, *_), before in (
                (without, 0),
                (bare_text, len(bare[at])),
                (with_passages, 0),
            )
        ]
        features[row] = probe.features(
            with_passages[2],
            passages.by_other,
            without[2],
            memory.by_other,
            frames,
            found[row].supported,
        )
    return features


def _first_sentence(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> int:
    """How many tokens of an answer are its first sentence."""
    for length in range(1, min(SENTENCE, len(ids))):
        if claims.ends_sentence(tokenizer.decode(ids[:length][-SENTENCE_TAIL:])):
            return length
    return min(SENTENCE, len(ids))


@dataclass(frozen=True)
class _SentenceEnd(StoppingCriteria):
    tokenizer: "PreTrainedTokenizerBase"

    def __call__(self, input_ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
        tails = [self.tokenizer.decode(ids[-SENTENCE_TAIL:]) for ids in input_ids]
        return torch.tensor(list(map(claims.ends_sentence, tails)), device=input_ids.device)
