"""The kinds of servers that a model may be behind, and what each of them can do.

`connect` asks the server which model it has and tries one request for each capability; nothing is
guessed from a name. There are three kinds:

- `LlamaServer`: ``llama-server``, which also runs embedded (`control.engines.llama_cpp`). Scores
  are those of tokens forced by a grammar of token ids, one request for each continuation.
- `CompletionServer`: vLLM, and SGLang where it offers the same. Scores come with the prompt
  (``echo`` and ``logprobs``).
- `ChatServer`: any other with ``/v1/chat/completions``, such as Ollama or a hosted endpoint.
"""

import asyncio
import hashlib
import json
import math
import os
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import accumulate
from typing import Any, TypeVar, cast

import httpx
import openai
from cachetools import LRUCache
from tenacity import AsyncRetrying

from control.engines import base
from control.engines.base import (
    Candidate,
    Capabilities,
    EnginePrompt,
    GenerationRequest,
    Message,
    ScoreRequest,
    Token,
)
from control.engines.endpoint import Server
from foundation import model_server
from foundation.errors import InputError, ModelError

KEY = "FULCRUM_MODEL_KEY"  # environment variable that the command line takes it from
WINDOW_UNKNOWN = 4096  # tokens
READ_SECONDS = 120.0  # longest silence of a server
NEVER = -100.0  # bias of a banned token, the least that OpenAI's protocol allows
UNCHANGED = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}  # else as the model's files say
FORCED = 1e4  # bias of a token that is to be chosen, whatever the others
UNFILTERED = {"top_k": 0, "min_p": 0.0}  # llama.cpp's own sampling filters, off
TEXTS = 10_000  # whose tokens are remembered
ROUNDING = 1e-3  # nats by which a log-probability may be above 0
LONGEST_PROBE = 16  # tokens that are listened to when a server is tried
SEED = 2**31  # servers take no larger ones
MARKUP = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")  # as control tokens are written

Result = TypeVar("Result")


async def connect(url: str, key: str | None = None, patient: bool = False) -> Server:
    """Open a model behind a server.

    Args:
        url: Of the API, up to ``/v1``; ``#name`` after it chooses one of several models.
        key: The server's, if it asks for one.
        patient: Wait without end for a server that is silent.

    Raises:
        ModelError: It cannot be reached, refuses the key, or has no such model.
    """
    address, _, wanted = url.partition("#")
    option = f"--model {address}"
    settings = model_server.client_settings(
        option, address, key, KEY, None if patient else READ_SECONDS
    )
    client = openai.AsyncOpenAI(**settings)
    http = Http(client, address)
    try:
        told: Any = await http.call(lambda: client.get("/models", cast_to=object))
        models = {str(each["id"]): each for each in told["data"]}
        model = models[model_server.chosen(option, list(models), wanted)]
        properties = await http.optional("GET", "/props")
        if properties and "default_generation_settings" in properties:
            return LlamaServer(http, model, properties)
        return await _completion_server(http, model) or await _chat_server(http, model)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        await client.close()
        raise ModelError(
            f"{option}: answers, but not as an OpenAI-compatible server ({error!r}); give the URL "
            f"up to /v1, as in {model_server.EXAMPLE}"
        ) from error
    except BaseException:
        await client.close()
        raise


class Http:
    """Requests to one server: retried, with errors in one line."""

    def __init__(self, client: openai.AsyncOpenAI, address: str) -> None:
        """Take the shared client."""
        self.client, self.address = client, address
        self.root = address.removesuffix("/").removesuffix("/v1")

    async def call(self, request: Callable[[], Awaitable[Result]]) -> Result:
        """The result of a request, sent again while the server is busy or away.

        Raises:
            ModelError: The server cannot answer it.
        """
        retrying = AsyncRetrying(**model_server.retry_settings())
        try:
            async for attempt in retrying:
                with attempt:
                    result = await request()
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            raise self.error(error) from error
        return result

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a path outside of ``/v1`` answers."""
        url = self.root + path
        return await self.call(lambda: self.client.post(url, cast_to=object, body=body))

    async def optional(self, method: str, path: str, body: object = None) -> Any:
        """The same, or ``None`` where the server has no such path or refuses the request."""
        url = self.root + path
        try:
            if method == "GET":
                return await self.client.get(url, cast_to=object)
            return await self.client.post(url, cast_to=object, body=body)
        except (openai.APIStatusError, openai.APIResponseValidationError, ValueError):
            return None
        except openai.OpenAIError as error:
            raise self.error(error) from error

    def unreadable(self) -> ModelError:
        """The error of an answer that is not that of such a server."""
        return self.error(ValueError())

    def error(self, error: Exception) -> ModelError:
        """What is wrong and what to do, in one line."""
        reason = model_server.problem(error, KEY, READ_SECONDS)
        return ModelError(f"--model {self.address}: {reason}")


def _identity(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def _sampling(request: GenerationRequest) -> dict[str, Any]:
    """How tokens are drawn, in OpenAI's words."""
    return {
        "max_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed % SEED,
    }


