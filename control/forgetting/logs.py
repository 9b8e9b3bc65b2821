"""Log messages without forgotten facts."""

import logging
import threading

from control.forgetting.redaction import Redactor
from foundation.errors import FulcrumError

UNREADABLE = "(withheld: the ledger cannot be read, so what is forgotten is not known)"


def redact_logs(redactor: Redactor) -> None:
    """Redact what the root logger's handlers write, from now on by this redactor alone.

    However often it is called, each handler has one such filter.
    """
    for handler in logging.getLogger().handlers:
        earlier = [each for each in handler.filters if isinstance(each, RedactedLogs)]
        handler.addFilter(RedactedLogs(redactor))  # first: no message is written between the two
        for each in earlier:
            handler.removeFilter(each)


class RedactedLogs(logging.Filter):
    """Takes the sentences that state a forgotten fact out of log messages; for a handler.

    Attributes:
        redactor: Of the facts.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self.redactor = redactor
        self._within = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a message; messages of the redaction itself pass.

        Where the ledger cannot be read, the whole message is withheld.
        """
        if getattr(self._within, "it", False):
            return True
        self._within.it = True
        try:
            message = record.getMessage()
            redacted = self.redactor.redact(message).text
            if redacted != message:
                record.msg, record.args = redacted or "(withheld)", ()
        except FulcrumError:
            record.msg, record.args, record.exc_info, record.exc_text = UNREADABLE, (), None, None
        finally:
            self._within.it = False
        return True
