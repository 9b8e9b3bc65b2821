"""A model behind an OpenAI-compatible server, as an engine.

Requests run in an event loop of a thread of its own and share one client. Whoever waits for them is
a task of `control.engines.scheduler`, so the drafts of all questions under way are at the server at
once, and it batches them. Tokens are checked and handed on in the task's own thread.

A forgotten fact is kept out without logits: at the token that would complete it the stream is cut,
the token is banned and the same answer is continued from there. A server that bans nothing is asked
again with sampling; after some attempts the answer ends.
"""

import asyncio
import logging
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, cast

from control.engines import base, scheduler
from control.engines.base import (
    Capabilities,
    Generation,
    GenerationRequest,
    Message,
    OnGenerated,
    ScoreRequest,
    Token,
)
from foundation.errors import FulcrumError, ModelError

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3  # samples in place of a withheld token, where none can be banned
ATTEMPT_TEMPERATURE = 0.8
STOP_SECONDS = 5.0  # that closing the connections may take
POLL = 0.05  # seconds to wait for a token while nothing else is to be done

Result = TypeVar("Result")


class Server(Protocol):
    """What one kind of server offers; `control.engines.servers` opens them."""

    name: str
    identity: str
    window: int
    capabilities: Capabilities

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Token | None]:
        """The tokens of a continuation; ``None`` last where it ended by itself."""

    async def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of each token of each continuation, in nats."""

    async def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template; empty if the server keeps it to itself."""

    async def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text; empty where the server tells no ids."""

    async def without_markup(self, text: str) -> str:
        """A text without control tokens."""

    async def close(self) -> None:
        """Release the connections."""


class ServedModel:
    """An `Engine` over a `Server`."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Server]]) -> None:
        """Connect.

        Args:
            connect: Opens the server and finds out what it can do.

        Raises:
            ModelError: It cannot be reached or has no such model.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="fulcrum-engine", daemon=True
        )
        self._thread.start()
        # Also at the end of the program: a server goes on writing for whoever stays connected.
        self._stop = weakref.finalize(self, _stop, self._loop, self._thread)
        try:
            self._server = self.start(connect()).result()
        except BaseException:
            self._stop()
            raise
        self.name, self.identity = self._server.name, self._server.identity
        self.window, self.capabilities = self._server.window, self._server.capabilities

    def room(self, max_new_tokens: int) -> int:
        """Longest prompt, in tokens, that leaves room for an answer; errors as `base.room`."""
        return base.room(self.name, self.window, max_new_tokens)

    def without_markup(self, text: str) -> str:
        """A text without control tokens."""
        return self._wait(self._server.without_markup(text))

    def render(self, messages: Sequence[Message]) -> str:
        """The messages in the chat template."""
        return self._wait(self._server.render(messages))

    def length(self, text: str) -> int:
        """How many tokens a text has, or its number of bytes, which is never less."""
        size = len(text.encode())
        if size <= self.window // 4:  # no need to ask
            return size
        [tokens] = self._wait(self._server.tokens([text]))
        return len(tokens) if tokens else size // 2

    def tokens(self, texts: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each text, outside any template; empty where there are no ids."""
        return self._wait(self._server.tokens(texts)) if texts else []

    def generate(
        self, requests: Sequence[GenerationRequest], on_token: OnGenerated | None = None
    ) -> list[Generation]:
        """Continue texts, all at once; errors as `Engine.generate`."""
        running = [
            _Running(self, request, _telling(on_token, place))
            for place, request in enumerate(requests)
        ]
        self._run(running)
        return [each.generation for each in running]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of continuations, in nats; errors as `Engine.generate`."""
        return self._wait(self._server.score(requests)) if requests else []

    def close(self) -> None:
        """Release the connections and end the thread."""
        if self._loop.is_running():
            self.start(self._server.close()).result()
        self._stop()

    def start(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Run a coroutine in the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stream(self, request: GenerationRequest) -> "_Stream":
        """The tokens of a request as they come."""
        return _Stream(self, self._server, request)

    def _run(self, requests: "Sequence[_Running | _Call]") -> None:
        key = ("engine", id(self))
        scheduler.current().run(key, _Waiting, requests)

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine; other tasks of the scheduler go on meanwhile."""
        call = _Call(self.start(work))
        self._run([call])
        try:
            return cast("Result", call.result)
        except FulcrumError:
            raise
        except Exception as error:  # an answer of another form than it should have
            raise _unreadable(self._server, error) from error


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Cancel what runs in the loop, and end its thread."""
    asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(STOP_SECONDS)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


async def _cancel_all() -> None:
    """Cancel what still runs in the loop, its open streams too, and wait for the end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _unreadable(server: Server, error: Exception) -> ModelError:
    log.debug("unreadable answer", exc_info=error)
    return ModelError(
        f"{server.name}: the server's answer cannot be read ({type(error).__name__}); it is not "
        "compatible with OpenAI's API, take another one"
    )


def _telling(on_token: OnGenerated | None, place: int) -> Callable[[Token], None]:
    return (lambda token: on_token(place, token)) if on_token else (lambda _: None)


_END = object()


