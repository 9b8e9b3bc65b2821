"""Answers on their way to a client, and in the objects of OpenAI's API."""

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from app.api.errors import told
from app.server.security import error_body

if TYPE_CHECKING:
    from app.server.metrics import Metrics
    from app.server.service import Service
    from control.answer import Answer
    from control.assistant import Query
    from control.decoding.generate import Decoding
    from control.decoding.trace import TokenTrace

Spoken = tuple[int, "TokenTrace"]
DONE = "data: [DONE]\n\n"
LEAST = 1e-45  # about the smallest float32 above 0, whose logarithm is a number


async def answering(
    service: "Service", queries: "Sequence[Query]", how: "Decoding", client: str, metrics: "Metrics"
) -> "AsyncIterator[Spoken | list[Answer]]":
    """The tokens of the answers, each with its question's place, and the answers last.

    Whoever stops reading ends the decoding at its next token.
    """
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[Spoken | None] = asyncio.Queue()
    cancelled, started, first = threading.Event(), time.perf_counter(), True

    def hand_over(spoken: Spoken | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(said.put_nowait, spoken)

    future = service.submit(
        queries, how, lambda place, token: hand_over((place, token)), cancelled, client
    )
    future.add_done_callback(lambda _: hand_over(None))
    try:
        while (spoken := await said.get()) is not None:
            if first:
                metrics.first_token.observe(time.perf_counter() - started)
                first = False
            yield spoken
        answers = future.result()
        for answer in answers:
            metrics.answered(answer)
        yield answers
    finally:
        cancelled.set()
        future.cancel()


@dataclass
class Stop:
    """Cuts an answer off before the first of some texts; holds back what may begin one.

    Attributes:
        texts: The texts.
        held: What is not passed on yet.
        reached: Whether one was met.
    """

    texts: Sequence[str]
    held: str = ""
    reached: bool = False

    def passed(self, new: str, last: bool = False) -> str:
        """What may be passed on, once ``new`` has come and, with ``last``, nothing more will."""
        if self.reached:
            return ""
        self.held += new
        places = [place for text in self.texts if (place := self.held.find(text)) >= 0]
        self.reached = bool(places)
        end = min(places) if places else len(self.held) if last else self._sure()
        out, self.held = self.held[:end], self.held[end:]
        return out

    def _sure(self) -> int:
        """Up to where nothing can be the beginning of a stop text."""
        for start in range(len(self.held)):
            if any(text.startswith(self.held[start:]) for text in self.texts):
                return start
        return len(self.held)


@dataclass
class ChoiceText:
    """One answer of a response, growing.

    Attributes:
        stop: Cuts it off.
        text: What has been passed on.
    """

    stop: Stop
    text: str = ""

    def say(self, token: "TokenTrace") -> str:
        """What a token adds."""
        new = self.stop.passed(token.text if self.text else token.text.lstrip())
        self.text += new
        return new

    def end(self, answer: "Answer") -> str:
        """What is left to say once the answer is known, such as that it is refused."""
        if answer.tokens:
            new = self.stop.passed("", last=True)
        else:
            new = f"\n\n{answer.answer}" if self.text else answer.answer
        self.text += new
        return new


def finish_reason(answer: "Answer", choice: ChoiceText, how: "Decoding") -> str:
    """Why an answer ended, in OpenAI's words; one that is refused was filtered."""
    if not answer.tokens:
        return "content_filter"
    if len(answer.tokens) >= how.max_new_tokens and not choice.stop.reached:
        return "length"
    return "stop"


def logprob(token: "TokenTrace", most: int) -> dict[str, Any]:
    """A token's log-probability, in the branch that it came from, as in a chat's ``logprobs``."""
    memory = token.source == "memory"
    choices = token.memory_choices if memory else token.context_choices
    return {
        **_entry(token.text, token.log_p_memory if memory else token.log_p_context),
        "top_logprobs": [_entry(each.text, _log(each.probability)) for each in choices[:most]],
    }


def plain_logprobs(tokens: "Sequence[TokenTrace]", most: int) -> dict[str, Any]:
    """The same for several tokens, in the form of /v1/completions."""
    entries = [logprob(token, most) for token in tokens]
    offsets, length = [], 0
    for entry in entries:
        offsets.append(length)
        length += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [
            {each["token"]: each["logprob"] for each in entry["top_logprobs"]} for entry in entries
        ],
        "text_offset": offsets,
    }


def usage(asked: int, answers: "Sequence[Answer]") -> dict[str, int]:
    """Tokens of what the client sent, and of the answers."""
    said = sum(len(answer.tokens) for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def details(answer: "Answer", notices: Sequence[str]) -> dict[str, Any]:
    """All that is known of an answer, as ``fulcrum ask --json`` prints it."""
    return {**asdict(answer), "notices": [*answer.notices, *notices]}


def event(body: dict[str, Any]) -> str:
    """One event of a stream."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def told_to_the_end(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """A stream whose error is its last event: the status has been sent by then."""
    try:
        async for each in events:
            yield each
    except Exception as error:
        status, message = told(error)
        yield event(error_body(status, message))
    yield DONE


def _entry(text: str, value: float) -> dict[str, Any]:
    return {"token": text, "logprob": value, "bytes": list(text.encode())}


def _log(probability: float) -> float:
    return math.log(max(probability, LEAST))
