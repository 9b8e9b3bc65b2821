"""/v1/chat/completions and /v1/completions: questions, answered with the dial."""

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from app.api import responses
from app.api.access import Caller, Reader
from app.api.errors import ModelNotFoundError
from app.api.responses import ChoiceText, PlacedToken, StopFilter
from app.api.schema import (
    ChatRequest,
    CompletionRequest,
    DecodingRequest,
    GivenPassage,
    Message,
    RequestBody,
)
from control.decoding.generate import Decoding
from control.forgetting.clearing import Cleared, ClearedToken
from control.state import Query

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from app.server.service import Service
    from control.answer import Answer
    from control.scoring import ScoredText

ALIAS = "fulcrum"  # the name of whichever model is loaded
DEFAULT_TOKENS = 128  # of an answer
DRAWN_SEEDS = 2**31  # of requests that name none
STRUCTURED_TOKENS = 512  # of one that is also written as JSON
STREAMED = "text/event-stream"
IGNORED = "Fulcrum-Ignored"  # the response header that names fields without effect

router = APIRouter(prefix="/v1", tags=["questions"])


@dataclass
class CompletionBuilder:
    """Builds the response to one request, in the form of its endpoint.

    Attributes:
        request: The body of the request.
        model: The name of the language model.
        decoding: Rule, alpha, sampling and length.
        prompt_tokens: Tokens of what was sent.
        choices: One for each answer.
        tells: Whether the response says which forgotten facts were withheld, and that it was
            refused; only to administrators, since either tells of a record.
        id: Of the response.
        created: Its time, in seconds since 1970.
    """

    request: DecodingRequest
    model: str
    decoding: Decoding
    prompt_tokens: int
    choices: list[ChoiceText]
    tells: bool
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def is_chat(self) -> bool:
        """Whether the request is one of /v1/chat/completions."""
        return isinstance(self.request, ChatRequest)

    async def complete(self, run: "AsyncIterator[PlacedToken | list[Answer]]") -> dict[str, Any]:
        """Return the whole response as one object."""
        answers: list[Answer] = []
        async with aclosing(run):  # type: ignore[type-var]
            async for item in run:
                if isinstance(item, list):
                    answers = item
                else:
                    self.choices[item[0]].add(item[1])
        entries = []
        for place, answer in enumerate(answers):
            choice = self.choices[place]
            choice.finish(answer)
            text = choice.echo + choice.text.strip()
            entry = self._entry(place, text, answer.tokens, whole=True)
            if self._form:
                entry["message"] |= self._formed(answer, text)
            entry["finish_reason"] = self._finish_reason(answer, choice)
            entries.append(entry)
        return {
            **self._body(entries),
            "object": "chat.completion" if self.is_chat else "text_completion",
            "usage": responses.usage(self.prompt_tokens, answers),
            **self._extra(answers),
        }

    async def stream_events(
        self, first: "PlacedToken | list[Answer]", run: "AsyncIterator[PlacedToken | list[Answer]]"
    ) -> AsyncIterator[str]:
        """Yield the events of a streamed response."""
        async with aclosing(run):  # type: ignore[type-var]
            for place, choice in enumerate(self.choices):
                if self.is_chat or choice.echo:
                    entry = self._entry(place, choice.echo)
                    yield self._event([{**entry, "finish_reason": None}])
            item = first
            while not isinstance(item, list):
                place, token = item
                new = self.choices[place].add(token)
                if new or self._top_logprobs is not None:
                    entry = self._entry(place, new, [token])
                    yield self._event([{**entry, "finish_reason": None}])
                item = await anext(run)
        for place, answer in enumerate(item):
            choice = self.choices[place]
            if rest := choice.finish(answer):
                entry = self._entry(place, rest)
                if self._form:
                    entry["delta"] |= self._formed(answer, rest, index={"index": 0})
                yield self._event([{**entry, "finish_reason": None}])
            entry = self._entry(place, "") | ({"delta": {}} if self.is_chat else {})
            entry["finish_reason"] = self._finish_reason(answer, choice)
            last = place == len(item) - 1
            yield self._event([entry], **(self._extra(item) if last else {}))
        if self._streams_usage:
            yield self._event([], usage=responses.usage(self.prompt_tokens, item))

    def scores(self, texts: Sequence[str], scored: "Sequence[ScoredText]") -> dict[str, Any]:
        """Return the scores of prompts as one object, which begins with the prompts themselves."""
        entries = [
            {"index": place, **responses.scored_choice(text, each)}
            for place, (text, each) in enumerate(zip(texts, scored, strict=True))
        ]
        new = sum(each.next is not None for each in scored)
        total = {"completion_tokens": new, "total_tokens": self.prompt_tokens + new}
        details = [
            {"forgotten": responses.forgotten_ids(each) if self.tells else []} for each in scored
        ]
        return {
            **self._body(entries),
            "object": "text_completion",
            "usage": {"prompt_tokens": self.prompt_tokens, **total},
            "fulcrum": details[0] if len(details) == 1 else details,
        }

    @property
    def _streams_usage(self) -> bool:
        options = self.request.stream_options
        return options is not None and bool(options.include_usage)

    @property
    def _top_logprobs(self) -> int | None:
        """The number of alternatives to each token; ``None`` without log-probabilities."""
        if isinstance(self.request, ChatRequest):
            return (self.request.top_logprobs or 0) if self.request.logprobs else None
        return self.request.logprobs if isinstance(self.request, CompletionRequest) else None

    def _entry(
        self, place: int, text: str, tokens: Sequence[ClearedToken] = (), whole: bool = False
    ) -> dict[str, Any]:
        """Return one choice, or its new part."""
        content: dict[str, Any] = {"text": text}
        if self.is_chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if whole:
                message["refusal"] = None
            content = {"message" if whole else "delta": message}
        most, logprobs = self._top_logprobs, None
        if most is not None and tokens:
            logprobs = (
                {"content": [responses.logprob(token, most) for token in tokens]}
                if self.is_chat
                else responses.plain_logprobs(tokens, most)
            )
        return {"index": place, **content, "logprobs": logprobs}

    @property
    def _form(self) -> str:
        """The JSON Schema that the answers follow; empty for text."""
        return self.request.json_schema if isinstance(self.request, ChatRequest) else ""

    def _formed(
        self, answer: "Answer", text: str, index: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """What a message says by JSON: its content, a tool's call, or why there is neither.

        Args:
            answer: The answer.
            text: The JSON, or the words that take its place.
            index: Of the call, in a stream.
        """
        called = self.request.called if isinstance(self.request, ChatRequest) else None
        if answer.structured is None:
            return {"content": None, "refusal": text}
        if called is None:
            return {"content": text}
        function = {"name": called.name, "arguments": text}
        call = {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
        return {"content": None, "tool_calls": [{**(index or {}), **call}]}

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        usage = {"usage": None} if self._streams_usage else {}  # as OpenAI, in all parts but one
        return responses.event({**self._body(choices), "object": kind, **usage, **more})

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        name = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.id}"
        return {"id": name, "created": self.created, "model": self.model, "choices": choices}

    def _finish_reason(self, answer: "Answer", choice: ChoiceText) -> str:
        if answer.structured is not None:
            return "stop" if answer.structured.finished or choice.stop.reached else "length"
        if self.tells or answer.tokens:
            return responses.finish_reason(answer, choice, self.decoding)
        return "stop"

    def _extra(self, answers: "Sequence[Answer]") -> dict[str, Any]:
        details = [responses.details(answer, self.tells) for answer in answers]
        return {"fulcrum": details[0] if len(details) == 1 else details}


@router.post("/chat/completions", response_class=Response)
async def chat(request: ChatRequest, caller: Reader) -> Response:
    """Answer the last message of a conversation.

    The object ``fulcrum`` of the response, or of the last part of a stream, holds what
    ``fulcrum ask --json`` prints: the verdict where memory and passages disagree, each token's
    source, the passages, and what was withheld.
    """
    history, question = _parse_messages(request.messages)
    text = "\n".join(message.text for message in request.messages)
    schema, passages, earlier = request.json_schema, request.passages, request.found_earlier
    given = None if passages is None else _nodes(passages, "given")
    beside = _nodes(earlier, "earlier")
    query = Query(question, given, history, request.system, request.sources, schema, beside)
    longest = request.max_completion_tokens or request.max_tokens
    if schema:
        text += schema
        service = caller.service
        room = service.window // 4  # of which passages and schema take most
        longest = longest or min(STRUCTURED_TOKENS, service.settings.token_limit, room)
    return await _answer(caller, request, [query], caller.service.tokens(text), longest)


@router.post("/completions", response_class=Response)
async def completions(request: CompletionRequest, caller: Reader) -> Response:
    """Answer a question, or several in one batch; ``fulcrum`` is then a list.

    With ``echo``, ``logprobs`` and ``max_tokens`` 0 or 1, the prompts are no questions: their
    tokens are scored by the model alone, without passages.
    """
    service, prompts = caller.service, request.prompts
    texts = [each if isinstance(each, str) else service.decode(each) for each in prompts]
    used = sum(service.tokens(each) if isinstance(each, str) else len(each) for each in prompts)
    if request.scores:
        return await _score(caller, request, texts, used)
    given = None if request.documents is None else _nodes(request.documents, "given")
    queries = [Query(question, given, sources=request.sources) for question in texts]
    return await _answer(caller, request, queries, used, request.max_tokens)


async def _answer(
    caller: Caller,
    request: DecodingRequest,
    queries: list[Query],
    used: int,
    longest: int | None,
) -> Response:
    service = caller.service
    decoding = _decoding(service, request, longest)
    name = resolve_model(request.model, [service.model_name])
    used += service.tokens("\n".join(document.text for document in request.documents or ()))
    queries = [query for query in queries for _ in range(request.copies)]
    echo = isinstance(request, CompletionRequest) and request.echo
    choices = [
        ChoiceText(
            StopFilter(request.stops),
            f"{query.question}\n" if echo else "",
            as_json=bool(query.json_schema),
        )
        for query in queries
    ]
    reply = CompletionBuilder(request, name, decoding, used, choices, caller.administers)
    run = responses.stream_answers(service, queries, decoding, caller.client, caller.metrics)
    headers = ignored_header(request, service)
    if not request.stream:
        body = await caller.while_connected(reply.complete(run))
        return JSONResponse(body, headers=headers)
    first = await caller.while_connected(anext(run))
    return _stream(reply.stream_events(first, run), service, headers)


async def _score(
    caller: Caller, request: CompletionRequest, texts: list[str], used: int
) -> Response:
    """Score the tokens of the prompts; a prompt about a forgotten fact is refused."""
    name = resolve_model(request.model, [caller.service.model_name])
    most, predict = request.logprobs or 0, request.max_tokens == 1
    scored = await caller.while_connected(_scored(caller, request.prompts, most, predict))
    reply = CompletionBuilder(request, name, Decoding(), used, [], caller.administers)
    body = reply.scores(texts, scored)
    headers = ignored_header(request, caller.service)
    if not request.stream:
        return JSONResponse(body, headers=headers)
    return _stream(_once(responses.event(body)), caller.service, headers)


async def _scored(
    caller: Caller, prompts: list[str | list[int]], most: int, predict: bool
) -> "list[ScoredText]":
    cancelled = threading.Event()
    try:
        future = caller.service.score(prompts, most, predict, cancelled, caller.client)
        return await asyncio.wrap_future(future)
    finally:
        cancelled.set()


async def _once(item: str) -> AsyncIterator[str]:
    yield item


def _stream(
    events: AsyncIterator[str], service: "Service", headers: dict[str, Cleared]
) -> StreamingResponse:
    return StreamingResponse(
        responses.end_with_error(events, service.error_line),
        media_type=STREAMED,
        headers={"Cache-Control": "no-store", **headers},
    )


def ignored_header(request: RequestBody, service: "Service") -> dict[str, Cleared]:
    """Return the header that names the fields of a request that have no effect, if any."""
    names = request.ignored()
    if names:
        clear = service.door.open()
        names = list(filter(None, map(clear.name, names)))
    return {IGNORED: Cleared(", ".join(names))} if names else {}


def resolve_model(name: str, names: Sequence[str]) -> str:
    """Return the model of a name; the alias means the first one.

    Raises:
        ModelNotFoundError: There is no such model.
    """
    if name in names:
        return name
    if name == ALIAS:
        return names[0]
    raise ModelNotFoundError(
        f"there is no model {name[:60]!r} here; name {', '.join(names)}, or {ALIAS}"
    )


def _decoding(service: "Service", request: DecodingRequest, longest: int | None) -> Decoding:
    most = service.settings.token_limit
    greedy = request.top_p == 0  # keeps the most probable token alone
    temperature = 0.0 if greedy else request.temperature or 0.0
    drawn = secrets.randbelow(DRAWN_SEEDS) if temperature else 0  # asked again, another answer
    return Decoding(
        rule=request.rule,
        alpha=0.5 if request.alpha is None else request.alpha,
        temperature=temperature,
        top_p=1.0 if greedy or request.top_p is None else request.top_p,
        seed=drawn if request.seed is None else request.seed,
        max_new_tokens=min(longest or DEFAULT_TOKENS, most),
        reliance=request.reliance,
    )


def _parse_messages(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], str]:
    """Return the earlier turns and the question; instructions and tools are no part of them."""
    turns: list[tuple[str, str]] = []
    user_texts: list[str] = []
    for message in filter(attrgetter("is_said"), messages):
        if message.role == "user":
            user_texts.append(message.text)
        else:
            turns.append(("\n".join(user_texts), message.text))
            user_texts = []
    return turns, "\n".join(user_texts)


def _nodes(documents: Sequence[GivenPassage], name: str) -> "list[NodeWithScore]":
    """The passages of documents, whose ids begin with a name."""
    from retrieval.ingest.chunking import split_text

    return [
        node
        for number, each in enumerate(documents, start=1)
        for node in split_text(
            each.text, f"{name}-{number}", each.title, each.trust, each.date or ""
        )
    ]
