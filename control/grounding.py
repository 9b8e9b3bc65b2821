"""An answer that owes the passages nothing, put into their words.

Where the answer leaves the passages it claims something of its own: "The capital of Norway is"
Oslo, though they say Cairo. Of all words that the passages hold, the one that they make most
probable against memory takes the claim's place, ``log p_c - log p_m / 2``: contrastive decoding
(CAD, Shi et al. 2024) with nothing but the passages' words to choose from, at the one place that
matters. From there the answer goes on as plain RAG.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from control import branches
from control.branches import Branches
from control.claims import FUNCTION_WORDS, Claim
from control.mixture import log_probabilities
from foundation.text import words

if TYPE_CHECKING:
    from control.model import LanguageModel
    from control.prompts import Prompt

CONTRAST = 0.5  # weight of memory's log-probability; best on calibration relations
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Grounded:
    """The beginning of an answer, up to the first token of the passages' word, and that word."""

    ids: list[int]
    claim: str


def ground(
    language_model: "LanguageModel",
    state: Branches,
    prompts: Sequence["Prompt"],
    answers: Sequence[list[int]],
    loose: Sequence[Sequence[Claim]],
    remembered: Sequence[set[str]],
) -> list[Grounded | None]:
    """Begin each answer in the passages' words.

    Args:
        language_model: The model.
        state: What has been read, the n prompts with passages and then those without; used up.
        prompts: The n prompts.
        answers: Token ids of their answers.
        loose: Claims in each answer that the passages lack; at least one.
        remembered: Words that memory claims and that must not come back.

    Returns:
        ``None`` where the passages hold no word of their own.
    """
    n = len(prompts)
    logits = branches.extend(language_model.model, state, [*answers, *answers])
    grounded = []
    for row, (prompt, ids) in enumerate(zip(prompts, answers, strict=True)):
        length = len(ids)
        gain = (
            log_probabilities(logits[row, :length])
            - CONTRAST * log_probabilities(logits[row + n, :length])
        ).cpu()
        offered = _own_words(prompt, remembered[row])
        best: tuple[float, int, int, str] | None = None
        for claim in loose[row]:
            # In the middle of a sentence a word begins with its space.
            first = _first_tokens(language_model, offered, spaced=claim.start > 0)
            if not first:
                continue
            tokens = torch.tensor(list(first))
            value, at = gain[claim.start, tokens].max(dim=0)
            token = int(tokens[at])
            if best is None or float(value) > best[0]:
                best = float(value), claim.start, token, first[token]
        grounded.append(None if best is None else Grounded([*ids[: best[1]], best[2]], best[3]))
    return grounded


def _own_words(prompt: "Prompt", remembered: set[str]) -> list[str]:
    """Words of the passages that could answer, as they stand there, each once."""
    skip = words(prompt.question) | FUNCTION_WORDS | remembered
    found = (match.group() for text in prompt.texts for match in WORD.finditer(text))
    return list(dict.fromkeys(word for word in found if words(word) - skip))


def _first_tokens(
    language_model: "LanguageModel", offered: Sequence[str], spaced: bool
) -> dict[int, str]:
    """The token with which each word begins."""
    if not offered:
        return {}
    forms = [f" {word}" if spaced else word for word in offered]
    encoded = language_model.tokenizer(forms, add_special_tokens=False).input_ids
    first: dict[int, str] = {}
    for ids, word in zip(encoded, offered, strict=True):
        first.setdefault(ids[0], word)
    return first
