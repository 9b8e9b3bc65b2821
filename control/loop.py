"""Continuous batching: answers join one decoding loop, and leave it, between two tokens.

Threads that share a `Loop` go on one at a time, each until its own answers wait for their next
token. Then the others go on, those who have just come too, and only when all of them wait as well
is the next token of every answer decoded, in one forward pass for each `Batch`. So nothing but
decoding has to be safe to use from several threads, and nobody waits for another's last token.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from control.groups import SequenceGroup


class GivenUp(BaseException):
    """Ends a decoding that nobody waits for any more; no ``except Exception`` may stop it."""


class Batch(Protocol):
    """Groups whose next tokens come from one forward pass."""

    @property
    def empty(self) -> bool:
        """Whether no group is left in it."""

    def join(self, group: "SequenceGroup") -> None:
        """Take a group in, from the next token on."""

    def leave(self, group: "SequenceGroup") -> None:
        """Let a group go, whether it is done or not."""

    def tick(self) -> None:
        """Decode the next token of every group; what fails is written on the groups."""


class Loop:
    """Decodes what it is given, together with what others give it meanwhile."""

    def __init__(self) -> None:
        """Begin without any answers."""
        self._batches: dict[Hashable, Batch] = {}
        self._changing = threading.Lock()
        self._taken = False
        self._ready: deque[threading.Event] = deque()  # threads that can go on
        self._waiting: list[tuple[Callable[[], bool], threading.Event]] = []  # for their answers

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Go on alone, but for where `decode` waits: there others go on meanwhile."""
        with self._changing:
            turn = None if not self._taken else threading.Event()
            self._taken = True
            if turn is not None:
                self._ready.append(turn)
        if turn is not None:
            turn.wait()
        token = _SHARED.set(self)
        try:
            yield
        finally:
            _SHARED.reset(token)
            self._hand_on()

    def decode(
        self, key: Hashable, new_batch: Callable[[], Batch], groups: "Sequence[SequenceGroup]"
    ) -> None:
        """Decode groups to their ends.

        Args:
            key: Groups of an equal key share a batch.
            new_batch: Makes it.
            groups: What to decode.

        Raises:
            GivenUp: Nobody waits for them any more.
        """
        given_up = _GIVEN_UP.get()
        batch = self._batches.setdefault(key, new_batch())

        def over() -> bool:
            return given_up() or all(group.over for group in groups)

        try:
            for group in groups:
                batch.join(group)
            while not over():
                if not self._others_go_on(over):
                    self._tick()
            if given_up():
                raise GivenUp
        finally:
            for group in groups:
                batch.leave(group)
            if batch.empty and self._batches.get(key) is batch:
                del self._batches[key]
        for group in groups:
            if group.failure is not None:
                raise group.failure

    def _tick(self) -> None:
        for batch in list(self._batches.values()):
            batch.tick()
        with self._changing:
            waiting, self._waiting = self._waiting, []
            for over, turn in waiting:
                if over():
                    self._ready.append(turn)
                else:
                    self._waiting.append((over, turn))

    def _others_go_on(self, over: Callable[[], bool]) -> bool:
        """Let another go on, if one can, until this thread's answers are over or it has to tick."""
        with self._changing:
            if not self._ready:
                return False
            turn = threading.Event()
            self._waiting.append((over, turn))
            self._ready.popleft().set()
        turn.wait()
        return True

    def _hand_on(self) -> None:
        with self._changing:
            if self._ready:
                self._ready.popleft().set()
            elif self._waiting:
                self._waiting.pop(0)[1].set()
            else:
                self._taken = False


_SHARED: "ContextVar[Loop | None]" = ContextVar("loop that this thread shares", default=None)
_GIVEN_UP: "ContextVar[Callable[[], bool]]" = ContextVar(
    "whether nobody waits any more", default=lambda: False
)


def current() -> Loop:
    """The loop that this thread shares; where it shares none, one of its own."""
    return _SHARED.get() or Loop()


@contextmanager
def until(given_up: Callable[[], bool]) -> Iterator[None]:
    """Within it, decoding ends in `GivenUp` before its next token once that is so.

    Args:
        given_up: Asked before every token, from several threads.
    """
    token = _GIVEN_UP.set(given_up)
    try:
        yield
    finally:
        _GIVEN_UP.reset(token)
