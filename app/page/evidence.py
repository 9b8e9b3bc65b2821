"""Finds where the passages support an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from control.answer import Answer
from control.conflict.claims import FUNCTION_WORDS
from control.forgetting.parts import parts
from foundation.text import normalise, words

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
NEAR_BEST = 1 / 3  # share of the best sentence's words that another one needs to be marked


@dataclass(frozen=True)
class TextSpan:
    """A span of a passage.

    Attributes:
        text: Of the span.
        claimed: Whether it is a word of the answer's claim.
    """

    text: str
    claimed: bool


@dataclass(frozen=True)
class Sentence:
    """A sentence of a passage.

    Attributes:
        pieces: Its spans, in order.
        marked: Whether it supports the answer.
    """

    pieces: tuple[TextSpan, ...]
    marked: bool


def claimed_words(answer: Answer) -> set[str]:
    """Return the normalised words that the answer, or the passages' claim in a conflict, adds."""
    said = answer.answer if answer.tokens else ""
    if answer.verdict is not None:
        said += f" {answer.verdict.passages_say}"
    return words(said) - words(f"{answer.question} {answer.rewritten}") - FUNCTION_WORDS


def mark_sentences(text: str, wanted: set[str]) -> list[Sentence]:
    """Split a passage into sentences, and mark those that hold the wanted words.

    Args:
        text: The passage.
        wanted: Normalised words.
    """
    sentences = [text[start:end] for start, end in parts(text)]
    found = [len(wanted & words(sentence)) for sentence in sentences]
    bar = max(1, NEAR_BEST * max(found, default=0))
    return [
        Sentence(_pieces(sentence, wanted), True)
        if count >= bar
        else Sentence((TextSpan(sentence, False),), False)
        for sentence, count in zip(sentences, found, strict=True)
    ]


def find_citations(answer: Answer, texts: Sequence[str]) -> dict[int, list[int]]:
    """Find the passages that support each sentence of the answer.

    Args:
        answer: The answer.
        texts: The passages that were read, in order.

    Returns:
        Numbers of passages, from 1, by the number of the token that ends the sentence.
    """
    wanted, held = claimed_words(answer), [words(text) for text in texts]
    ends, position = [], 0
    for token in answer.tokens:
        position += len(token.text)
        ends.append(position)
    said = "".join(token.text for token in answer.tokens)
    found = {}
    for start, end in parts(said):
        own = words(said[start:end]) & wanted
        numbers = [number for number, has in enumerate(held, start=1) if own & has]
        if numbers:
            last = start + len(said[start:end].rstrip())  # the blank is the next sentence's
            found[next(at for at, stop in enumerate(ends) if stop >= last)] = numbers
    return found


def _pieces(sentence: str, wanted: set[str]) -> tuple[TextSpan, ...]:
    pieces, last = [], 0
    for match in WORD.finditer(sentence):
        if set(normalise(match.group()).split()) & wanted:
            pieces += [
                TextSpan(sentence[last : match.start()], False),
                TextSpan(match.group(), True),
            ]
            last = match.end()
    pieces.append(TextSpan(sentence[last:], False))
    return tuple(piece for piece in pieces if piece.text)
