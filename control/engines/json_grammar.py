"""Which tokens continue a JSON text by its schema (the library llguidance).

It compiles JSON Schema and tells, at each token, which ones may follow. Models of this process are
held to it; llama.cpp and other servers have a grammar of their own.
"""

from collections.abc import Set
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foundation.errors import InputError

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from llguidance._lib import JsonCompileOptions
    from transformers import PreTrainedTokenizerBase

LONGEST = 20_000  # characters of a schema
LONGEST_REASON = 200
# As models have read most JSON; without blanks a small one loses its way at the quotation marks.
BLANKS: "JsonCompileOptions" = {
    "whitespace_flexible": False,
    "key_separator": ": ",
    "item_separator": ", ",
}


def check_schema(schema: str) -> None:
    """Refuse what is no JSON Schema by which a text can be written.

    Raises:
        InputError: It is too long or no such schema.
    """
    from llguidance import LLMatcher

    if len(schema) > LONGEST:
        raise InputError(
            f"the JSON schema has {len(schema):,} characters, the limit is {LONGEST:,}; shorten it"
        )
    try:
        fault = LLMatcher.validate_grammar(_grammar(schema))
    except ValueError as error:
        fault = str(error)
    if fault:
        reason = " ".join(fault.split())[:LONGEST_REASON]
        raise InputError(f"the JSON schema cannot be followed ({reason}); change it")


def _grammar(schema: str) -> str:
    """A JSON Schema as a grammar of llguidance; one line, with blanks as `json.dumps` has them."""
    from llguidance import LLMatcher

    return str(LLMatcher.grammar_from_json_schema(schema, defaults=BLANKS))


@lru_cache(maxsize=2)  # a second for each
def _tokens(tokenizer: "PreTrainedTokenizerBase", ends: tuple[int, ...]) -> "LLTokenizer":
    from llguidance import hf

    try:
        return hf.from_tokenizer(tokenizer, eos_token=list(ends))
    except ValueError as error:
        raise InputError(
            f"this model's tokenizer cannot follow a JSON schema ({error}); take another model, or "
            "ask for text"
        ) from error


class JsonGrammar:
    """A JSON text under way."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: Set[int], schema: str) -> None:
        """Compile a schema.

        Args:
            tokenizer: The model's.
            ends: Ids of the tokens that end a text.
            schema: JSON Schema.

        Raises:
            InputError: The tokenizer does not tell its tokens.
        """
        from llguidance import LLMatcher

        self._matcher = LLMatcher(_tokens(tokenizer, tuple(sorted(ends))), _grammar(schema))

    @property
    def ended(self) -> bool:
        """Whether the text is whole and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self, size: int) -> Tensor:
        """Whether each token of a vocabulary may come next, shape (size,)."""
        told = np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8) > 0
        mask = torch.zeros(size, dtype=torch.bool)
        mask[: len(told)] = torch.from_numpy(told)[:size]
        return mask

    def take(self, token: int) -> None:
        """Go on by a token."""
        self._matcher.consume_token(token)
