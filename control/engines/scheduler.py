"""Continuous batching: tasks share a scheduler, and join and leave its batches between two passes.

A task, such as answering one question, runs alone until it waits for the model. Then another task
runs, which may only have come; when all of them wait, every `Batch` does one forward pass, such as
the next token of all running answers. So no task waits for another's last token.

Tasks are greenlets of one thread: nothing that they do has to be thread-safe, and torch keeps to
one pool of threads, which wait actively for its next operation. (With a thread for each task
libgomp lets them sleep: a token of the packaged model then takes half as long again.)
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Protocol

from greenlet import getcurrent, greenlet


class Cancelled(BaseException):
    """Ends a task whose result is not wanted any more; no ``except Exception`` may stop it."""


class Request(Protocol):
    """What a task waits for."""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""

    @property
    def failure(self) -> BaseException | None:
        """The error that ended it early."""


class Batch(Protocol):
    """Requests that share a forward pass at every step."""

    @property
    def empty(self) -> bool:
        """Whether it holds no request."""

    def add(self, request: Any) -> None:
        """Add a request, from the next step on."""

    def remove(self, request: Any) -> None:
        """Remove a request, whether it is done or not."""

    def step(self) -> None:
        """Do one pass; a failure is set on the requests concerned."""


class _Task(greenlet):
    """A function that runs until it waits for a request.

    Attributes:
        scheduler: Whose batches its requests join.
        cancelled: Whether its result is not wanted any more; asked before every pass.
    """

    def __init__(
        self, run: Callable[[], object], scheduler: "Scheduler", cancelled: Callable[[], bool]
    ) -> None:
        super().__init__(run)
        self.scheduler, self.cancelled = scheduler, cancelled


def _never() -> bool:
    return False


class Scheduler:
    """Runs the requests of the tasks that share it; all of it belongs in one thread."""

    def __init__(self) -> None:
        """Begin without tasks."""
        self._batches: dict[Hashable, Batch] = {}
        self._waiting: list[tuple[Callable[[], bool], greenlet]] = []

    @property
    def tasks(self) -> int:
        """How many tasks wait for their requests."""
        return len(self._waiting)

    def begin(self, task: Callable[[], object], cancelled: Callable[[], bool] = _never) -> None:
        """Run a task up to its first waiting, or to its end.

        Args:
            task: Its requests join the batches of this scheduler.
            cancelled: Asked before every pass; once true, the task's request raises `Cancelled`.
        """
        _Task(task, self, cancelled).switch()

    def step(self) -> None:
        """Do one pass of every batch, and resume the tasks whose requests are done."""
        self._pass()
        waiting, self._waiting = self._waiting, []
        for over, task in waiting:
            if over():
                task.switch()
            else:
                self._waiting.append((over, task))

    def run(
        self, key: Hashable, new_batch: Callable[[], Batch], requests: Sequence[Request]
    ) -> None:
        """Run requests until they are done.

        Args:
            key: Requests of an equal key share a batch.
            new_batch: Makes it.
            requests: What to run.

        Raises:
            Cancelled: The task that asks for them is cancelled.
        """
        task, batch = getcurrent(), self._batches.setdefault(key, new_batch())
        cancelled = task.cancelled if isinstance(task, _Task) else _never

        def over() -> bool:
            return cancelled() or all(request.done for request in requests)

        shared = isinstance(task, _Task) and task.scheduler is self
        wait = partial(self._switch_to_others, over) if shared else self._pass
        try:
            for request in requests:
                batch.add(request)
            while not over():
                wait()
            if cancelled():
                raise Cancelled
        finally:
            for request in requests:
                batch.remove(request)
            if batch.empty and self._batches.get(key) is batch:
                del self._batches[key]
        for request in requests:
            if request.failure is not None:
                raise request.failure

    def _switch_to_others(self, over: Callable[[], bool]) -> None:
        import torch

        task = getcurrent()
        self._waiting.append((over, task))
        # Modes of torch belong to the thread: the others must not inherit them, nor end them.
        with torch.inference_mode(False), torch.enable_grad():
            task.parent.switch()

    def _pass(self) -> None:
        for batch in list(self._batches.values()):
            batch.step()


def current() -> Scheduler:
    """The scheduler of the running task; outside any task, a new one."""
    task = getcurrent()
    return task.scheduler if isinstance(task, _Task) else Scheduler()
