"""Finds where the passages support an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from control.answer import Answer, Source
from control.conflict.claims import FUNCTION_WORDS
from control.conflict.sources import Citation
from control.forgetting.parts import parts
from foundation.text import normalise, words

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
NEAR_BEST = 1 / 3  # share of the best sentence's words that another one needs to be marked


@dataclass(frozen=True)
class Evidence:
    """What of a passage supports an answer; each span is (first character, the one after the last).

    Attributes:
        sentences: Spans of the sentences that support it.
        words: Spans of the words in them that the answer claims.
    """

    sentences: Sequence[tuple[int, int]] = ()
    words: Sequence[tuple[int, int]] = ()


def read(answer: Answer) -> list[Source]:
    """Return the passages that the model read, in reading order."""
    return [each for each in answer.sources if each.kept]


def claimed_words(answer: Answer) -> set[str]:
    """Return the normalised words that the answer, or the passages' claim in a conflict, adds."""
    said = answer.answer if answer.tokens and not answer.abstained else ""
    if answer.verdict is not None:
        said += f" {answer.verdict.passages_say}"
    return words(said) - words(f"{answer.question} {answer.rewritten}") - FUNCTION_WORDS


def find_evidence(text: str, wanted: set[str]) -> Evidence:
    """Find the sentences of a passage that hold the wanted words.

    Args:
        text: The passage.
        wanted: Normalised words.
    """
    sentences = parts(text)
    found = [len(wanted & words(text[start:end])) for start, end in sentences]
    bar = max(1, NEAR_BEST * max(found, default=0))
    marked = [span for span, count in zip(sentences, found, strict=True) if count >= bar]
    return Evidence(
        marked,
        [
            match.span()
            for span in marked
            for match in WORD.finditer(text, *span)
            if set(normalise(match.group()).split()) & wanted
        ],
    )


def find_citations(answer: Answer) -> list[Citation]:
    """Find the passages that hold the words which each sentence of the answer claims."""
    wanted = claimed_words(answer)
    held = [(each.id, words(each.text)) for each in read(answer)]
    found = []
    for start, end in parts(answer.answer):
        own = words(answer.answer[start:end]) & wanted
        if passages := [name for name, has in held if own & has]:
            found.append(Citation(start, end, passages))
    return found
