"""Any server with ``/v1/chat/completions`` and little else, as Ollama or a hosted endpoint."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from control.engines import base
from control.engines.base import EnginePrompt, GenerationRequest, Message, ScoreRequest, Token
from control.engines.openai_server import (
    WINDOW_UNKNOWN,
    Http,
    OpenAIServer,
    content,
    log_p,
    response_format,
    token_of,
)
from foundation.errors import InputError, ModelError, UnavailableError

LONGEST_PROBE = 16  # tokens that are listened to when a server is tried


async def opened(http: Http, model: dict[str, Any]) -> "ChatServer":
    """The server as a `ChatServer`, with the capabilities that its answers show."""
    name = str(model["id"])
    metadata = model.get("meta") or {}
    window = model.get("max_model_len") or model.get("context_length") or metadata.get("n_ctx")
    server = ChatServer(http, name, int(window or WINDOW_UNKNOWN), name)
    can = replace(server.capabilities, scores=False, bans=False, prefix=False, plain_text=False)
    server.capabilities = can
    try:
        tokens = await _answer(server)
    except UnavailableError:
        raise
    except ModelError:  # it refuses to be asked for log-probabilities
        server.capabilities = replace(can, log_probabilities=False)
        tokens = await _answer(server)
    has_log_p = bool(tokens) and all(token.log_p is not None for token in tokens)
    server.capabilities = replace(can, log_probabilities=has_log_p)
    try:
        continued = base.text(await _answer(server, Token("one two three four")))
    except UnavailableError:
        raise
    except ModelError:  # it takes no answer that has begun
        continued = ""
    goes_on = continued.strip().lower().startswith("five")
    server.capabilities = replace(server.capabilities, prefix=goes_on)
    return server


async def _answer(server: "ChatServer", *prefix: Token) -> list[Token]:
    """The first tokens of an answer that is known beforehand."""
    ask: Message = {"role": "user", "content": "Say: one two three four five six"}
    asked = GenerationRequest(EnginePrompt("", (ask,)), prefix, max_new_tokens=8)
    heard = list[Token]()
    async with aclosing(server.stream(asked)) as tokens:
        async for token in tokens:
            if token is None or len(heard) >= LONGEST_PROBE:  # it may go on for ever
                break
            heard.append(token)
    return heard


class ChatServer(OpenAIServer):
    """A server that offers chats and little else."""

    path = "/chat/completions"

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Token | None]:
        """As of all servers, but that an answer without any text is an error."""
        heard = bool(request.prefix) or request.max_new_tokens == 1
        async with aclosing(super().stream(request)) as tokens:
            async for token in tokens:
                heard = heard or token is not None
                if heard:
                    yield token
        if not heard:
            raise self.http.failure(
                f"{self.name} answered nothing: it may have reasoned for all its tokens, called a "
                "tool or refused; start it without reasoning, or ask otherwise"
            )

    async def render(self, messages: Sequence[Message]) -> str:
        """Empty: the server keeps the chat template to itself."""
        return ""

    async def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """Empty for each text: the server tells no ids."""
        return [() for _ in texts]

    async def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Always an `InputError`: the server scores no given text."""
        raise InputError(f"{self.name}: its server scores no given text")

    async def _is_control(self, mark: str) -> bool:
        return True

    async def _body(self, request: GenerationRequest) -> dict[str, Any]:
        messages = list(request.prompt.messages)
        body: dict[str, Any] = {"messages": messages, **response_format(request)}
        if request.prefix:
            messages.append({"role": "assistant", "content": base.text(request.prefix)})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self.capabilities.log_probabilities:
            body |= {"logprobs": True, "top_logprobs": base.CANDIDATES}
        return body

    async def _read(self, choice: dict[str, Any]) -> list[Token]:
        told = content(choice)
        written = self._written((choice.get("delta") or {}).get("content"))
        if choice.get("finish_reason") == "stop" and _joined(told) != written:
            del told[-1:]  # the end of text
        if told and _joined(told) == written:
            return [token_of(each, each["token"]) for each in told]
        if len(told) == 1:
            return [token_of(told[0], written)]
        if not written:
            return []
        # Several tokens, and which text is whose is not told.
        scores = [log_p(each.get("logprob")) for each in told]
        known = [score for score in scores if score is not None]
        total = sum(known) if scores and len(known) == len(scores) else None
        return [Token(written, log_p=total)]

    def _written(self, told: object) -> str:
        """The text of an event, which some servers tell in parts, with thoughts among them."""
        if isinstance(told, list):
            parts = [each for each in told if isinstance(each, dict)]
            told = "".join(str(each["text"]) for each in parts if each.get("type") == "text")
        if not isinstance(told, str | None):
            raise self.http.unreadable()
        return told or ""


def _joined(told: Sequence[dict[str, Any]]) -> str:
    return "".join(each["token"] for each in told)
