"""The hash chain of the ledger's events: head, appending, and verification."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import DBAPIError

from control.forgetting.cipher import FIRST_LINK, LedgerCipher
from control.forgetting.ledger_tables import Row

ADDED, REMOVED = "added", "removed"
CORRECTED, WITHDRAWN = "corrected", "correction withdrawn"
ENTERED = (ADDED, REMOVED, CORRECTED, WITHDRAWN)  # events that change what is in force
ENDS = {REMOVED: ADDED, WITHDRAWN: CORRECTED}  # events that end what others made
PLACE = ("sequence", "kind", "record_id", "time", "fact")  # the columns before the payload
COLUMNS = select(*Row.__table__.columns)
AT_ONCE = 1_000  # events that are fetched together


@dataclass(frozen=True)
class Head:
    """The number and the hash of an event."""

    sequence: int
    hash: bytes


START = Head(0, FIRST_LINK)  # of an empty chain


class Chain:
    """The end of the ledger within one transaction; events are written in batches."""

    def __init__(
        self, connection: Connection, cipher: Callable[[], LedgerCipher], head: Head
    ) -> None:
        """Continue the chain.

        Args:
            connection: In a transaction that excludes other writers.
            cipher: Called when the cipher is first needed, since the first event creates the key.
            head: The last stored event.
        """
        self.connection = connection
        self.cipher = cipher
        self.head = head
        self.time = now()
        self._pending: list[dict[str, Any]] = []

    def append(self, kind: str, record_id: str, details: dict[str, Any], fact: str = "") -> None:
        """Add an event; ``write`` stores it."""
        place = (self.head.sequence + 1, kind, record_id, self.time, fact)
        payload = self.cipher().seal(json.dumps(details, ensure_ascii=False), place)
        link = self.cipher().link(self.head.hash, (*place, payload))
        row = dict(zip(PLACE, place, strict=True)) | {"payload": payload, "hash": link}
        self._pending.append(row)
        self.head = Head(place[0], link)

    def happened(self, kinds: Collection[str], since: int) -> bool:
        """Whether events of these kinds were stored after the event of this number."""
        rows = select(Row.sequence).where(Row.kind.in_(kinds), Row.sequence > since)
        return self.connection.execute(rows.limit(1)).first() is not None

    def write(self) -> None:
        """Insert the appended events into the database."""
        if self._pending:
            self.connection.execute(insert(Row), self._pending)
            self._pending = []


def now() -> str:
    """The time as the ledger writes it, ISO 8601 in UTC; later is greater."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def decrypt(row: Any, cipher: LedgerCipher) -> str | None:
    """An event's details as JSON, or ``None`` if the key is wrong or the row was changed."""
    return cipher.open(row.payload, row[: len(PLACE)])


def ends(connection: Connection) -> list[Any]:
    """The first and the last event, which may be the same one; none for an empty chain."""
    numbers = select(func.min(Row.sequence)).union(select(func.max(Row.sequence)))
    return list(connection.execute(COLUMNS.where(Row.sequence.in_(numbers))))


def last(connection: Connection) -> Head:
    """The newest event; nothing is verified."""
    newest = select(Row.sequence, Row.hash).order_by(Row.sequence.desc()).limit(1)
    row = connection.execute(newest).first()
    return START if row is None else Head(*row)


def find_truncation(connection: Connection, seen: Head) -> str | None:
    """What is wrong if an event that was seen before is missing; else ``None``."""
    if seen == START:
        return None
    stored = connection.execute(select(Row.hash).where(Row.sequence == seen.sequence)).scalar()
    if stored is None:
        return f"event {seen.sequence}, which was there before, is missing: the end was cut off"
    if stored != seen.hash:
        return f"event {seen.sequence} is another one than was there before"
    return None


class VerifiedChain:
    """The events verified so far, and which entries they leave in force.

    What is in force is decided by events that were verified, and not by a query: a row that is
    deleted, copied or changed later is not believed. Not thread-safe.

    Attributes:
        head: The last event that was verified.
        entered: By kind of event the entries that such events made and that are still in force: id
            and number of the event, in ascending order of the numbers; see `after`.
        ended: By kind of event the entries that such events ended, in the same form.
    """

    def __init__(self) -> None:
        """Start before the first event."""
        self.head = START
        self.entered: dict[str, dict[str, int]] = {kind: {} for kind in ENDS.values()}
        self.ended: dict[str, dict[str, int]] = {kind: {} for kind in ENDS}

    def verify(
        self, connection: Connection, cipher: Callable[[], LedgerCipher], upto: int | None = None
    ) -> str | None:
        """Verify the events after ``head``, as many as are intact.

        Args:
            connection: In a transaction.
            cipher: Called when there is an event to verify.
            upto: The number of the last event to verify; by default all of them.

        Returns:
            What is wrong with the first event that breaks the chain; ``None`` if none does.
        """
        number, head = self.head.sequence, self.head
        rows = COLUMNS.where(Row.sequence > number) if number else COLUMNS
        if upto is not None:
            rows = rows.where(Row.sequence <= upto)
        rows = rows.order_by(Row.sequence).execution_options(yield_per=AT_ONCE)
        link = None
        try:
            for row in connection.execute(rows):
                number += 1
                link = link or cipher().link
                if row.sequence < number:
                    return f"event {row.sequence} was put in: events are numbered from 1"
                if row.sequence > number:
                    return f"event {number} is missing: it was taken out"
                if link(head.hash, row[:-1]) != row.hash:  # all columns but the hash itself
                    return (
                        f"event {number} ({row.kind}, {row.time}) is not what was recorded there: "
                        "it was changed, moved or put in"
                    )
                self.head = head = Head(number, row.hash)
                self._apply(row)
        except (DBAPIError, TypeError, ValueError) as error:  # another type than its column's
            reason = error.orig if isinstance(error, DBAPIError) else error
            return f"an event from {head.sequence + 1} on cannot be read ({reason})"
        return None

    def _apply(self, row: Any) -> None:
        if row.kind in self.entered:
            self.entered[row.kind][row.record_id] = row.sequence
        elif row.kind in self.ended:
            self.entered[ENDS[row.kind]].pop(row.record_id, None)
            self.ended[row.kind][row.record_id] = row.sequence


def after(numbers: dict[str, int], since: int) -> dict[str, int]:
    """Those of ascending numbers that are greater; only these are looked at."""
    found = takewhile(lambda item: item[1] > since, reversed(numbers.items()))
    return dict(reversed(list(found)))
