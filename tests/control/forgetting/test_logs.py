import logging

from control.forgetting.logs import UNREADABLE, RedactedLogs
from control.forgetting.redaction import Redacted
from foundation.errors import IndexStateError


class Lima:
    """A redactor that logs itself, as its embedding model might."""

    def redact(self, text):
        logging.getLogger("libraries").warning("embedding Lima")
        return Redacted(text.replace("Lima is the capital of Peru.", "").strip())


def test_a_forgotten_fact_does_not_enter_the_log(caplog):
    scrubbed = RedactedLogs(Lima())
    caplog.handler.addFilter(scrubbed)
    try:
        log = logging.getLogger("answers")
        log.warning("asked %r", "What is the capital of Chile?")
        log.warning("%s It is %s.", "Lima is the capital of Peru.", "high")
        log.warning("Lima is the capital of Peru.")
    finally:
        caplog.handler.removeFilter(scrubbed)
    said = [record.getMessage() for record in caplog.records if record.name == "answers"]
    assert said == ["asked 'What is the capital of Chile?'", "It is high.", "(withheld)"]


def test_where_the_ledger_cannot_be_read_nothing_is_written_and_nothing_breaks(caplog):
    class Gone:
        def redact(self, text):
            raise IndexStateError("the database is gone")

    scrubbed = RedactedLogs(Gone())
    caplog.handler.addFilter(scrubbed)
    try:
        logging.getLogger("answers").warning("Lima is the capital of Peru.")
    finally:
        caplog.handler.removeFilter(scrubbed)
    assert [record.getMessage() for record in caplog.records] == [UNREADABLE]
