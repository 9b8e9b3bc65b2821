"""Log messages without forgotten facts."""

import logging
import threading

from control.forgetting.redaction import Redactor
from foundation.errors import FulcrumError

UNREADABLE = "(withheld: the ledger cannot be read, so what is forgotten is not known)"


def redact_logs(redactor: Redactor) -> None:
    """Redact what the root logger's handlers write, by this redactor only.

    Replaces the filter of an earlier call.
    """
    for handler in logging.getLogger().handlers:
        earlier = [each for each in handler.filters if isinstance(each, RedactedLogs)]
        handler.addFilter(RedactedLogs(redactor))  # first: no message is unfiltered
        for each in earlier:
            handler.removeFilter(each)


class RedactedLogs(logging.Filter):
    """A filter for log handlers that removes the sentences that state a forgotten fact.

    Attributes:
        redactor: Of the forgotten facts.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self.redactor = redactor
        self._filtering = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a message; messages logged by the redaction itself pass unchanged.

        Where the ledger cannot be read, the whole message is withheld.
        """
        if getattr(self._filtering, "active", False):
            return True
        self._filtering.active = True
        try:
            message = record.getMessage()
            redacted = self.redactor.redact(message).text
            if redacted != message:
                record.msg, record.args = redacted or "(withheld)", ()
        except FulcrumError:
            record.msg, record.args, record.exc_info, record.exc_text = UNREADABLE, (), None, None
        finally:
            self._filtering.active = False
        return True
