"""What all kinds of model servers share: requests, streams, and the log-probabilities they tell.

`control.engines.servers` opens a server and finds out its kind.
"""

import asyncio
import hashlib
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, cast

import httpx
import openai
from tenacity import AsyncRetrying

from control.engines.base import Candidate, Capabilities, GenerationRequest, Token
from foundation import model_server
from foundation.errors import ModelError, UnavailableError

KEY = "FULCRUM_MODEL_KEY"  # environment variable that the command line takes it from
WINDOW_UNKNOWN = 4096  # tokens
READ_SECONDS = 120.0  # longest silence of a server
ROUNDING = 1e-3  # nats by which a log-probability may be above 0
SEED = 2**31  # servers take no larger ones
# Ends of an answer that is not whole, as OpenAI's servers, vLLM and SGLang call them.
BROKEN_OFF = ("abort", "content_filter", "error", "function_call", "tool_calls")
# Share of the tokens asked for from which an answer may end at its length: a character comes as
# one token, and has four at most, one for each byte of UTF-8.
LEAST_LENGTH = 0.25
THINKS = "<think>"  # before a model's reasoning, where the server leaves it in the answer
NO_THINKING = {"enable_thinking": False}  # for chat templates that offer both
MARKUP = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")  # as control tokens are written

Result = TypeVar("Result")


class Http:
    """Requests to one server: retried, with errors in one line.

    Attributes:
        silence: Seconds that the server may be silent; ``None`` for any time.
    """

    def __init__(self, address: str, key: str | None, patient: bool) -> None:
        """Open a client; arguments as those of `control.engines.servers.connect`.

        Raises:
            ModelError: Address or key cannot be used.
        """
        self.option = f"--model {address}"
        self.root = address.removesuffix("/").removesuffix("/v1")
        self.silence = None if patient else READ_SECONDS
        settings = model_server.client_settings(self.option, address, key, KEY, self.silence)
        self.client = openai.AsyncOpenAI(**settings)

    async def call(self, request: Callable[[], Awaitable[Result]]) -> Result:
        """The result of a request, sent again while the server is busy or away.

        Raises:
            ModelError: The server cannot answer it.
        """
        try:
            return await _repeated(request)
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            raise self.error(error) from error

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a path outside of ``/v1`` answers."""
        url = self.root + path
        return await self.call(lambda: self.client.post(url, cast_to=object, body=body))

    async def optional(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The same, or ``None`` where the server has no such path or refuses the request.

        Without a body it is asked by ``GET``.

        Raises:
            ModelError: The server cannot answer now, which tells nothing of what it has.
        """
        url = self.root + path

        def request() -> Awaitable[object]:
            if body is None:
                return self.client.get(url, cast_to=object)
            return self.client.post(url, cast_to=object, body=body)

        try:
            return await _repeated(request)
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            if model_server.is_away(error):
                raise self.error(error) from error
            return None

    def error(self, error: Exception) -> ModelError:
        """What is wrong and what to do, in one line."""
        told = self.failure(model_server.problem(error, KEY, READ_SECONDS))
        return UnavailableError(str(told)) if model_server.is_away(error) else told

    def unreadable(self) -> ModelError:
        """The error of an answer that is not that of such a server."""
        return self.error(ValueError())

    def failure(self, reason: str) -> ModelError:
        """An error of this server."""
        return ModelError(f"{self.option}: {reason}")


