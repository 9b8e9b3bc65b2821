"""``llama-server`` of llama.cpp, which also runs embedded (`control.engines.llama_cpp`).

Scores are those of tokens forced by a grammar of token ids, one request for each continuation.
"""

import asyncio
import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, cast

from cachetools import LRUCache

from control.engines import base
from control.engines.base import GenerationRequest, Message, ScoreRequest, Token
from control.engines.openai_server import (
    NO_THINKING,
    WINDOW_UNKNOWN,
    Http,
    OpenAIServer,
    content,
    log_p,
    token_of,
)
from foundation.errors import ModelError

FORCED = 1e4  # bias of a token that is to be chosen, whatever the others
UNFILTERED = {"top_k": 0, "min_p": 0.0}  # llama.cpp's own sampling filters, off
TEXTS = 10_000  # whose tokens are remembered


async def opened(http: Http, model: dict[str, Any]) -> "LlamaServer | None":
    """The server as a `LlamaServer`, if it is one.

    Raises:
        ModelError: It is one, and its model has no chat template.
    """
    properties = await http.optional("/props")
    if not properties or "default_generation_settings" not in properties:
        return None
    return LlamaServer(http, model, properties)


class LlamaServer(OpenAIServer):
    """``llama-server`` of llama.cpp."""

    def __init__(self, http: Http, model: dict[str, Any], properties: dict[str, Any]) -> None:
        """Take what ``/v1/models`` and ``/props`` told."""
        metadata = model.get("meta") or {}
        window = properties["default_generation_settings"].get("n_ctx") or WINDOW_UNKNOWN
        window = min(window, metadata.get("n_ctx_train") or window)
        name = str(model["id"])
        if not properties.get("chat_template"):
            raise http.failure(f"{name} has no chat template; give a model tuned for chats")
        told = [metadata.get(key) for key in ("n_params", "size", "n_vocab", "n_embd")]
        super().__init__(http, name, window, os.path.basename(name), *told)
        self._texts: LRUCache[str, list[int]] = LRUCache(TEXTS)  # not ASCII, and their tokens

    async def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template."""
        body = {
            "messages": list(messages),
            "add_generation_prompt": True,
            "chat_template_kwargs": NO_THINKING,
        }
        return str((await self.http.post("/apply-template", body))["prompt"])

    async def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text."""
        return list(map(_tokens, await asyncio.gather(*map(self._tokenize, texts))))

    async def _tokenize(self, text: str, special: bool = True) -> list[dict[str, Any]]:
        body = {"content": text, "with_pieces": True, "parse_special": special}
        return cast("list[dict[str, Any]]", (await self.http.post("/tokenize", body))["tokens"])

    async def _is_control(self, mark: str) -> bool:
        as_control, as_text = await asyncio.gather(
            self._tokenize(mark), self._tokenize(mark, special=False)
        )
        return as_control != as_text

    async def _body(self, request: GenerationRequest) -> dict[str, Any]:
        body = {
            "prompt": _with_ids(request.prompt.text, request.prefix),
            "n_probs": base.CANDIDATES,
            "logit_bias": [[token, False] for token in request.banned],
            "cache_prompt": True,
            **UNFILTERED,
        }
        if request.json_schema:
            body["json_schema"] = json.loads(request.json_schema)
        return body

    async def _read(self, choice: dict[str, Any]) -> list[Token]:
        written, told = choice.get("text") or "", content(choice)
        if not written:  # the end of text is a token without any
            return []
        if len(told) == 1 and await self._is_token(written, told[0]["id"]):
            return [token_of(told[0], written)]
        # Tokens before it were parts of its first character, and are not told.
        return [Token(written, log_p=log_p(told[-1].get("logprob")) if told else 0.0)]

    async def _is_token(self, text: str, token: int) -> bool:
        """Whether a text is just this token."""
        if text.isascii():
            return True
        if text not in self._texts:
            told = await self._tokenize(text, special=False)
            self._texts[text] = [each["id"] for each in told]
        return self._texts[text] == [token]

    async def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of tokens forced by a grammar.

        Requests with the same prompt follow each other, since the prompt is cached in one place;
        different prompts are scored at once.
        """
        chains: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            chains.setdefault(request.prompt.text, []).append(place)
        found: dict[int, list[float]] = {}

        async def follow(places: Sequence[int]) -> None:
            for place in places:
                found[place] = await self._forced(requests[place])

        await asyncio.gather(*map(follow, chains.values()))
        return [found[place] for place in range(len(requests))]

    async def _forced(self, request: ScoreRequest) -> list[float]:
        """One request for each run of tokens that hold whole characters.

        llama.cpp gives no log-probability of a token that ends within a character: it counts as
        certain.
        """
        given = request.continuation
        if any(token.id is None for token in given):
            told = await self._tokenize(base.text(given), special=False)
            again = await self._forced(replace(request, continuation=_tokens(told)))
            return _aligned(again, [_size(each["piece"]) for each in told], given)
        scores, start = list[float](), 0
        while start < len(given):
            stop, is_whole = start + 1, _is_whole(given[start])
            while is_whole and stop < len(given) and _is_whole(given[stop]):
                stop += 1
            try:
                scores += await self._scored(request, start, stop, by_bias=not is_whole)
            except ModelError:  # llama.cpp loses its place in the grammar
                for place in range(start, stop):
                    scores += await self._scored(request, place, place + 1, by_bias=True)
            start = stop
        return scores

    async def _scored(
        self, request: ScoreRequest, start: int, stop: int, by_bias: bool
    ) -> list[float]:
        """Scores of the tokens from ``start`` up to ``stop``, forced by a grammar of ids.

        One token alone may be forced by a bias instead.
        """
        before, tokens = request.continuation[:start], request.continuation[start:stop]
        if by_bias:
            forced: dict[str, Any] = {"logit_bias": [[tokens[0].id, FORCED]]}
        else:
            forced = {"grammar": "root ::= " + " ".join(f"<[{token.id}]>" for token in tokens)}
        choice = await self._completion(
            prompt=_with_ids(request.prompt.text, (*request.prefix, *before)),
            max_tokens=len(tokens),
            n_probs=1,
            cache_prompt=True,
            **forced,
        )
        told = content(choice)
        if not told and by_bias:
            return [0.0]
        if [each["id"] for each in told] != [token.id for token in tokens]:
            raise self.http.failure("the server scored other tokens")
        return self._numbers([each.get("logprob") for each in told])


def _is_whole(token: Token) -> bool:
    """Whether a token holds whole characters."""
    return bool(token.text) and "\N{REPLACEMENT CHARACTER}" not in token.text


def _aligned(scores: Sequence[float], sizes: Sequence[int], given: Sequence[Token]) -> list[float]:
    """Scores of the given tokens, from those of other tokens of the same text.

    A token's score goes to the given token in which it begins.

    Args:
        scores: Of the other tokens.
        sizes: Of the other tokens, in bytes.
        given: The tokens.
    """
    ends = list(accumulate(len(token.text.encode()) for token in given))
    found, at = [0.0] * len(given), 0
    for score, size in zip(scores, sizes, strict=True):
        found[min(bisect_right(ends, at), len(given) - 1)] += score
        at += size
    return found


def _with_ids(text: str, prefix: Sequence[Token]) -> list[str | int]:
    """A prompt and the ids that follow it, or their text where some ids are not known."""
    ids = [token.id for token in prefix if token.id is not None]
    return [text, *ids] if len(ids) == len(prefix) else [text + base.text(prefix)]


def _tokens(told: Sequence[dict[str, Any]]) -> tuple[Token, ...]:
    """The tokens that ``/tokenize`` told."""
    return tuple(Token(_text(each["piece"]), each["id"]) for each in told)


def _text(piece: str | list[int]) -> str:
    """A piece that ends within a character is told as bytes."""
    return piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace")


def _size(piece: str | list[int]) -> int:
    """In bytes."""
    return len(piece.encode()) if isinstance(piece, str) else len(piece)
