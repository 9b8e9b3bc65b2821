"""What one side of a question says while the other looks on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import MaxLengthCriteria, StoppingCriteria

from control.conflict import claims
from control.decoding import generate
from control.decoding.generate import Decoding
from control.decoding.rules import MixedStep, plain
from control.engines.batch import OnStep, SequenceGroup
from control.engines.branches import DecodeState, TokenScores
from control.forgetting.guard import LeakGuard

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from control.engines.transformers import LanguageModel

SENTENCE = 32  # tokens; longest beginning that is compared
SENTENCE_TAIL = 8  # tokens that show whether a sentence ends


@dataclass(frozen=True)
class Draft:
    """What one side said.

    Attributes:
        ids: Its tokens.
        own: What the side itself thought of them.
        by_other: What the other side thought of them.
    """

    ids: list[int]
    own: TokenScores
    by_other: TokenScores

    @property
    def gain(self) -> Tensor:
        """How much more probable each token was to the side itself, in nats, shape (tokens,)."""
        return self.own.log_p - self.by_other.log_p


@dataclass(frozen=True)
class DraftRecorder:
    """What one side of n questions says, token by token.

    Attributes:
        ids: Tokens of each, an end of text included.
        seen: For each token its log-probability and the entropy before it, in nats: to the side
            itself, then to the other.
    """

    ids: list[list[int]]
    seen: list[list[list[float]]]

    @classmethod
    def nothing(cls, n: int) -> "DraftRecorder":
        """Of n questions, as long as nothing is said."""
        return cls([[] for _ in range(n)], [[] for _ in range(n)])

    def write(self, answers: Tensor, tokens: Tensor, step: MixedStep) -> None:
        """Take in a step."""
        both = ((step.log_p_c, step.entropy_context), (step.log_p_m, step.entropy_memory))
        columns = [
            column
            for log_p, entropy in both
            for column in (log_p.gather(1, tokens[:, None])[:, 0], entropy)
        ]
        seen = torch.stack(columns, dim=1).tolist()
        for row, token, numbers in zip(answers.tolist(), tokens.tolist(), seen, strict=True):
            self.ids[row].append(token)
            self.seen[row].append(numbers)

    def first_sentences(self, tokenizer: "PreTrainedTokenizerBase") -> "DraftRecorder":
        """As much of each as is compared."""
        lengths = [_first_sentence(tokenizer, ids) for ids in self.ids]
        return DraftRecorder(
            [ids[:length] for ids, length in zip(self.ids, lengths, strict=True)],
            [seen[:length] for seen, length in zip(self.seen, lengths, strict=True)],
        )

    def heard(self, ends: set[int]) -> list[Draft]:
        """Each without its end of text, unless there is nothing else; no hidden states."""
        heard = []
        for ids, seen in zip(self.ids, self.seen, strict=True):
            kept = [at for at, token in enumerate(ids) if token not in ends] or [*range(len(ids))]
            numbers = torch.tensor([seen[at] for at in kept]).T
            none = numbers.new_zeros(0)
            own, other = (TokenScores(log_p, entropy, none) for log_p, entropy in numbers.chunk(2))
            heard.append(Draft([ids[at] for at in kept], own, other))
        return heard


def saying(
    language_model: "LanguageModel",
    state: DecodeState,
    how: Decoding,
    said: DraftRecorder,
    watching: Sequence[LeakGuard] | None,
    aloud: OnStep | None = None,
) -> SequenceGroup:
    """What decodes the words of one side, while the other looks on.

    Args:
        language_model: The model.
        state: The n rows of the side, then those of the other.
        how: Sampling and length.
        said: Where the tokens will be.
        watching: Guards of the n.
        aloud: Told every token, of whole answers then instead of first sentences.
    """

    def on_step(answers: Tensor, tokens: Tensor, step: MixedStep) -> None:
        said.write(answers, tokens, step)
        if aloud is not None:
            aloud(answers, tokens, step)

    ends = [MaxLengthCriteria(how.max_new_tokens)]
    if aloud is None:
        ends = [
            MaxLengthCriteria(min(SENTENCE, how.max_new_tokens)),
            _SentenceEnd(language_model.tokenizer),
        ]
    return SequenceGroup(
        state,
        torch.zeros(len(said.ids), 0, dtype=torch.long, device=state.mask.device),
        plain,
        on_step=on_step,
        guards=watching,
        **generate.generation_kwargs(language_model, how, *ends),
    )


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
