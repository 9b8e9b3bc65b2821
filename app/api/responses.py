"""Answers as streams and as the objects of OpenAI's API."""

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from app.api.errors import ErrorLine, describe_error
from app.server.security import error_body
from control.forgetting.clearing import Cleared, ClearedToken
from control.forgetting.suppressor import refusal

if TYPE_CHECKING:
    from app.server.metrics import Metrics
    from app.server.service import Service
    from control.answer import Answer
    from control.decoding.generate import Decoding
    from control.scoring import ScoredText, ScoredToken
    from control.state import Query

PlacedToken = tuple[int, ClearedToken]
DONE = "data: [DONE]\n\n"
LEAST = 1e-45  # about the smallest float32 above 0, whose logarithm is a number
UNKNOWN = -9999.0  # in nats; as OpenAI's servers give it for a token that they do not score


async def stream_answers(
    service: "Service",
    queries: "Sequence[Query]",
    decoding: "Decoding",
    client: str,
    metrics: "Metrics",
) -> "AsyncIterator[PlacedToken | list[Answer]]":
    """Yield the tokens of the answers with their question's place, and last the answers.

    Closing the iterator stops decoding at the next token.
    """
    loop = asyncio.get_running_loop()
    tokens: asyncio.Queue[PlacedToken | None] = asyncio.Queue()
    cancelled, started, first = threading.Event(), time.perf_counter(), True

    def hand_over(item: PlacedToken | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(tokens.put_nowait, item)

    future = service.submit(
        queries, decoding, lambda place, token: hand_over((place, token)), cancelled, client
    )
    future.add_done_callback(lambda _: hand_over(None))
    try:
        while (item := await tokens.get()) is not None:
            if first:
                metrics.first_token.observe(time.perf_counter() - started)
                first = False
            yield item
        answers = future.result()
        for answer in answers:
            metrics.count_answer(answer)
        yield answers
    finally:
        cancelled.set()
        future.cancel()


@dataclass
class StopFilter:
    """Ends an answer before the first stop sequence; buffers what may be the start of one.

    Attributes:
        texts: The stop sequences.
        pending: Buffered text.
        reached: Whether one has occurred.
    """

    texts: Sequence[str]
    pending: str = ""
    reached: bool = False

    def feed(self, new: str, last: bool = False) -> str:
        """Add text and return what is certain to be before a stop sequence; all if ``last``."""
        if self.reached:
            return ""
        self.pending += new
        places = [place for text in self.texts if (place := self.pending.find(text)) >= 0]
        self.reached = bool(places)
        end = min(places) if places else len(self.pending) if last else self._safe_length()
        out, self.pending = self.pending[:end], self.pending[end:]
        return out

    def _safe_length(self) -> int:
        """Return the length before which no stop sequence can start."""
        for start in range(len(self.pending)):
            if any(text.startswith(self.pending[start:]) for text in self.texts):
                return start
        return len(self.pending)


@dataclass
class ChoiceText:
    """The text of one answer, while it is streamed.

    Attributes:
        stop: Ends it.
        echo: What is sent before it.
        text: What of it was sent so far.
        as_json: Whether it is JSON, of which nothing is sent before all of it is written.
    """

    stop: StopFilter
    echo: str = ""
    text: str = ""
    as_json: bool = False

    def add(self, token: ClearedToken) -> str:
        """Add a token and return the new text to send."""
        new = self.stop.feed(token.text if self.text else token.text.lstrip())
        self.text += new
        return new

    def finish(self, answer: "Answer") -> str:
        """Return the rest of the text once the answer is complete, such as its refusal."""
        if answer.structured is not None:
            new = self.stop.feed(answer.structured.text, last=True)
        elif answer.tokens and not self.as_json:
            new = self.stop.feed("", last=True)
        else:
            new = f"\n\n{answer.answer}" if self.text else answer.answer
        self.text += new
        return new


def finish_reason(answer: "Answer", choice: ChoiceText, decoding: "Decoding") -> str:
    """Return OpenAI's name for why an answer ended; a refused one was filtered."""
    if not answer.tokens:
        return "content_filter"
    if len(answer.tokens) >= decoding.max_new_tokens and not choice.stop.reached:
        return "length"
    return "stop"


def logprob(token: ClearedToken, most: int) -> dict[str, Any]:
    """Return a token's log-probability in its source's branch, as in a chat's ``logprobs``."""
    memory = token.source == "memory"
    choices = token.memory_choices if memory else token.context_choices
    log_p = token.log_p_memory if memory else token.log_p_context
    return {
        **_entry(token.text, log_p if log_p is not None else UNKNOWN),
        "top_logprobs": [_entry(each.text, _log(each.probability)) for each in choices[:most]],
    }


def plain_logprobs(tokens: Sequence[ClearedToken], most: int) -> dict[str, Any]:
    """Return those of several tokens, in the form of /v1/completions."""
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


def scored_choice(prompt: str, scored: "ScoredText") -> dict[str, Any]:
    """Return a scored prompt, and the token after it, in the form of /v1/completions."""
    if scored.forgotten:
        return {"text": refusal(prompt), "logprobs": None, "finish_reason": "content_filter"}
    following, text = scored.next, scored.text
    if following is not None and not scored.ends:
        text = Cleared(text + following.text)
    tokens = [*scored.tokens, *([following] if following else [])]
    offsets = list(accumulate((len(token.text) for token in tokens), initial=0))[:-1]
    return {
        "text": text,
        "logprobs": {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.log_p for token in tokens],
            "top_logprobs": [_alternatives(token) for token in tokens],
            "text_offset": offsets,
        },
        "finish_reason": "stop" if scored.ends else "length",
    }


def forgotten_ids(scored: "ScoredText") -> list[dict[str, str]]:
    """Return for which forgotten facts a prompt is not scored, as an answer names them."""
    return [{"id": each, "layer": "prompt"} for each in scored.forgotten]


def _alternatives(token: "ScoredToken") -> dict[Cleared, float] | None:
    """The most probable tokens in a token's place, and the token itself, as at OpenAI."""
    if token.log_p is None:
        return None
    best = dict(reversed(token.alternatives))  # of two that are written alike, the more probable
    return dict(reversed(best.items())) | {token.text: token.log_p}


def usage(prompt_tokens: int, answers: "Sequence[Answer]") -> dict[str, int]:
    """Return the numbers of tokens in request and answers."""
    completion_tokens = sum(len(answer.tokens) for answer in answers)
    completion_tokens += sum(each.structured.tokens for each in answers if each.structured)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def details(answer: "Answer", tells: bool) -> dict[str, Any]:
    """Return the whole answer, as ``fulcrum ask --json`` prints it.

    Args:
        answer: The answer.
        tells: Whether it says which forgotten facts were withheld.
    """
    return asdict(answer if tells else replace(answer, forgotten=[]))


def event(body: dict[str, Any]) -> str:
    """Return an event of a stream."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def end_with_error(events: AsyncIterator[str], line: ErrorLine) -> AsyncIterator[str]:
    """Make an exception the last event of a stream, whose status has been sent before.

    Args:
        events: The stream.
        line: As for `describe_error`.
    """
    try:
        async for each in events:
            yield each
    except Exception as error:
        status, message = describe_error(error, line)
        yield event(error_body(status, message))
    yield DONE


def _entry(text: str, value: float) -> dict[str, Any]:
    return {"token": text, "logprob": value, "bytes": list(text.encode())}


def _log(probability: float) -> float:
    return math.log(max(probability, LEAST))
