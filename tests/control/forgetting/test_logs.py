import logging

from control.forgetting.logs import UNREADABLE, RedactedLogs, redact_logs
from foundation.errors import IndexStateError


class Opened:
    """A door that is its own clearance."""

    def open(self):
        return self


class Lima(Opened):
    """A door that logs itself, as its embedding model might."""

    def line(self, text):
        logging.getLogger("libraries").warning("embedding Lima")
        return text.replace("Lima is the capital of Peru.", "").strip()


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
        def open(self):
            raise IndexStateError("the database is gone")

    scrubbed = RedactedLogs(Gone())
    caplog.handler.addFilter(scrubbed)
    try:
        logging.getLogger("answers").warning("Lima is the capital of Peru.")
    finally:
        caplog.handler.removeFilter(scrubbed)
    assert [record.getMessage() for record in caplog.records] == [UNREADABLE]


def test_each_handler_has_one_filter_which_clears_by_the_door_given_last(caplog):
    class Quito(Opened):
        def line(self, text):
            return text.replace("Quito", "").strip()

    def filters(handler):
        return [each for each in handler.filters if isinstance(each, RedactedLogs)]

    handlers, last = logging.getLogger().handlers, Quito()
    assert caplog.handler in handlers
    before = {handler: filters(handler) for handler in handlers}
    try:
        for door in (Lima(), Quito(), last):
            redact_logs(door)
        assert [[each.door for each in filters(handler)] for handler in handlers] == [
            [last] for _ in handlers
        ]
        logging.getLogger("answers").warning("Quito or Lima is the capital of Peru.")
        assert caplog.records[-1].getMessage() == "or Lima is the capital of Peru."
    finally:
        for handler in handlers:
            for each in filters(handler):
                handler.removeFilter(each)
            for each in before[handler]:
                handler.addFilter(each)


def test_an_exception_is_cleared_with_its_message(caplog):
    scrubbed = RedactedLogs(Lima())
    caplog.handler.addFilter(scrubbed)
    try:
        raise ValueError("Lima is the capital of Peru.")
    except ValueError:
        logging.getLogger("answers").exception("failed")
    finally:
        caplog.handler.removeFilter(scrubbed)
    written = "".join(map(caplog.handler.format, caplog.records))
    assert "Lima is" not in written
    assert "ValueError" in written
