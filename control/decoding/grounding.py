"""Grounding: an answer without support in the passages gives way to their wording.

Where the reader found what the passages claim, the sentence that claims it is the answer. Else the
answer is decoded again in their wording: where it departs from the passages it claims something of
its own: "The capital of Norway is" Oslo, though they say Cairo. The claim is replaced by the
passages' word with the highest ``log p_c - log p_m / 2``: contrastive decoding (CAD, Shi et al.
2024) restricted to the passages' words, at this one place. From there the answer is decoded as
plain RAG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control.conflict import claims
from control.conflict.claims import FUNCTION_WORDS, Claim
from control.decoding.contrastive import log_probabilities
from control.decoding.generate import stop_ids
from control.engines import branches
from control.engines.branches import DecodeState
from foundation.text import words

if TYPE_CHECKING:
    from control.engines.transformers import LanguageModel
    from control.forgetting.guard import WatchedFacts
    from control.prompts import Prompt

CONTRAST = 0.5  # weight of memory's log-probability; best on calibration relations


@dataclass(frozen=True)
class Grounded:
    """The beginning of an answer in the passages' wording.

    Attributes:
        ids: Its tokens, up to the first token of the passages' word; or all of a quoted sentence
            and an end of text.
        claim: That word, or what the sentence claims.
        banned: First tokens of the words that memory adds; not allowed in the rest.
        forced: Place of the first token that no branch chose.
    """

    ids: list[int]
    claim: str
    banned: list[int]
    forced: int


def ground(
    language_model: "LanguageModel",
    state: DecodeState,
    prompts: Sequence["Prompt"],
    answers: Sequence[list[int]],
    unsupported: Sequence[Sequence[Claim]],
    remembered: Sequence[Sequence[str]],
) -> list[Grounded | None]:
    """Begin each answer in the passages' wording.

    Args:
        language_model: The model.
        state: The n prompts with passages and then those without; used up.
        prompts: The n prompts.
        answers: Token ids of their answers.
        unsupported: Claims in each answer that the passages lack; at least one.
        remembered: Words that memory adds; not allowed in the rest of the answer.

    Returns:
        The beginnings; ``None`` where the passages hold no word beyond question and memory.
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
            for claim in unsupported[row]
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
        grounded.append(Grounded([*ids[:start], token], word, banned, start))
    return grounded


def quoted(
    language_model: "LanguageModel", prompt: "Prompt", longest: int, watch: "WatchedFacts | None"
) -> Grounded | None:
    """The sentence of the passages that answers, as an answer.

    Args:
        language_model: The model.
        prompt: With its quote.
        longest: Tokens of an answer at most.
        watch: The facts that the answer must not state.

    Returns:
        ``None`` where there is no quote, it is too long, or it states such a fact.
    """
    quote, ends = prompt.quote, stop_ids(language_model.model)
    if quote is None or not ends or (watch and watch.completed("", quote.text)):
        return None
    ids = language_model.tokenizer(quote.text, add_special_tokens=False).input_ids
    return Grounded([*ids, min(ends)], quote.claim, [], 0) if len(ids) <= longest else None


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