def _json(request: GenerationRequest) -> dict[str, Any]:
    """The schema of a text, in OpenAI's words."""
    if not request.json_schema:
        return {}
    schema = {"name": "answer", "schema": json.loads(request.json_schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


class _Server:
    """What the servers have in common."""

    def __init__(
        self, http: Http, model: str, identity: str, window: int, capabilities: Capabilities
    ) -> None:
        self.http, self.model = http, model
        self.name, self.identity = os.path.basename(model).removesuffix(".gguf"), identity
        self.window, self.capabilities = window, capabilities
        self._markup: dict[str, bool] = {}  # whether a text is a control token

    async def close(self) -> None:
        """Release the connections."""
        await self.http.client.close()

    async def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template; empty where the server keeps it to itself."""
        return ""

    async def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text; empty where the server tells no ids."""
        return [() for _ in texts]

    async def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of continuations."""
        raise InputError(f"{self.name}: its server scores no given text")

    def _checked(self, token: Token) -> Token:
        """The token, if it has the log-probability that the server is to give.

        Raises:
            ModelError: It has none, or one that is no number.
        """
        if self.capabilities.log_probabilities and token.log_p is None:
            raise ModelError(
                f"--model {self.http.address}: the server gave a token without a log-probability "
                "that is a number; start it otherwise, or take another server"
            )
        return token

    def _numbers(self, told: Sequence[object]) -> list[float]:
        """Log-probabilities; errors as `_checked`."""
        scores = [_log_p(each) for each in told]
        return [cast("float", self._checked(Token("", log_p=score)).log_p) for score in scores]

    async def without_markup(self, text: str) -> str:
        """A text without control tokens, by which a document could pose as the user."""
        found = {mark for mark in MARKUP.findall(text) if mark not in self._markup}
        if found:
            for mark, is_control in zip(
                found, await asyncio.gather(*map(self._is_control, found)), strict=True
            ):
                self._markup[mark] = is_control
        return MARKUP.sub(lambda match: " " if self._markup[match.group()] else match.group(), text)

    async def _is_control(self, mark: str) -> bool:
        """Whether the server may take it for a control token."""
        return True

    async def _stream(self, request: dict[str, Any], path: str) -> AsyncGenerator[dict[str, Any]]:
        """The first choice of every event of a streamed answer.

        Raises:
            ModelError: The server fails, or breaks off before the answer is whole.
        """
        body = {"model": self.model, "stream": True, **request}
        stream = await self.http.call(
            lambda: self.http.client.post(
                path,
                cast_to=object,
                body=body,
                stream=True,
                stream_cls=openai.AsyncStream[Any],
            )
        )
        begun = finished = False
        try:
            async for event in stream:
                if not isinstance(event, dict) or not isinstance(event.get("choices"), list):
                    raise self.http.unreadable()
                begun = True
                if event.get("model") not in (None, self.model):
                    raise ModelError(
                        f"--model {self.http.address}: the server answers with another model "
                        f"({event['model']}) than {self.model}; start Fulcrum again"
                    )
                for choice in event["choices"][:1]:
                    finished = finished or choice.get("finish_reason") is not None
                    yield choice
        except (openai.OpenAIError, httpx.HTTPError, ValueError) as error:
            raise self.http.error(error) from error
        finally:
            await stream.close()
        if not begun:
            raise self.http.unreadable()
        if not finished:
            raise ModelError(
                f"--model {self.http.address}: the server broke off in the middle of an answer; "
                "ask again"
            )


class LlamaServer(_Server):
    """``llama-server`` of llama.cpp."""

    def __init__(self, http: Http, model: dict[str, Any], properties: dict[str, Any]) -> None:
        """Take what ``/v1/models`` and ``/props`` told."""
        metadata = model.get("meta") or {}
        window = properties["default_generation_settings"].get("n_ctx") or WINDOW_UNKNOWN
        window = min(window, metadata.get("n_ctx_train") or window)
        if not properties.get("chat_template"):
            raise ModelError(
                f"--model {http.address}: {model['id']} has no chat template; give a model tuned "
                "for chats"
            )
        told = [metadata.get(name) for name in ("n_params", "size", "n_vocab", "n_embd")]
        name = os.path.basename(str(model["id"]))
        super().__init__(http, str(model["id"]), _identity(name, *told), window, Capabilities())
        self._texts: LRUCache[str, list[int]] = LRUCache(TEXTS)  # not ASCII, and their tokens

    async def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template."""
        body = {"messages": list(messages), "add_generation_prompt": True}
        return str((await self.http.post("/apply-template", body))["prompt"])

    async def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text."""
        told = await asyncio.gather(*(self._tokenize(text, True) for text in texts))
        return [
            tuple(Token(_piece(each["piece"]), each["id"]) for each in tokens) for tokens in told
        ]

    async def _tokenize(self, text: str, special: bool) -> list[dict[str, Any]]:
        body = {"content": text, "with_pieces": True, "parse_special": special}
        return cast("list[dict[str, Any]]", (await self.http.post("/tokenize", body))["tokens"])

    async def _is_control(self, mark: str) -> bool:
        as_control, as_text = await asyncio.gather(
            self._tokenize(mark, True), self._tokenize(mark, False)
        )
        return as_control != as_text

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Token | None]:
        """The tokens of a continuation."""
        body = {
            "prompt": _with_ids(request.prompt.text, request.prefix),
            "n_probs": base.CANDIDATES,
            "logit_bias": [[token, False] for token in request.banned],
            "cache_prompt": True,
            **UNFILTERED,
            **_sampling(request),
        }
        if request.json_schema:
            body["json_schema"] = json.loads(request.json_schema)
        async with aclosing(self._stream(body, "/completions")) as choices:
            async for choice in choices:
                written, told = choice.get("text") or "", _content(choice)
                if not written:  # the end of text is a token without any
                    pass
                elif len(told) == 1 and await self._is_token(written, told[0]["id"]):
                    yield self._checked(_token(told[0], written))
                else:  # tokens before it were parts of its first character, and are not told
                    log_p = _log_p(told[-1].get("logprob")) if told else 0.0
                    yield self._checked(Token(written, log_p=log_p))
                if choice.get("finish_reason") == "stop":
                    yield None

    async def _is_token(self, text: str, token: int) -> bool:
        """Whether a text is just this token."""
        if text.isascii():
            return True
        if text not in self._texts:
            self._texts[text] = [each["id"] for each in await self._tokenize(text, False)]
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
            told = await self._tokenize(base.text(given), False)
            tokens = tuple(Token(_piece(each["piece"]), each["id"]) for each in told)
            again = await self._forced(replace(request, continuation=tokens))
            return _aligned(again, [_size(each["piece"]) for each in told], given)
        scores, start = list[float](), 0
        while start < len(given):
            stop = start + 1
            while stop < len(given) and _is_whole(given[start]) and _is_whole(given[stop]):
                stop += 1
            try:
                scores += await self._scored(
                    request, start, stop, by_bias=not _is_whole(given[start])
                )
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
        tokens = request.continuation[start:stop]
        if by_bias:
            forced: dict[str, Any] = {"logit_bias": [[tokens[0].id, FORCED]]}
        else:
            forced = {"grammar": "root ::= " + " ".join(f"<[{token.id}]>" for token in tokens)}
        body = {
            "model": self.model,
            "prompt": _with_ids(
                request.prompt.text, (*request.prefix, *request.continuation[:start])
            ),
            "max_tokens": len(tokens),
            "n_probs": 1,
            "temperature": 0.0,
            "cache_prompt": True,
            **forced,
        }
        client = self.http.client
        answer: Any = await self.http.call(
            lambda: client.post("/completions", cast_to=object, body=body)
        )
        told = _content(answer["choices"][0])
        if not told and by_bias:
            return [0.0]
        if [each["id"] for each in told] != [token.id for token in tokens]:
            raise ModelError(f"--model {self.http.address}: the server scored other tokens")
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


def _size(piece: str | list[int]) -> int:
    """In bytes."""
    return len(piece.encode()) if isinstance(piece, str) else len(piece)


def _with_ids(text: str, prefix: Sequence[Token]) -> list[str | int]:
    """A prompt and the ids that follow it, or their text where some ids are not known."""
    ids = [token.id for token in prefix if token.id is not None]
    return [text, *ids] if len(ids) == len(prefix) else [text + base.text(prefix)]


def _content(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The tokens of a choice, each with its log-probability."""
    return (choice.get("logprobs") or {}).get("content") or []


def _piece(piece: str | list[int]) -> str:
    return piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace")


def _token(told: dict[str, Any], text: str) -> Token:
    candidates = [
        (str(each["token"]), _log_p(each.get("logprob"))) for each in told.get("top_logprobs") or ()
    ]
    return Token(text, told.get("id"), _log_p(told.get("logprob")), _candidates(candidates))


def _log_p(told: object) -> float | None:
    """A log-probability; ``None`` for what is none."""
    number = isinstance(told, int | float) and not isinstance(told, bool)
    if not number or not math.isfinite(cast("float", told)) or cast("float", told) > ROUNDING:
        return None
    return min(float(cast("float", told)), 0.0)


def _candidates(told: Sequence[tuple[str, float | None]]) -> tuple[Candidate, ...]:
    return tuple(Candidate(text, log_p) for text, log_p in told if log_p is not None)


class CompletionServer(_Server):
    """vLLM and servers like it: token ids in, log-probabilities of the prompt out."""

    async def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template."""
        body = {"model": self.model, "messages": list(messages), "add_generation_prompt": True}
        told = await self.http.post("/tokenize", body)
        body = {"model": self.model, "tokens": told["tokens"], "skip_special_tokens": False}
        text = await self.http.post("/detokenize", body)
        return str(text["prompt"] if "prompt" in text else text["text"])  # vLLM, SGLang

    async def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text."""

        async def one(text: str) -> tuple[Token, ...]:
            body = {
                "model": self.model,
                "prompt": text,
                "add_special_tokens": False,
                "return_token_strs": False,
            }
            ids = (await self.http.post("/tokenize", body))["tokens"]
            return tuple(Token("", int(token)) for token in ids)

        return list(await asyncio.gather(*map(one, texts)))

    async def _is_control(self, mark: str) -> bool:
        [tokens] = await self.tokens([mark])
        return len(tokens) == 1

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Token | None]:
        """The tokens of a continuation."""
        body = {
            "prompt": await self._ids(request.prompt, request.prefix),
            "logprobs": base.CANDIDATES,
            "logit_bias": {str(token): NEVER for token in request.banned} or None,
            "return_token_ids": True,
            **UNCHANGED,
            **_sampling(request),
            **_json(request),
        }
        async with aclosing(self._stream(body, "/completions")) as choices:
            async for choice in choices:
                for token in _listed(choice):
                    yield self._checked(token)
                if choice.get("finish_reason") == "stop":
                    yield None

    async def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of the end of a prompt, all requests at once."""
        return list(await asyncio.gather(*map(self._echoed, requests)))

    async def _echoed(self, request: ScoreRequest) -> list[float]:
        ids = await self._ids(request.prompt, (*request.prefix, *request.continuation))
        body = {
            "model": self.model,
            "prompt": ids,
            "max_tokens": 1,
            "echo": True,
            "logprobs": 1,
            "temperature": 0.0,
        }
        client = self.http.client
        answer: Any = await self.http.call(
            lambda: client.post("/completions", cast_to=object, body=body)
        )
        scores = answer["choices"][0]["logprobs"]["token_logprobs"]
        if len(scores) < len(ids):
            raise ModelError(f"--model {self.http.address}: the server scores no given text")
        return self._numbers(scores[len(ids) - len(request.continuation) : len(ids)])

    async def _ids(self, prompt: EnginePrompt, more: Sequence[Token]) -> list[int]:
        [tokens] = await self.tokens([prompt.text])
        return [cast("int", token.id) for token in (*tokens, *more)]


def _listed(choice: dict[str, Any]) -> list[Token]:
    """The tokens of one event of a streamed completion; the end of text is left out.

    A server that is ahead of its reader tells several tokens in one event. The texts of the tokens
    make up the event's, unless one of them holds a part of a character.
    """
    logprobs = choice.get("logprobs") or {}
    texts, scores = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    ids = choice.get("token_ids") or [None] * len(texts)
    tops = logprobs.get("top_logprobs") or [{}] * len(texts)
    found = []
    for text, score, token, top in zip(texts, scores, ids, tops, strict=False):
        named = [(name, _log_p(value)) for name, value in (top or {}).items()]
        best = sorted(_candidates(named), key=lambda each: -each.log_p)
        found.append(Token(text, token, _log_p(score), tuple(best[: base.CANDIDATES])))
    if choice.get("finish_reason") == "stop":  # no stop texts are given, so it is the end of text
        del found[-1:]
    written = choice.get("text") or ""
    if found and base.text(found) != written:
        *before, last = found
        found = [*(replace(each, text="") for each in before), replace(last, text=written)]
    return found


async def _completion_server(http: Http, model: dict[str, Any]) -> Server | None:
    """The server as a `CompletionServer`, if it offers all that one needs."""
    name = str(model["id"])
    hello: list[Message] = [{"role": "user", "content": "Hello"}]
    ids = await http.optional("POST", "/tokenize", {"model": name, "messages": hello})
    if not isinstance(ids, dict) or not ids.get("tokens"):
        return None
    window = int(model.get("max_model_len") or ids.get("max_model_len") or WINDOW_UNKNOWN)
    identity = _identity(name, model.get("root"), window)
    # A request that scores also generates a token, which must fit.
    server = CompletionServer(http, name, identity, window - 1, Capabilities())
    try:
        prompt = EnginePrompt(await server.render(hello))
        [again] = await server.tokens([prompt.text])
        if [token.id for token in again] != ids["tokens"]:  # as where a second start is added
            return None
        await server.score([ScoreRequest(prompt, (), again[:1])])
        asked = GenerationRequest(prompt, max_new_tokens=1)
        told = [token async for token in server.stream(asked) if token is not None]
    except (ModelError, KeyError, TypeError):
        return None
    return server if all(token.id is not None for token in told) else None


class ChatServer(_Server):
    """A server that offers chats and little else."""

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Token | None]:
        """The tokens of a continuation.

        Raises:
            ModelError: The server fails, or has cut the prompt off.
        """
        messages = list(request.prompt.messages)
        body: dict[str, Any] = {"messages": messages, **_sampling(request), **_json(request)}
        if request.prefix:
            messages.append({"role": "assistant", "content": base.text(request.prefix)})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self.capabilities.log_probabilities:
            body |= {"logprobs": True, "top_logprobs": base.CANDIDATES}
        async with aclosing(self._stream(body, "/chat/completions")) as choices:
            async for choice in choices:
                told = _content(choice)
                written = (choice.get("delta") or {}).get("content") or ""
                ended = choice.get("finish_reason") == "stop"
                if ended and "".join(each["token"] for each in told) != written:
                    del told[-1:]  # the end of text
                if told and "".join(each["token"] for each in told) == written:
                    for each in told:
                        yield self._checked(_token(each, each["token"]))
                elif len(told) == 1:
                    yield self._checked(_token(told[0], written))
                elif written:  # several tokens, and which text is whose is not told
                    scores = [_log_p(each.get("logprob")) for each in told]
                    known = [score for score in scores if score is not None]
                    log_p = sum(known) if scores and len(known) == len(scores) else None
                    yield self._checked(Token(written, log_p=log_p))
                if ended:
                    yield None


async def _chat_server(http: Http, model: dict[str, Any]) -> Server:
    """The server as a `ChatServer`, with the capabilities that its answers show."""
    name = str(model["id"])
    metadata = model.get("meta") or {}
    window = model.get("max_model_len") or model.get("context_length") or metadata.get("n_ctx")
    server = ChatServer(
        http,
        name,
        _identity(name),
        int(window or WINDOW_UNKNOWN),
        Capabilities(scores=False, bans=False, prefix=False, plain_text=False),
    )
    ask: tuple[Message, ...] = ({"role": "user", "content": "Say: one two three four five six"},)
    prompt = EnginePrompt("", ask)

    async def answer(prefix: str = "") -> list[Token]:
        given = (Token(prefix),) if prefix else ()
        asked = GenerationRequest(prompt, given, max_new_tokens=8)
        heard = list[Token]()
        async with aclosing(server.stream(asked)) as tokens:
            async for token in tokens:
                if token is None or len(heard) >= LONGEST_PROBE:  # it may go on for ever
                    break
                heard.append(token)
        return heard

    try:
        tokens = await answer()
    except ModelError:  # it refuses to be asked for log-probabilities
        server.capabilities = replace(server.capabilities, log_probabilities=False)
        tokens = await answer()
    has_log_p = bool(tokens) and all(token.log_p is not None for token in tokens)
    server.capabilities = replace(server.capabilities, log_probabilities=has_log_p)
    try:
        continued = base.text(await answer("one two three four")).strip().lower()
    except ModelError:  # it takes no answer that has begun
        continued = ""
    goes_on = continued.startswith("five")
    server.capabilities = replace(server.capabilities, prefix=goes_on)
    return server