class _Stream:
    """The tokens of one request, received in the engine's loop and taken in the task's thread."""

    def __init__(self, engine: ServedModel, server: Server, request: GenerationRequest) -> None:
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._server, self._request = server, request
        self._future = engine.start(self._receive())

    async def _receive(self) -> None:
        try:
            async with aclosing(self._server.stream(self._request)) as tokens:
                async for token in tokens:
                    self._arrived.put(token)
            self._arrived.put(_END)
        except FulcrumError as error:  # raised where the tokens are taken
            self._arrived.put(error)
        except Exception as error:  # an answer of another form than it should have
            self._arrived.put(_unreadable(self._server, error))

    def take(self, seconds: float) -> Any:
        """The next token, ``None`` for the end of text, ``_END``, or an error; waits so long.

        Raises:
            queue.Empty: Nothing came.
        """
        return self._arrived.get(timeout=seconds) if seconds else self._arrived.get_nowait()

    def cancel(self) -> None:
        """Want no more tokens."""
        self._future.cancel()


@dataclass(eq=False)
class _Call:
    """A coroutine's result, as a request of the scheduler."""

    future: "Future[Any]"
    failure: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.future.done()

    @property
    def result(self) -> Any:
        return self.future.result()

    def step(self, seconds: float) -> bool:
        """Wait so long; whether it is done."""
        if seconds:
            with_result = threading.Event()
            self.future.add_done_callback(lambda _: with_result.set())
            with_result.wait(seconds)
        return self.future.done()

    def cancel(self) -> None:
        """Want no result."""
        self.future.cancel()


@dataclass(eq=False)
class _Running:
    """A continuation under way, as a request of the scheduler.

    Attributes:
        engine: Where its tokens come from.
        request: What was asked for.
        tell: Called with each token once it is allowed.
        generation: What came so far.
        done: Whether nothing more is wanted.
        failure: The error that ended it.
    """

    engine: ServedModel
    request: GenerationRequest
    tell: Callable[[Token], None]
    generation: Generation = field(default_factory=Generation)
    done: bool = False
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        """Send the request."""
        self._before = base.text(self.request.prefix)
        self._banned: list[int] = []  # in the place of the next token
        self._attempts = 0  # there
        self._stream = self.engine.stream(self.request)

    def step(self, seconds: float) -> bool:
        """Take what has come, waiting so long for the first of it; whether there was anything."""
        moved = False
        while not self.done:
            try:
                item = self._stream.take(0 if moved else seconds)
            except queue.Empty:
                break
            moved = True
            try:
                self._handle(item)
            except BaseException as error:  # raised where the generation is waited for
                self._fail(error)
        return moved

    def cancel(self) -> None:
        """Want no more tokens."""
        self._stream.cancel()

    def _handle(self, item: Any) -> None:
        if isinstance(item, BaseException):
            self._fail(item)
        elif item is None:
            self.generation.finished = self.done = True
        elif item is _END:  # its length
            self.done = True
        else:
            self._take(item)

    def _fail(self, error: BaseException) -> None:
        self.failure, self.done = error, True
        self.cancel()

    def _take(self, token: Token) -> None:
        request, generation = self.request, self.generation
        before = self._before + generation.text
        withheld = request.withholds(before, token.text) if request.withholds else None
        if withheld is not None:
            self._withhold(token, withheld)
            return
        generation.tokens.append(token)
        self.tell(token)
        if len(generation.tokens) >= request.max_new_tokens or request.ended(before + token.text):
            self.done = True
            self.cancel()
        elif self._banned or self._attempts:  # the ban was for this place alone
            self._banned, self._attempts = [], 0
            self._restart()

    def _withhold(self, token: Token, fact: str) -> None:
        self.cancel()
        if fact not in self.generation.withheld:
            self.generation.withheld.append(fact)
        bans = self.engine.capabilities.bans and token.id is not None
        exhausted = len(self._banned) >= base.MOST_BANS or self._attempts >= MOST_ATTEMPTS
        if self.request.refuses(fact) or exhausted or not self.engine.capabilities.prefix:
            self.generation.blocked = self.done = True
        elif bans and token.id is not None:
            self._banned.append(token.id)
            self._restart(banned=(*self.request.banned, *self._banned))
        else:
            self._attempts += 1
            seed = self.request.seed + self._attempts
            self._restart(seed=seed, temperature=max(self.request.temperature, ATTEMPT_TEMPERATURE))

    def _restart(self, **changed: Any) -> None:
        """Continue the answer so far; with a ban or a sample, by one token."""
        left = self.request.max_new_tokens - len(self.generation.tokens)
        prefix = (*self.request.prefix, *self.generation.tokens)
        length = 1 if changed else left
        again = replace(self.request, prefix=prefix, max_new_tokens=length, **changed)
        self._stream = self.engine.stream(again)


class _Waiting:
    """The requests at one server, as a batch of the scheduler."""

    def __init__(self) -> None:
        self._requests: list[_Running | _Call] = []

    @property
    def empty(self) -> bool:
        return not self._requests

    def add(self, request: _Running | _Call) -> None:
        self._requests.append(request)

    def remove(self, request: _Running | _Call) -> None:
        if request in self._requests:
            self._requests.remove(request)
            if not request.done:
                request.cancel()

    def step(self) -> None:
        """Take what has come; where nothing has, wait a moment for the first request's."""
        moved = [request.step(0) for request in self._requests]
        waiting = [request for request in self._requests if not request.done]
        if waiting and not any(moved):
            waiting[0].step(POLL / len(waiting))
