"""Log messages, cleared of forgotten facts."""

import logging
import threading

from control.forgetting.clearing import Door
from foundation.errors import FulcrumError

UNREADABLE = "(withheld: the ledger cannot be read, so what is forgotten is not known)"
WITHHELD = "(withheld)"
FORMATTER = logging.Formatter()


def redact_logs(door: Door) -> None:
    """Clear what the root logger's handlers write, by this door only.

    Replaces the filter of an earlier call.
    """
    for handler in logging.getLogger().handlers:
        earlier = [each for each in handler.filters if isinstance(each, RedactedLogs)]
        handler.addFilter(RedactedLogs(door))  # first: no message is unfiltered
        for each in earlier:
            handler.removeFilter(each)


class RedactedLogs(logging.Filter):
    """A filter for log handlers that clears messages and tracebacks of forgotten facts.

    Attributes:
        door: Clears them.
    """

    def __init__(self, door: Door) -> None:
        super().__init__()
        self.door = door
        self._filtering = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Clear a message; messages logged by the clearing itself pass unchanged.

        Where the ledger cannot be read, the whole message is withheld.
        """
        if getattr(self._filtering, "active", False):
            return True
        self._filtering.active = True
        try:
            clear = self.door.open()
            message = record.getMessage()
            cleared = clear.line(message)
            if cleared != message:
                record.msg, record.args = cleared or WITHHELD, ()
            if record.exc_info and not record.exc_text:
                record.exc_text = FORMATTER.formatException(record.exc_info)
            for name in ("exc_text", "stack_info"):  # formatters take the text, not the exception
                if text := getattr(record, name):
                    setattr(record, name, clear.line(text) or WITHHELD)
        except FulcrumError:
            record.msg, record.args = UNREADABLE, ()
            record.exc_info = record.exc_text = record.stack_info = None
        finally:
            self._filtering.active = False
        return True
