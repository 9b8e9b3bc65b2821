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
from app.api.responses import ChoiceText, Spoken, Stop
from app.api.schema import ChatRequest, CompletionRequest, DecodingRequest, GivenPassage, Message
from control.assistant import Query
from control.decoding.generate import Decoding
from control.decoding.trace import TokenTrace
from foundation.errors import InputError

if TYPE_CHECKING:
    from llama_index.core.schema import NodeWithScore

    from app.server.service import Service
    from control.answer import Answer

ALIAS = "fulcrum"  # a model name that always fits
DEFAULT_TOKENS = 128  # of an answer
STREAMED = "text/event-stream"
NO_INSTRUCTIONS = (
    "system messages are not followed: answers come from passages and memory alone, and are brief"
)

router = APIRouter(prefix="/v1", tags=["questions"])


@dataclass
class CompletionBuilder:
    """The answers to one request, in the form of one of the two endpoints.

    Attributes:
        asked: The request.
        model: The name of the language model.
        how: The decoding.
        prompt_tokens: Tokens of what was sent.
        choices: One for each question.
        notices: What the client should know.
        spoken: The tokens so far, by question.
        id: Of the response.
        created: When, in seconds since 1970.
    """

    asked: DecodingRequest
    model: str
    how: Decoding
    prompt_tokens: int
    choices: list[ChoiceText]
    notices: list[str]
    spoken: list[list[TokenTrace]] = field(default_factory=list)
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def chat(self) -> bool:
        """Whether it is a chat's."""
        return isinstance(self.asked, ChatRequest)

    async def whole(self, run: "AsyncIterator[Spoken | list[Answer]]") -> dict[str, Any]:
        """All of it in one object."""
        answers: list[Answer] = []
        async with aclosing(run):  # type: ignore[type-var]
            async for item in run:
                if isinstance(item, list):
                    answers = item
                else:
                    self.choices[item[0]].say(item[1])
        entries = []
        for place, answer in enumerate(answers):
            choice = self.choices[place]
            choice.end(answer)
            entry = self._entry(place, choice.text.strip(), answer.tokens, whole=True)
            entry["finish_reason"] = responses.finish_reason(answer, choice, self.how)
            entries.append(entry)
        return {
            **self._body(entries),
            "object": "chat.completion" if self.chat else "text_completion",
            "usage": responses.usage(self.prompt_tokens, answers),
            **self._extra(answers),
        }

    async def parts(
        self, first: "Spoken | list[Answer]", run: "AsyncIterator[Spoken | list[Answer]]"
    ) -> AsyncIterator[str]:
        """The events of a stream."""
        async with aclosing(run):  # type: ignore[type-var]
            if self.chat:
                yield self._event([{**self._entry(0, ""), "finish_reason": None}])
            item = first
            while not isinstance(item, list):
                place, token = item
                new = self.choices[place].say(token)
                if new or self._wanted is not None:
                    entry = self._entry(place, new, [token])
                    yield self._event([{**entry, "finish_reason": None}])
                item = await anext(run)
        for place, answer in enumerate(item):
            choice = self.choices[place]
            if rest := choice.end(answer):
                yield self._event([{**self._entry(place, rest), "finish_reason": None}])
            entry = self._entry(place, "") | ({"delta": {}} if self.chat else {})
            entry["finish_reason"] = responses.finish_reason(answer, choice, self.how)
            last = place == len(item) - 1
            yield self._event([entry], **(self._extra(item) if last else {}))
        options = self.asked.stream_options
        if options is not None and options.include_usage:
            yield self._event([], usage=responses.usage(self.prompt_tokens, item))

    @property
    def _wanted(self) -> int | None:
        """How many alternatives to each token are wanted; ``None`` without log-probabilities."""
        if isinstance(self.asked, ChatRequest):
            return (self.asked.top_logprobs or 0) if self.asked.logprobs else None
        return self.asked.logprobs if isinstance(self.asked, CompletionRequest) else None

    def _entry(
        self, place: int, text: str, tokens: Sequence[TokenTrace] = (), whole: bool = False
    ) -> dict[str, Any]:
        """One choice, or what is new of it."""
        said: dict[str, Any] = {"text": text}
        if self.chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if whole:
                message["refusal"] = None
            said = {"message" if whole else "delta": message}
        wanted, found = self._wanted, None
        if wanted is not None and tokens:
            found = (
                {"content": [responses.logprob(token, wanted) for token in tokens]}
                if self.chat
                else responses.plain_logprobs(tokens, wanted)
            )
        return {"index": place, **said, "logprobs": found}

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return responses.event({**self._body(choices), "object": kind, **more})

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        name = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        return {"id": name, "created": self.created, "model": self.model, "choices": choices}

    def _extra(self, answers: "Sequence[Answer]") -> dict[str, Any]:
        told = [responses.details(answer, self.notices) for answer in answers]
        return {"fulcrum": told[0] if len(told) == 1 else told}


