"""How likely a passage answers a question: as the reader finds, less what the passage lacks.

An encoder takes one thing for another of the same kind: of "The capital of Norway is Oslo." it
claims Oslo for Peru. A passage that lacks names which the question gives is less likely about what
is asked.
"""

import math
import re

from foundation.text import FUNCTION_WORDS, normalise

NAME = re.compile(r"(?<=\s)[^\W\d_a-z][\w'’-]*")  # not the first word, which is always so written
STEM = 6  # letters that forms of a name have in common
LEAST_BEGUN = 3  # letters of an abbreviation
# Log-odds that a passage loses which lacks all names, of those that lack a share that share. Of 420
# questions to held-out documents in which a name was replaced, what is answered and what is not is
# told apart with an AUROC of 0.89 instead of 0.76, in 416 to texts about several things of 0.88
# instead of 0.85; in 420 to documents of 0.89 instead of 0.90, and over 845 questions to the five
# most similar documents of 0.89 as before. With 10 these four are 0.93, 0.89, 0.88 and 0.88.
LACKED = 5.0
SUREST = 0.999  # that a reader counts as about a passage which lacks a name


def probability(question: str, passage: str, answers: float) -> float:
    """How likely a passage answers a question, in [0, 1].

    Args:
        question: The question.
        passage: What is read, with its title.
        answers: The reader's probability.
    """
    lacked = _share_lacked(question, passage)
    if not lacked:
        return answers
    answers = min(answers, SUREST)
    kept = answers * math.exp(-LACKED * lacked)
    return kept / (kept + 1 - answers)


def _share_lacked(question: str, passage: str) -> float:
    """The share of the question's names that a passage lacks, in [0, 1]; 0 where it gives none."""
    given = {word for name in NAME.findall(question) for word in normalise(name).split()}
    names = {word for word in given - FUNCTION_WORDS if len(word) > 1}  # no "s" of "Anna's"
    held = normalise(passage)
    together = held.replace(" ", "")
    begun = [word for word in held.split() if len(word) >= LEAST_BEGUN]
    lacked = [
        name
        for name in names
        if name[:STEM] not in together  # "HX200" is held by "HX-200", "St" by "Street"
        and not any(map(name.startswith, begun))  # "Professor" by "Prof."
    ]
    return len(lacked) / max(1, len(names))
