"""Background threads that stop before the interpreter exits."""

import atexit
import threading
import weakref
from collections.abc import Callable

JOIN_SECONDS = 30.0  # for one pass of a model, or for one that is being loaded


class BackgroundThread(threading.Thread):
    """A daemon thread that is stopped and joined when the program ends.

    CPython ends a daemon thread that is still running by unwinding its stack. Within a C++ library
    such as torch that aborts the process ("terminate called without an active exception").
    """

    def __init__(
        self, target: Callable[[], object], name: str, stop: Callable[[], object] | None = None
    ) -> None:
        """Start the thread.

        Args:
            target: What it runs.
            name: Its name.
            stop: Makes ``target`` return soon; called in another thread, at the end of the program.
        """
        super().__init__(target=target, name=name, daemon=True)
        self._stop_target = stop
        _running.add(self)
        self.start()

    def finish(self) -> None:
        """Ask the thread to stop and wait until it has."""
        if self._stop_target is not None:
            self._stop_target()
        self.join(JOIN_SECONDS)


_running: "weakref.WeakSet[BackgroundThread]" = weakref.WeakSet()


@atexit.register
def _finish_all() -> None:
    for thread in list(_running):
        if thread.is_alive():
            thread.finish()
