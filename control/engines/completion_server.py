"""vLLM, and SGLang where it offers the same: token ids in, log-probabilities of the prompt out.

Scores come with the prompt (``echo`` and ``logprobs``).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from cachetools import LRUCache

from control.engines import base
from control.engines.base import EnginePrompt, GenerationRequest, Message, ScoreRequest, Token
from control.engines.openai_server import (
    NO_THINKING,
    WINDOW_UNKNOWN,
    Http,
    OpenAIServer,
    candidates,
    log_p,
    response_format,
)
from foundation.errors import ModelError, UnavailableError

NEVER = -100.0  # bias of a banned token, the least that OpenAI's protocol allows
MOST_TOKENIZED = 256  # texts whose tokens are kept; a prompt is needed for every request about it
UNCHANGED = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}  # else as the model's files say


async def opened(http: Http, model: dict[str, Any]) -> "CompletionServer | None":
    """The server as a `CompletionServer`, if it offers all that one needs."""
    name = str(model["id"])
    hello: list[Message] = [{"role": "user", "content": "Hello"}]
    asked = {"model": name, "messages": hello, "chat_template_kwargs": NO_THINKING}
    ids = await http.optional("/tokenize", asked)
    if not isinstance(ids, dict) or not ids.get("tokens"):
        return None
    window = int(model.get("max_model_len") or ids.get("max_model_len") or WINDOW_UNKNOWN)
    # A request that scores also generates a token, which must fit.
    server = CompletionServer(http, name, window - 1, name, model.get("root"), window)
    try:
        prompt = EnginePrompt(await server.render(hello))
        [again] = await server.tokens([prompt.text])
        if [token.id for token in again] != ids["tokens"]:  # as where a second start is added
            return None
        await server.score([ScoreRequest(prompt, (), again[:1])])
        request = GenerationRequest(prompt, max_new_tokens=1)
        told = [token async for token in server.stream(request) if token is not None]
    except UnavailableError:
        raise
    except (ModelError, KeyError, TypeError):
        return None
    return server if all(token.id is not None for token in told) else None


class CompletionServer(OpenAIServer):
    """vLLM and servers like it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tokenized: LRUCache[str, tuple[Token, ...]] = LRUCache(MOST_TOKENIZED)

    async def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "add_generation_prompt": True,
            "chat_template_kwargs": NO_THINKING,
        }
        told = await self.http.post("/tokenize", body)
        body = {"model": self.model, "tokens": told["tokens"], "skip_special_tokens": False}
        text = await self.http.post("/detokenize", body)
        return str(text["prompt"] if "prompt" in text else text["text"])  # vLLM, SGLang

    async def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text."""
        return list(await asyncio.gather(*map(self._tokenize, texts)))

    async def _tokenize(self, text: str) -> tuple[Token, ...]:
        if (known := self._tokenized.get(text)) is not None:
            return known
        body = {
            "model": self.model,
            "prompt": text,
            "add_special_tokens": False,
            "return_token_strs": False,
        }
        ids = (await self.http.post("/tokenize", body))["tokens"]
        found = self._tokenized[text] = tuple(Token("", int(token)) for token in ids)
        return found

    async def _is_control(self, mark: str) -> bool:
        return len(await self._tokenize(mark)) == 1

    async def _body(self, request: GenerationRequest) -> dict[str, Any]:
        return {
            "prompt": await self._ids(request.prompt, request.prefix),
            "logprobs": base.CANDIDATES,
            "logit_bias": {str(token): NEVER for token in request.banned} or None,
            "return_token_ids": True,
            **UNCHANGED,
            **response_format(request),
        }

    async def _read(self, choice: dict[str, Any]) -> list[Token]:
        """The tokens of one event; the end of text is left out.

        A server that is ahead of its reader tells several tokens in one event. The texts of the
        tokens make up the event's, unless one of them holds a part of a character.
        """
        logprobs = choice.get("logprobs") or {}
        texts, scores = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
        ids = choice.get("token_ids") or [None] * len(texts)
        tops = logprobs.get("top_logprobs") or [{}] * len(texts)
        found = []
        for text, score, token, top in zip(texts, scores, ids, tops, strict=False):
            best = sorted(candidates((top or {}).items()), key=lambda each: -each.log_p)
            found.append(Token(text, token, log_p(score), tuple(best[: base.CANDIDATES])))
        if choice.get("finish_reason") == "stop":  # no stop texts are given: it is the end of text
            del found[-1:]
        written = choice.get("text") or ""
        if found and base.text(found) != written:
            *before, last = found
            found = [*(replace(each, text="") for each in before), replace(last, text=written)]
        return found

    async def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of the end of a prompt, all requests at once."""
        return list(await asyncio.gather(*map(self._echoed, requests)))

    async def _echoed(self, request: ScoreRequest) -> list[float]:
        ids = await self._ids(request.prompt, (*request.prefix, *request.continuation))
        choice = await self._completion(prompt=ids, max_tokens=1, echo=True, logprobs=1)
        scores = choice["logprobs"]["token_logprobs"]
        if len(scores) < len(ids):
            raise self.http.failure("the server scores no given text")
        return self._numbers(scores[len(ids) - len(request.continuation) : len(ids)])

    async def _ids(self, prompt: EnginePrompt, more: Sequence[Token]) -> list[int]:
        tokens = await self._tokenize(prompt.text)
        return [cast("int", token.id) for token in (*tokens, *more)]
