"""/v1/chat/completions and /v1/completions: questions, answered with the dial."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from app.api import responses
from app.api.access import Caller, Reader
from app.api.errors import NotFoundError
from app.api.responses import ChoiceText, PlacedToken, StopFilter
from app.api.schema import ChatRequest, CompletionRequest, DecodingRequest, GivenPassage, Message
from control.assistant import Query
from control.decoding.generate import Decoding
from control.decoding.trace import TokenTrace
from foundation.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from app.server.service import Service
    from control.answer import Answer

ALIAS = "fulcrum"  # the name of whichever model is loaded
DEFAULT_TOKENS = 128  # of an answer
STREAMED = "text/event-stream"
NO_INSTRUCTIONS = (
    "system messages are not followed: answers come from passages and memory alone, and are brief"
)

router = APIRouter(prefix="/v1", tags=["questions"])


@dataclass
class CompletionBuilder:
    """Builds the response to one request, in the form of its endpoint.

    Attributes:
        request: The body of the request.
        model: The name of the language model.
        decoding: Rule, alpha, sampling and length.
        prompt_tokens: Tokens of what was sent.
        choices: One for each question.
        notices: For the client, one sentence each.
        id: Of the response.
        created: Its time, in seconds since 1970.
    """

    request: DecodingRequest
    model: str
    decoding: Decoding
    prompt_tokens: int
    choices: list[ChoiceText]
    notices: list[str]
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
            entry = self._entry(place, choice.text.strip(), answer.tokens, whole=True)
            entry["finish_reason"] = responses.finish_reason(answer, choice, self.decoding)
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
            if self.is_chat:
                yield self._event([{**self._entry(0, ""), "finish_reason": None}])
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
                yield self._event([{**self._entry(place, rest), "finish_reason": None}])
            entry = self._entry(place, "") | ({"delta": {}} if self.is_chat else {})
            entry["finish_reason"] = responses.finish_reason(answer, choice, self.decoding)
            last = place == len(item) - 1
            yield self._event([entry], **(self._extra(item) if last else {}))
        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield self._event([], usage=responses.usage(self.prompt_tokens, item))

    @property
    def _top_logprobs(self) -> int | None:
        """The number of alternatives to each token; ``None`` without log-probabilities."""
        if isinstance(self.request, ChatRequest):
            return (self.request.top_logprobs or 0) if self.request.logprobs else None
        return self.request.logprobs if isinstance(self.request, CompletionRequest) else None

    def _entry(
        self, place: int, text: str, tokens: Sequence[TokenTrace] = (), whole: bool = False
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

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return responses.event({**self._body(choices), "object": kind, **more})

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        name = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.id}"
        return {"id": name, "created": self.created, "model": self.model, "choices": choices}

    def _extra(self, answers: "Sequence[Answer]") -> dict[str, Any]:
        details = [responses.details(answer, self.notices) for answer in answers]
        return {"fulcrum": details[0] if len(details) == 1 else details}


@router.post("/chat/completions", response_class=Response)
async def chat(request: ChatRequest, caller: Reader) -> Response:
    """Answer the last message of a conversation.

    The object ``fulcrum`` of the response, or of the last part of a stream, holds what
    ``fulcrum ask --json`` prints: the verdict where memory and passages disagree, each token's
    source, the passages, and what was withheld.
    """
    history, question, instructed = _parse_messages(request.messages)
    text = "\n".join(message.text for message in request.messages)
    query = Query(question, _given_passages(request.documents), history)
    notices = [NO_INSTRUCTIONS] if instructed else []
    longest = request.max_completion_tokens or request.max_tokens
    return await _answer(caller, request, [query], text, longest, notices)


@router.post("/completions", response_class=Response)
async def completions(request: CompletionRequest, caller: Reader) -> Response:
    """Answer a question, or several in one batch; ``fulcrum`` is then a list."""
    given = _given_passages(request.documents)
    queries = [Query(question, given) for question in request.questions]
    text = "\n".join(request.questions)
    return await _answer(caller, request, queries, text, request.max_tokens, [])


async def _answer(
    caller: Caller,
    request: DecodingRequest,
    queries: list[Query],
    text: str,
    longest: int | None,
    notices: list[str],
) -> Response:
    service = caller.service
    decoding = _decoding(service, request, longest)
    name = resolve_model(request.model, [service.model_name])
    sent = "\n".join([text, *(document.text for document in request.documents or ())])
    choices = [ChoiceText(StopFilter(request.stops)) for _ in queries]
    reply = CompletionBuilder(request, name, decoding, service.tokens(sent), choices, notices)
    run = responses.stream_answers(service, queries, decoding, caller.client, caller.metrics)
    if not request.stream:
        return JSONResponse(await caller.while_connected(reply.complete(run)))
    first = await caller.while_connected(anext(run))
    events = responses.end_with_error(reply.stream_events(first, run))
    return StreamingResponse(events, media_type=STREAMED, headers={"Cache-Control": "no-store"})


def resolve_model(name: str, names: Sequence[str]) -> str:
    """Return the model of a name; the alias means the first one.

    Raises:
        NotFoundError: There is no such model.
    """
    if name in names:
        return name
    if name == ALIAS:
        return names[0]
    raise NotFoundError(
        f"there is no model {name[:60]!r} here; name {', '.join(names)}, or {ALIAS}"
    )


def _decoding(service: "Service", request: DecodingRequest, longest: int | None) -> Decoding:
    most = service.settings.token_limit
    if longest is not None and longest > most:
        raise InputError(f"max_tokens is {longest:,}; this server answers in up to {most:,}")
    return Decoding(
        rule=request.rule,
        alpha=0.5 if request.alpha is None else request.alpha,
        temperature=request.temperature or 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed or 0,
        max_new_tokens=longest or min(DEFAULT_TOKENS, most),
        reliance=request.reliance,
    )


def _parse_messages(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], str, bool]:
    """Return the earlier turns, the question, and whether there are system messages."""
    turns: list[tuple[str, str]] = []
    user_texts: list[str] = []
    for message in messages:
        if message.role == "user":
            user_texts.append(message.text)
        elif message.role == "assistant":
            turns.append(("\n".join(user_texts), message.text))
            user_texts = []
    instructed = any(message.role in ("system", "developer") for message in messages)
    return turns, "\n".join(user_texts), instructed


def _given_passages(documents: Sequence[GivenPassage] | None) -> "list[NodeWithScore] | None":
    """Passages to read instead of the index; ``None`` where the index is to be searched."""
    if documents is None:
        return None
    from retrieval.ingest.chunking import split_text

    return [
        node
        for number, each in enumerate(documents, start=1)
        for node in split_text(each.text, f"given-{number}", each.title, each.trust)
    ]
