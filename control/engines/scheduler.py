"""Continuous batching: tasks share one loop, and join and leave its batches between two passes.

A task, such as answering one question, goes on alone until it waits for the model. Then another one
goes on, which may only have come; when all of them wait, every `Batch` does one forward pass, such
as the next token of all answers under way. So nobody waits for another's last token.

Tasks are greenlets of one thread: nothing that they do has to be safe to use from several, and
torch keeps to one pool of threads, which wait actively for its next operation. (With a thread for
each task libgomp lets them sleep: a token of the packaged model then takes half as long again.)
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from greenlet import getcurrent, greenlet


class Cancelled(BaseException):
    """Ends a work that nobody waits for any more; no ``except Exception`` may stop it."""


class Work(Protocol):
    """What one task waits for."""

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""

    @property
    def failure(self) -> BaseException | None:
        """What ended it early."""


class Batch(Protocol):
    """Works that share a forward pass at every tick."""

    @property
    def empty(self) -> bool:
        """Whether no work is left in it."""

    def join(self, work: Any) -> None:
        """Take a work in, from the next tick on."""

    def leave(self, work: Any) -> None:
        """Let a work go, whether it is over or not."""

    def tick(self) -> None:
        """Do one pass; what fails is written on the works."""


class Scheduler:
    """Runs works for the tasks that share it; all of it belongs in one thread."""

    def __init__(self) -> None:
        """Begin without any."""
        self._batches: dict[Hashable, Batch] = {}
        self._waiting: list[tuple[Callable[[], bool], greenlet]] = []

    @property
    def tasks(self) -> int:
        """How many tasks wait for their works."""
        return len(self._waiting)

    def begin(self, task: Callable[[], object]) -> None:
        """Run a task up to where it waits for a work, or to its end."""

        def shared() -> None:
            _SHARED.set(self)  # a greenlet has a context of its own
            task()

        greenlet(shared).switch()

    def tick(self) -> None:
        """Do one pass of every batch, and let those tasks go on whose works are over."""
        self._pass()
        waiting, self._waiting = self._waiting, []
        for over, task in waiting:
            if over():
                task.switch()
            else:
                self._waiting.append((over, task))

    def run(self, key: Hashable, new_batch: Callable[[], Batch], works: Sequence[Work]) -> None:
        """Run works until they are over.

        Args:
            key: Works of an equal key share a batch.
            new_batch: Makes it.
            works: What to run.

        Raises:
            Cancelled: Nobody waits for them any more.
        """
        given_up, shared = _GIVEN_UP.get(), _SHARED.get() is self
        batch = self._batches.setdefault(key, new_batch())

        def over() -> bool:
            return given_up() or all(work.over for work in works)

        try:
            for work in works:
                batch.join(work)
            while not over():
                if shared:
                    self._let_others_go_on(over)
                else:
                    self._pass()
            if given_up():
                raise Cancelled
        finally:
            for work in works:
                batch.leave(work)
            if batch.empty and self._batches.get(key) is batch:
                del self._batches[key]
        for work in works:
            if work.failure is not None:
                raise work.failure

    def _let_others_go_on(self, over: Callable[[], bool]) -> None:
        import torch

        task = getcurrent()
        self._waiting.append((over, task))
        # Modes of torch belong to the thread: the others must not inherit them, nor end them.
        with torch.inference_mode(False), torch.enable_grad():
            task.parent.switch()

    def _pass(self) -> None:
        for batch in list(self._batches.values()):
            batch.tick()


_SHARED: "ContextVar[Scheduler | None]" = ContextVar("loop that this task shares", default=None)
_GIVEN_UP: "ContextVar[Callable[[], bool]]" = ContextVar(
    "whether nobody waits any more", default=lambda: False
)


def current() -> Scheduler:
    """The loop that this task shares; outside of any, one of its own."""
    return _SHARED.get() or Scheduler()


@contextmanager
def until(given_up: Callable[[], bool]) -> Iterator[None]:
    """Within it, works end in `Cancelled` before their next pass once that is so.

    Args:
        given_up: Asked before every pass.
    """
    token = _GIVEN_UP.set(given_up)
    try:
        yield
    finally:
        _GIVEN_UP.reset(token)
