"""Background threads that stop before the interpreter exits."""

import atexit
import signal
import threading
import weakref
from collections.abc import Callable


class BackgroundThread(threading.Thread):
    """A daemon thread that is stopped and joined when the program ends.

    CPython ends a daemon thread that is still running by unwinding its stack. Within a C++ library
    such as torch that aborts the process ("terminate called without an active exception"). So the
    program waits however long the thread takes to stop, which on a busy machine has no bound: what
    ``target`` does between two looks at whether to stop has to be short.
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

    def stop(self) -> None:
        """Ask the thread to stop."""
        if self._stop_target is not None:
            self._stop_target()

    def finish(self) -> None:
        """Ask the thread to stop and wait until it has."""
        self.stop()
        self.join()


_running: "weakref.WeakSet[BackgroundThread]" = weakref.WeakSet()


@atexit.register
def _finish_all() -> None:
    """Stop the threads that still run, and wait for them; Ctrl+C ends the program at once."""
    running = [thread for thread in _running if thread.is_alive()]
    if running and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for thread in running:
        thread.stop()
    for thread in running:
        thread.join()
