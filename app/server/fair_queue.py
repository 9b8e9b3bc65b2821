"""A queue that serves clients in rotation, not by arrival."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from control.engines.scheduler import Scheduler
from foundation.errors import BusyError, ClosingError
from foundation.text import counted
from foundation.threads import BackgroundThread

Result = TypeVar("Result")

MOST_WAITING = 64
CLIENT_SHARE = 0.5  # of the queue that one client may fill


@dataclass(frozen=True)
class Job:
    """A queued function, whether it is still wanted, and the future of its result."""

    work: Callable[[], Any]
    cancelled: Callable[[], bool]
    future: "Future[Any]" = field(default_factory=Future)


class FairQueue:
    """A thread that runs the jobs of several clients in fair order.

    Each client's jobs start in order; among clients they start in rotation, so that a client with
    a hundred jobs does not block the others. While one job waits for the language model, others
    go on.
    """

    def __init__(self, most_waiting: int = MOST_WAITING, at_once: int = 1) -> None:
        """Start the thread.

        Args:
            most_waiting: Jobs that may wait, at most half of them of one client.
            at_once: Jobs that run at once.
        """
        self._max_waiting, self._max_each = most_waiting, max(1, int(most_waiting * CLIENT_SHARE))
        self._at_once = at_once
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._running: list[Job] = []
        self._closed = False
        self._stopping = False
        BackgroundThread(self._run, "fulcrum-turns", self._stop)

    def submit(
        self,
        work: Callable[[], Result],
        client: str = "",
        cancelled: Callable[[], bool] = lambda: False,
    ) -> "Future[Result]":
        """Queue a job; cancelling its future before it starts removes it.

        Args:
            work: What to do.
            client: Whose it is.
            cancelled: Asked before every pass of the language model; see `Scheduler.begin`.

        Raises:
            BusyError: Too many jobs wait already.
            ClosingError: The queue is closed.
        """
        job = Job(work, cancelled)
        with self._changed:
            if self._closed:
                raise ClosingError
            if self._count() >= self._max_waiting:
                waiting = counted(self._max_waiting, "question is", "questions are")
                raise BusyError(f"{waiting} waiting already; ask again later")
            if self._count(client) >= self._max_each:
                raise BusyError(
                    f"{counted(self._max_each, 'of your questions is', 'of your questions are')} "
                    "waiting already; "
                    "ask again when some are answered"
                )
            self._waiting.setdefault(client, deque()).append(job)
            self._changed.notify()
        return job.future

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        with self._changed:
            return self._count()

    @property
    def idle(self) -> bool:
        """Whether no job runs and none waits."""
        with self._changed:
            return not self._running and not self._count()

    def close(self) -> None:
        """Take no more jobs and fail those that wait; running ones go on."""
        with self._changed:
            self._closed = True
            left = [job.future for each in self._waiting.values() for job in each]
            self._waiting.clear()
            self._changed.notify()
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(ClosingError())

    def _stop(self) -> None:
        """End the thread before its next pass, and fail whatever runs."""
        self._stopping = True
        self.close()

    def _count(self, client: str | None = None) -> int:
        queues = self._waiting.values() if client is None else [self._waiting.get(client, deque())]
        return sum(not job.future.cancelled() for queue in queues for job in queue)

    def _run(self) -> None:
        loop = Scheduler()
        while self._wait_for_work():
            if (job := self._next()) is not None:
                loop.begin(partial(self._run_job, job), job.cancelled)
            else:
                loop.step()
            del job  # keep no reference while waiting for the next
        for left in list(
            self._running
        ):  # whose next pass does not come; somebody may wait for them
            with suppress(InvalidStateError):
                left.future.set_exception(ClosingError())

    def _run_job(self, job: Job) -> None:
        try:
            if job.future.set_running_or_notify_cancel():
                try:
                    job.future.set_result(job.work())
                except BaseException as error:  # raised by ``future.result()``
                    with suppress(InvalidStateError):  # failed already, as the thread ended
                        job.future.set_exception(error)
        finally:
            with self._changed:
                self._running.remove(job)

    def _wait_for_work(self) -> bool:
        """Wait until there is a job; false once there will be none."""
        with self._changed:
            while not self._stopping and not self._waiting and not self._running:
                if self._closed:
                    return False
                self._changed.wait()
            return not self._stopping

    def _next(self) -> Job | None:
        """Return the next job to start, and move its client to the end of the rotation."""
        with self._changed:
            if not self._waiting or len(self._running) == self._at_once:
                return None
            client, queue = self._waiting.popitem(last=False)
            job = queue.popleft()
            if queue:
                self._waiting[client] = queue
            self._running.append(job)
            return job
