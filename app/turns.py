"""One thing at a time, in fair turns: those who wait are served in rotation, not by arrival."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from foundation.errors import BusyError

Result = TypeVar("Result")
Waiting = tuple[Callable[[], Any], "Future[Any]"]

MOST_WAITING = 64
SHARE = 0.5  # of the places to wait in that one client may fill


class Turns:
    """A thread that does what it is given, one piece of work after the other.

    Each client's work is done in the order given; among clients the turns go round, so that one
    who asks a hundred things does not keep the others waiting for all of them.
    """

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        """Start the thread.

        Args:
            most_waiting: Pieces of work that may wait; one client fills half of the places at most.
        """
        self._most = most_waiting
        self._most_each = max(1, int(most_waiting * SHARE))
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self._working = False
        self._closed = False
        threading.Thread(target=self._work, name="fulcrum-turns", daemon=True).start()

    def submit(self, work: Callable[[], Result], client: str = "") -> "Future[Result]":
        """Let work be done when it is its client's turn; cancelled before that, it is not done.

        Raises:
            BusyError: too much is waiting already, or the turns are over.
        """
        future: Future[Result] = Future()
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
            self._waiting.setdefault(client, deque()).append((work, future))
            self._changed.notify()
        return future

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
            left = [future for each in self._waiting.values() for _, future in each]
            self._waiting.clear()
            self._changed.notify()
        for future in left:
            future.cancel()

    def _count(self, client: str | None = None) -> int:
        queues = self._waiting.values() if client is None else [self._waiting.get(client, deque())]
        return sum(not future.cancelled() for queue in queues for _, future in queue)

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            work, future = turn
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # raised where the result is read
                future.set_exception(error)
            else:
                future.set_result(result)
            del turn, work, future  # hold nothing of it while waiting for the next

    def _next(self) -> Waiting | None:
        """Wait for the next turn; ``None`` once there will be none."""
        with self._changed:
            self._working = False
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            client, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[client] = queue  # at the end: the others come first
            self._working = True
            return turn
