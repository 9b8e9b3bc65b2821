"""Fair turns: those who wait are served in rotation, not by arrival, and what is alike together."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from foundation.errors import BusyError

Result = TypeVar("Result")

MOST_WAITING = 64
MOST_TOGETHER = 16  # pieces of work that are done at once
SHARE = 0.5  # of the places to wait in that one client may fill


@dataclass(frozen=True)
class Piece:
    """A piece of work that waits.

    Attributes:
        work: Does pieces that are alike at once: from their items to their results, of which one
            may be the exception that it ended in.
        item: What it is done to.
        alike: Pieces with an equal value here are done at once; ``None`` is alike to nothing.
        future: Its result.
    """

    work: Callable[[Sequence[Any]], Sequence[Any]]
    item: Any
    alike: Hashable
    future: "Future[Any]" = field(default_factory=Future)


class Turns:
    """A thread that does what it is given, one piece of work after the other or several at once.

    Each client's work is done in the order given; among clients the turns go round, so that one
    who asks a hundred things does not keep the others waiting for all of them.
    """

    def __init__(
        self, most_waiting: int = MOST_WAITING, most_together: int = MOST_TOGETHER
    ) -> None:
        """Start the thread.

        Args:
            most_waiting: Pieces of work that may wait; one client fills half of the places at most.
            most_together: Pieces that are done at once.
        """
        self._most, self._most_together = most_waiting, most_together
        self._most_each = max(1, int(most_waiting * SHARE))
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Piece]] = OrderedDict()
        self._working = False
        self._closed = False
        threading.Thread(target=self._work, name="fulcrum-turns", daemon=True).start()

    def submit(self, work: Callable[[], Result], client: str = "") -> "Future[Result]":
        """Let work be done when it is its client's turn; cancelled before that, it is not done.

        Raises:
            BusyError: too much is waiting already, or the turns are over.
        """
        return self.join(lambda _: [work()], None, None, client)

    def join(
        self,
        work: Callable[[Sequence[Any]], Sequence[Any]],
        item: Any,
        alike: Hashable,
        client: str = "",
    ) -> "Future[Any]":
        """Let work be done, together with what is alike and waits then; the rest as `submit`."""
        piece = Piece(work, item, alike)
        with self._changed:
            if self._closed:
                raise BusyError("the server is shutting down; ask again in a moment")
            if self._count() >= self._most:
                raise BusyError(f"{self._most} questions are waiting already; ask again later")
            if self._count(client) >= self._most_each:
                raise BusyError(
                    f"{self._most_each} of your questions are waiting already; "
                    "ask again when some are answered"
                )
            self._waiting.setdefault(client, deque()).append(piece)
            self._changed.notify()
        return piece.future

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for their turn."""
        with self._changed:
            return self._count()

    @property
    def idle(self) -> bool:
        """Whether nothing is being done and nothing waits."""
        with self._changed:
            return not self._working and not self._count()

    def close(self) -> None:
        """Take nothing more, and drop what waits; what is being done goes on to its end."""
        with self._changed:
            self._closed = True
            left = [piece.future for each in self._waiting.values() for piece in each]
            self._waiting.clear()
            self._changed.notify()
        for future in left:
            future.cancel()

    def _count(self, client: str | None = None) -> int:
        queues = self._waiting.values() if client is None else [self._waiting.get(client, deque())]
        return sum(not piece.future.cancelled() for queue in queues for piece in queue)

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            turn = [piece for piece in turn if piece.future.set_running_or_notify_cancel()]
            if turn:
                self._do(turn)
            del turn  # hold nothing of it while waiting for the next

    def _do(self, turn: Sequence[Piece]) -> None:
        try:
            results = turn[0].work([piece.item for piece in turn])
        except BaseException as error:  # raised where the result is read
            results = [error] * len(turn)
        for piece, result in zip(turn, results, strict=True):
            if isinstance(result, BaseException):
                piece.future.set_exception(result)
            else:
                piece.future.set_result(result)

    def _next(self) -> list[Piece] | None:
        """Wait for the next turn; ``None`` once there will be none."""
        with self._changed:
            self._working = False
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            turn = [self._taken(next(iter(self._waiting)))]
            while turn[0].alike is not None and len(turn) < self._most_together:
                alike = (
                    client
                    for client, queue in self._waiting.items()
                    if queue[0].alike == turn[0].alike
                )
                if (client := next(alike, None)) is None:
                    break
                turn.append(self._taken(client))
            self._working = True
            return turn

    def _taken(self, client: str) -> Piece:
        """The next piece of a client, whose turn comes again when the others had theirs."""
        queue = self._waiting.pop(client)
        piece = queue.popleft()
        if queue:
            self._waiting[client] = queue
        return piece
