"""Nothing forgotten is written into a log."""

import logging
import threading

from control.forgetting.redaction import Redactor
from foundation.errors import FulcrumError

UNREADABLE = "(withheld: the ledger cannot be read, so what is forgotten is not known)"


class RedactedLogs(logging.Filter):
    """Takes the sentences that state a forgotten fact out of log messages; for a handler."""

    def __init__(self, redactor: Redactor) -> None:
        """Redact by ``redactor``."""
        super().__init__()
        self._redactor = redactor
        self._within = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a message; what redaction itself may log passes.

        Where the ledger cannot be read, nothing of the message is written.
        """
        if getattr(self._within, "it", False):
            return True
        self._within.it = True
        try:
            said = record.getMessage()
            left = self._redactor.redact(said).text
            if left != said:
                record.msg, record.args = left or "(withheld)", ()
        except FulcrumError:
            record.msg, record.args, record.exc_info, record.exc_text = UNREADABLE, (), None, None
        finally:
            self._within.it = False
        return True
