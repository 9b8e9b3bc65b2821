"""Fair turns: those who wait are served in rotation, not by arrival."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from control.engines.scheduler import Scheduler
from foundation.errors import BusyError, ClosingError
from foundation.threads import BackgroundThread

Result = TypeVar("Result")

MOST_WAITING = 64
SHARE = 0.5  # of the places to wait in that one client may fill


@dataclass(frozen=True)
class Job:
    """A piece of work that waits, whether it is no longer wanted, and its result."""

    work: Callable[[], Any]
    cancelled: Callable[[], bool]
    future: "Future[Any]" = field(default_factory=Future)


class FairQueue:
    """A thread that does what it is given, in an order that is fair.

    Each client's work is begun in the order given; among clients the turns go round, so that one
    who asks a hundred things does not keep the others waiting for all of them. While one work waits
    for the language model, others go on.
    """

    def __init__(self, most_waiting: int = MOST_WAITING, at_once: int = 1) -> None:
        """Start the thread.

        Args:
            most_waiting: Pieces of work that may wait; one client fills half of the places at most.
            at_once: Pieces that are under way at once.
        """
        self._most, self._most_each = most_waiting, max(1, int(most_waiting * SHARE))
        self._at_once = at_once
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._under_way = 0
        self._closed = False
        self._stopping = False
        BackgroundThread(self._work, "fulcrum-turns", self._stop)

    def submit(
        self,
        work: Callable[[], Result],
        client: str = "",
        cancelled: Callable[[], bool] = lambda: False,
    ) -> "Future[Result]":
        """Let work be done when it is its client's turn; cancelled before that, it is not done.

        Args:
            work: What to do.
            client: Whose it is.
            cancelled: Asked before every pass of the language model; see `Scheduler.begin`.

        Raises:
            BusyError: too much is waiting already.
            ClosingError: the turns are over.
        """
        piece = Job(work, cancelled)
        with self._changed:
            if self._closed:
                raise ClosingError
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
            return not self._under_way and not self._count()

    def close(self) -> None:
        """Take nothing more, and drop what waits; what is being done goes on to its end."""
        with self._changed:
            self._closed = True
            left = [piece.future for each in self._waiting.values() for piece in each]
            self._waiting.clear()
            self._changed.notify()
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(ClosingError())

    def _stop(self) -> None:
        """Let the thread end before its next pass, whatever is under way."""
        self._stopping = True
        self.close()

    def _count(self, client: str | None = None) -> int:
        queues = self._waiting.values() if client is None else [self._waiting.get(client, deque())]
        return sum(not piece.future.cancelled() for queue in queues for piece in queue)

    def _work(self) -> None:
        loop = Scheduler()
        while self._anything():
            if (piece := self._next()) is not None:
                loop.begin(partial(self._do, piece), piece.cancelled)
            else:
                loop.step()
            del piece  # hold nothing of it while waiting for the next

    def _do(self, piece: Job) -> None:
        try:
            if piece.future.set_running_or_notify_cancel():
                try:
                    piece.future.set_result(piece.work())
                except BaseException as error:  # raised where the result is read
                    piece.future.set_exception(error)
        finally:
            with self._changed:
                self._under_way -= 1

    def _anything(self) -> bool:
        """Wait until there is something to do; false once there will be nothing."""
        with self._changed:
            while not self._stopping and not self._waiting and not self._under_way:
                if self._closed:
                    return False
                self._changed.wait()
            return not self._stopping

    def _next(self) -> Job | None:
        """The next piece to begin: of the client whose turn comes again after the others'."""
        with self._changed:
            if not self._waiting or self._under_way == self._at_once:
                return None
            client, queue = self._waiting.popitem(last=False)
            piece = queue.popleft()
            if queue:
                self._waiting[client] = queue
            self._under_way += 1
            return piece
