"""The claims of an answer: the words that it adds to its question, and their support."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.text import normalise, words

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

# Words that carry no answer: no claim consists of them or is supported by them.
FUNCTION_WORDS = words(
    "a also an and are as at be been but by called for from had has have he her his in "
    "indeed is it its known name named not of on or she so that the their there they this "
    "to was were which who whose with "
)
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
BREAKS = re.compile(r"[.,;:!?)\"]\s*$")


@dataclass(frozen=True)
class Claim:
    """A run of words in an answer.

    Attributes:
        start: Its first token.
        stop: The token after its last one.
        text: The words.
        gain: Its log-probability in the branch that decoded it minus that in the other, in nats.
    """

    start: int
    stop: int
    text: str
    gain: float


def claims(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], gain: "Tensor", skip: set[str]
) -> list[Claim]:
    """The runs of words in an answer that are not in ``skip``.

    Args:
        tokenizer: Of the model.
        ids: The answer's tokens.
        gain: Log-probability of each token in the branch that decoded it minus that in the other,
            in nats, shape (tokens,).
        skip: Normalised words that claim nothing, such as the question's.
    """
    runs: list[list[int]] = []
    goes_on = False
    for start, stop in _words(tokenizer, ids):
        text = tokenizer.decode(ids[start:stop], skip_special_tokens=True)
        new = bool(words(text) - skip)
        if new and goes_on:
            runs[-1][1] = stop
        elif new:
            runs.append([start, stop])
        goes_on = new and not BREAKS.search(text)
    found = []
    for start, end in runs:
        stop = end
        while stop > start + 1 and not normalise(tokenizer.decode([ids[stop - 1]])):
            stop -= 1  # punctuation is no part of a claim
        text = tokenizer.decode(ids[start:stop], skip_special_tokens=True)
        found.append(Claim(start, stop, text.strip(" .,;:!?\"'()"), float(gain[start:end].sum())))
    return found


def new_words(text: str, skip: set[str]) -> list[str]:
    """The words of ``text`` that are not in ``skip``, as they are written, each once."""
    found = (match.group() for match in WORD.finditer(text))
    return list(dict.fromkeys(word for word in found if words(word) - skip))


def strongest(found: Sequence[Claim]) -> Claim | None:
    """The claim of the highest gain, if there is any."""
    return max(found, key=lambda claim: claim.gain, default=None)


def ends_sentence(text: str) -> bool:
    """Whether ``text`` ends where a sentence does; an initial such as "W." is no end."""
    return (
        text.endswith("\n")
        or re.search(r"\w{2}[\"”’)\]]*[.!?…。]+[\"”’)\]]*\s*$", text) is not None
    )


def _words(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[list[int]]:
    """Token ranges of the words, split at spaces."""
    ranges: list[list[int]] = []
    for at in range(len(ids)):
        # Beside another token: some tokenizers drop the space of the first one.
        before = tokenizer.decode(ids[max(at - 1, 0) : at])
        pair = tokenizer.decode(ids[max(at - 1, 0) : at + 1])
        if not ranges or pair[len(before) : len(before) + 1].isspace():
            ranges.append([at, at + 1])
        else:
            ranges[-1][1] = at + 1
    return ranges
