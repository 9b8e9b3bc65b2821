"""An answer that owes the passages nothing, put into their words.

Where the answer leaves the passages it claims something of its own: "The capital of Norway is"
Oslo, though they say Cairo. Of all words that the passages hold, the one that they make most
probable against memory takes the claim's place, ``log p_c - log p_m / 2``: contrastive decoding
(CAD, Shi et al. 2024) with nothing but the passages' words to choose from, at the one place that
matters. From there the answer goes on as plain RAG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control.conflict import claims
from control.conflict.claims import FUNCTION_WORDS, Claim
from control.decoding.contrastive import log_probabilities
from control.engines import branches
from control.engines.branches import DecodeState
from foundation.text import words

if TYPE_CHECKING:
    from control.engines.transformers import LanguageModel
    from control.prompts import Prompt

CONTRAST = 0.5  # weight of memory's log-probability; best on calibration relations


@dataclass(frozen=True)
class Grounded:
    """An answer in the passages' words.

    Attributes:
        ids: Its beginning, up to the first token of the passages' word.
        claim: That word.
        banned: Tokens with which the words that memory adds begin; they must not come back.
    """

    ids: list[int]
    claim: str
    banned: list[int]


def ground(
    language_model: "LanguageModel",
    state: DecodeState,
    prompts: Sequence["Prompt"],
    answers: Sequence[list[int]],
    loose: Sequence[Sequence[Claim]],
    remembered: Sequence[Sequence[str]],
) -> list[Grounded | None]:
    """Begin each answer in the passages' words.

    Args:
        language_model: The model.
        state: What has been read, the n prompts with passages and then those without; used up.
        prompts: The n prompts.
        answers: Token ids of their answers.
        loose: Claims in each answer that the passages lack; at least one.
        remembered: Words that memory adds; they must not come back.

    Returns:
        ``None`` where the passages hold no word of their own.
    """
    n = len(prompts)
    logits = branches.extend(language_model.model, state, [*answers, *answers])
    grounded: list[Grounded | None] = []
    for row, (prompt, ids) in enumerate(zip(prompts, answers, strict=True)):
        log_p_c, log_p_m = (log_probabilities(logits[at, : len(ids)]) for at in (row, row + n))
        gain = (log_p_c - CONTRAST * log_p_m).cpu()
        skip = words(" ".join([prompt.question, *remembered[row]])) | FUNCTION_WORDS
        offered = claims.new_words(" ".join(prompt.texts), skip)
        inside, first = (_first_tokens(language_model, offered, spaced) for spaced in (True, False))
        options = [
            (float(gain[claim.start, token]), claim.start, token, word)
            for claim in loose[row]
            # In the middle of a sentence a word begins with its space.
            for token, word in (inside if claim.start else first).items()
        ]
        if not options:
            grounded.append(None)
            continue
        _, start, token, word = max(options)
        unwanted = {
            token
            for spaced in (True, False)
            for token in _first_tokens(language_model, remembered[row], spaced)
        }
        banned = sorted(unwanted - inside.keys() - first.keys())
        grounded.append(Grounded([*ids[:start], token], word, banned))
    return grounded


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