class OpenAIServer(ABC):
    """What the servers have in common; the methods are those of `control.engines.endpoint.Server`.

    Attributes:
        path: Where answers are streamed.
    """

    path = "/completions"

    def __init__(self, http: Http, model: str, window: int, *identified: object) -> None:
        """Take what is known of the model; ``identified`` is what tells it from other models."""
        self.http, self.model = http, model
        self.name = os.path.basename(model).removesuffix(".gguf")
        told = json.dumps(identified, default=str)
        self.identity = hashlib.sha256(told.encode()).hexdigest()[:16]
        self.window, self.capabilities = window, Capabilities()
        self._markup: dict[str, bool] = {}  # whether a text is a control token
        self._answering = ""  # how its answers name the model

    async def close(self) -> None:
        """Release the connections."""
        await self.http.client.close()

    async def without_markup(self, text: str) -> str:
        """A text without control tokens, by which a document could pose as the user."""
        found = {mark for mark in MARKUP.findall(text) if mark not in self._markup}
        are_control = await asyncio.gather(*map(self._is_control, found))
        self._markup.update(zip(found, are_control, strict=True))
        return MARKUP.sub(lambda match: " " if self._markup[match.group()] else match.group(), text)

    @abstractmethod
    async def _is_control(self, mark: str) -> bool:
        """Whether the server may take it for a control token."""

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Token | None]:
        """The tokens of a continuation; ``None`` last where it ended by itself.

        Raises:
            ModelError: The server fails, or breaks off before the answer is whole.
        """
        body = {
            "model": self.model,
            "stream": True,
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed % SEED,
            **await self._body(request),
        }
        heard, begun = 0, ""
        async with aclosing(self._choices(body)) as choices:
            async for choice in choices:
                for token in await self._read(choice):
                    heard += 1
                    if len(begun) < len(THINKS) and not request.prefix:
                        begun = (begun + token.text).lstrip()
                        self._check_beginning(begun)
                    yield self._checked(token)
                reason = choice.get("finish_reason")
                if reason == "stop":
                    yield None
                elif reason == "length" and self.capabilities.log_probabilities:
                    self._check_length(heard, request.max_new_tokens)

    @abstractmethod
    async def _body(self, request: GenerationRequest) -> dict[str, Any]:
        """What the server is to be told besides the length and how tokens are drawn."""

    @abstractmethod
    async def _read(self, choice: dict[str, Any]) -> list[Token]:
        """The tokens of one event; the end of text is left out."""

    async def _choices(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The first choice of every event of a streamed answer; errors as `stream`."""
        stream = await self.http.call(
            lambda: self.http.client.post(
                self.path,
                cast_to=object,
                body=body,
                stream=True,
                stream_cls=openai.AsyncStream[Any],
            )
        )
        begun = finished = False
        try:
            async with aclosing(_lively(stream, self.http.silence)) as events:
                async for event in events:
                    if not isinstance(event, dict) or not isinstance(event.get("choices"), list):
                        raise self.http.unreadable()
                    begun = True
                    self._check_model(event.get("model"))
                    for choice in event["choices"][:1]:
                        if (reason := choice.get("finish_reason")) in BROKEN_OFF:
                            raise self.http.failure(
                                f'the server ended the answer before it was whole ("{reason}"); '
                                "ask otherwise, or another model"
                            )
                        finished = finished or reason is not None
                        yield choice
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            cut = begun and isinstance(error, httpx.TransportError | openai.APIConnectionError)
            silent = isinstance(error, httpx.TimeoutException | openai.APITimeoutError)
            raise self._broken_off() if cut and not silent else self.http.error(error) from error
        finally:
            await stream.close()
        if not begun:
            raise self.http.unreadable()
        if not finished:
            raise self._broken_off()

    def _broken_off(self) -> ModelError:
        return self.http.failure("the server broke off in the middle of an answer; ask again")

    def _check_model(self, told: object) -> None:
        """Take the first other name of the model, as of a dated version, and no more.

        Raises:
            ModelError: Another model answers than before.
        """
        if told in (None, "", self._answering):
            return
        if self._answering and told != self.model:
            raise self.http.failure(
                f"the server answers with another model ({told}) than {self._answering}; start "
                "Fulcrum again"
            )
        self._answering = self._answering or str(told)

    def _check_beginning(self, text: str) -> None:
        """Check that an answer does not begin with thoughts.

        Raises:
            ModelError: It does.
        """
        if text.startswith(THINKS):
            raise self.http.failure(
                f"{self.name} writes down its reasoning before the answer; start the server so "
                "that it does not reason, or keeps that out of the answer"
            )

    def _check_length(self, heard: int, most: int) -> None:
        """Check that an answer that the server ended at its length had that length.

        Raises:
            ModelError: It had far fewer tokens.
        """
        if heard < most * LEAST_LENGTH:
            raise self.http.failure(
                f"the server cut the answer off after {heard} of {most} tokens: its window may be "
                "too small for the text, or its model reasoned before; change that"
            )

    async def _completion(self, **asked: Any) -> dict[str, Any]:
        """The first choice of a completion that is neither streamed nor sampled."""
        body = {"model": self.model, "temperature": 0.0, **asked}
        client = self.http.client
        answer: Any = await self.http.call(
            lambda: client.post("/completions", cast_to=object, body=body)
        )
        return cast("dict[str, Any]", answer["choices"][0])

    def _checked(self, token: Token) -> Token:
        """The token, if it has the log-probability that the server is to give.

        Raises:
            ModelError: It has none, or one that is no number.
        """
        if self.capabilities.log_probabilities and token.log_p is None:
            raise self.http.failure(
                "the server gave a token without a log-probability that is a number; start it "
                "otherwise, or take another server"
            )
        return token

    def _numbers(self, told: Sequence[object]) -> list[float]:
        """Log-probabilities; errors as `_checked`."""
        tokens = [self._checked(Token("", log_p=log_p(each))) for each in told]
        return [cast("float", token.log_p) for token in tokens]


async def _repeated(request: Callable[[], Awaitable[Result]]) -> Result:
    """The result of a request, sent again while the server is busy or away."""
    async for attempt in AsyncRetrying(**model_server.retry_settings()):
        with attempt:
            result = await request()
    return result


async def _lively(stream: "openai.AsyncStream[Any]", silence: float | None) -> AsyncGenerator[Any]:
    """The events of a stream.

    Raises:
        httpx.ReadTimeout: For so many seconds none of them said anything.
    """
    now, events = asyncio.get_running_loop().time, aiter(stream)
    heard = now()
    while True:
        try:
            async with asyncio.timeout_at(None if silence is None else heard + silence):
                event = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise httpx.ReadTimeout("") from error
        heard = now() if _says_something(event) else heard
        yield event


def _says_something(event: Any) -> bool:
    """Whether an event has a text, a thought, a call or an end, and not only a role."""
    choices = event.get("choices") if isinstance(event, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") or {}
        said = [value for key, value in delta.items() if key != "role"]
        if any([*said, choice.get("text"), choice.get("logprobs"), choice.get("finish_reason")]):
            return True
    return False


def response_format(request: GenerationRequest) -> dict[str, Any]:
    """The schema of a text, in OpenAI's words."""
    if not request.json_schema:
        return {}
    schema = {"name": "answer", "schema": json.loads(request.json_schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def content(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The tokens of a choice, each with its log-probability."""
    return (choice.get("logprobs") or {}).get("content") or []


def token_of(told: dict[str, Any], text: str) -> Token:
    """A token of `content`, with the text that it adds to the answer."""
    tops = told.get("top_logprobs") or ()
    others = candidates((str(each["token"]), each.get("logprob")) for each in tops)
    return Token(text, told.get("id"), log_p(told.get("logprob")), others)


def candidates(told: Iterable[tuple[str, object]]) -> tuple[Candidate, ...]:
    """Texts of tokens with what was told as their log-probabilities; those with none left out."""
    found = ((text, log_p(number)) for text, number in told)
    return tuple(Candidate(text, number) for text, number in found if number is not None)


def log_p(told: object) -> float | None:
    """A log-probability; ``None`` for what is none."""
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    return min(float(told), 0.0) if math.isfinite(told) and told <= ROUNDING else None