@router.post("/chat/completions", response_class=Response)
async def chat(asked: ChatRequest, caller: Reader) -> Response:
    """Answer the last message of a conversation.

    The object ``fulcrum`` of the response, or of the last part of a stream, holds what
    ``fulcrum ask --json`` prints: the verdict where memory and passages disagree, each token's
    source, the passages, and what was withheld.
    """
    history, question, instructed = _conversation(asked.messages)
    text = "\n".join(message.text for message in asked.messages)
    query = Query(question, _given(asked.documents), history)
    notices = [NO_INSTRUCTIONS] if instructed else []
    longest = asked.max_completion_tokens or asked.max_tokens
    return await _answered(caller, asked, [query], text, longest, notices)


@router.post("/completions", response_class=Response)
async def completions(asked: CompletionRequest, caller: Reader) -> Response:
    """Answer a question, or several in one batch; ``fulcrum`` is then a list."""
    given = _given(asked.documents)
    queries = [Query(question, given) for question in asked.questions]
    text = "\n".join(asked.questions)
    return await _answered(caller, asked, queries, text, asked.max_tokens, [])


async def _answered(
    caller: Caller,
    asked: DecodingRequest,
    queries: list[Query],
    text: str,
    longest: int | None,
    notices: list[str],
) -> Response:
    service = caller.service
    how = _decoding(service, asked, longest)
    name = known(asked.model, [service.model_name])
    sent = "\n".join([text, *(document.text for document in asked.documents or ())])
    choices = [ChoiceText(Stop(asked.stops)) for _ in queries]
    reply = CompletionBuilder(asked, name, how, service.tokens(sent), choices, notices)
    run = responses.answering(service, queries, how, caller.client, caller.metrics)
    if not asked.stream:
        return JSONResponse(await caller.while_here(reply.whole(run)))
    first = await caller.while_here(anext(run))
    events = responses.told_to_the_end(reply.parts(first, run))
    return StreamingResponse(events, media_type=STREAMED, headers={"Cache-Control": "no-store"})


def known(name: str, names: Sequence[str]) -> str:
    """The model that a name means.

    Raises:
        NotFoundError: It is none of these.
    """
    if name in names:
        return name
    if name == ALIAS:
        return names[0]
    raise NotFoundError(
        f"there is no model {name[:60]!r} here; name {', '.join(names)}, or {ALIAS}"
    )


def _decoding(service: "Service", asked: DecodingRequest, longest: int | None) -> Decoding:
    most = service.settings.token_limit
    if longest is not None and longest > most:
        raise InputError(f"max_tokens is {longest:,}; this server answers in up to {most:,}")
    return Decoding(
        rule=asked.rule,
        alpha=0.5 if asked.alpha is None else asked.alpha,
        temperature=asked.temperature or 0.0,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed or 0,
        max_new_tokens=longest or min(DEFAULT_TOKENS, most),
        reliance=asked.reliance,
    )


def _conversation(messages: Sequence[Message]) -> tuple[list[tuple[str, str]], str, bool]:
    """The turns so far, the question, and whether there were instructions as well."""
    turns: list[tuple[str, str]] = []
    asked: list[str] = []
    for message in messages:
        if message.role == "user":
            asked.append(message.text)
        elif message.role == "assistant":
            turns.append(("\n".join(asked), message.text))
            asked = []
    instructed = any(message.role in ("system", "developer") for message in messages)
    return turns, "\n".join(asked), instructed


def _given(documents: Sequence[GivenPassage] | None) -> "list[NodeWithScore] | None":
    """Passages to read instead of the index; ``None`` where it is to be searched."""
    if documents is None:
        return None
    from llama_index.core.schema import Document, NodeWithScore

    from retrieval.ingest.chunking import split

    nodes = []
    for number, document in enumerate(documents, start=1):
        metadata: dict[str, Any] = {"title": document.title, "content_hash": ""}
        if document.trust is not None:
            metadata["trust"] = document.trust
        whole = Document(id_=f"given-{number}", text=document.text, metadata=metadata)
        nodes += [NodeWithScore(node=node) for node in split(whole)]
    return nodes
