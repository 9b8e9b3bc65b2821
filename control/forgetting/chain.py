"""The hash chain of the ledger's events: head, appending, and verification."""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import DBAPIError

from control.forgetting.cipher import FIRST_LINK, LedgerCipher
from control.forgetting.ledger_tables import Row
from foundation.errors import IndexStateError
from foundation.files import PRIVATE_FILE, replacing

PLACE = ("sequence", "kind", "record_id", "time", "fact")
COLUMNS = select(*Row.__table__.columns)


@dataclass(frozen=True)
class Head:
    """The number and the hash of an event."""

    sequence: int
    hash: bytes


class LedgerCheckpoint:
    """The head last seen, in a file outside the database; it is never newer than the database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), mode=PRIVATE_FILE)

    def read(self) -> Head | None:
        """Return the head, or ``None`` if nothing has been written here.

        Raises:
            IndexStateError: the file cannot be read or holds something else.
        """
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return Head(int(stored["sequence"]), bytes.fromhex(stored["hash"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexStateError(
                f"{self.path}, which says how far the ledger goes, cannot be read; put a copy of "
                "it back, or remove it to trust the ledger as it is"
            ) from error

    def advance(self, head: Head) -> None:
        """Write a head whose event is committed, unless a later one is stored."""
        # An error is ignored: the event is recorded, and the file may be older.
        with suppress(OSError, IndexStateError), self._lock:
            known = self.read()
            if known is None or known.sequence < head.sequence:
                with replacing(self.path, private=True) as new:
                    content = {"sequence": head.sequence, "hash": head.hash.hex()}
                    new.write_text(json.dumps(content), encoding="utf-8")


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
    return cipher.open(row.payload, _place(row))


def version(connection: Connection) -> int:
    """The number of the newest event; 0 if there is none."""
    return connection.execute(select(func.coalesce(func.max(Row.sequence), 0))).scalar_one()


def ends(connection: Connection) -> list[Any]:
    """The first and the last event, which may be the same one; none for an empty chain."""
    numbers = select(func.min(Row.sequence)).union(select(func.max(Row.sequence)))
    return list(connection.execute(COLUMNS.where(Row.sequence.in_(numbers))))


def last(connection: Connection) -> Head:
    """The newest event."""
    newest = select(Row.sequence, Row.hash).order_by(Row.sequence.desc()).limit(1)
    row = connection.execute(newest).first()
    return START if row is None else Head(*row)


def find_truncation(connection: Connection, seen: Head | None) -> str | None:
    """What is wrong if an event that was seen before is missing; else ``None``."""
    if seen is None:
        return None
    stored = connection.execute(select(Row.hash).where(Row.sequence == seen.sequence)).scalar()
    if stored is None:
        return f"event {seen.sequence}, which was there before, is missing: the end was cut off"
    if stored != seen.hash:
        return f"event {seen.sequence} is another one than was there before"
    return None


def find_fault(connection: Connection, cipher: Callable[[], LedgerCipher]) -> str | None:
    """What is wrong with the first event that breaks the chain; ``None`` if it is intact."""
    number, previous = 0, FIRST_LINK
    streamed = connection.execution_options(stream_results=True)
    try:
        for number, row in enumerate(streamed.execute(COLUMNS.order_by(Row.sequence)), start=1):
            if row.sequence != number:
                return f"event {number} is missing: it was taken out"
            if cipher().link(previous, (*_place(row), row.payload)) != row.hash:
                return (
                    f"event {number} ({row.kind}, {row.time}) is not what was recorded there: "
                    "it was changed, moved or put in"
                )
            previous = row.hash
    except (DBAPIError, TypeError, ValueError) as error:  # a value of another type than its column
        reason = error.orig if isinstance(error, DBAPIError) else error
        return f"event {number + 1} cannot be read ({reason})"
    return None


def _place(row: Any) -> tuple[int, str, str, str, str]:
    return (row.sequence, row.kind, row.record_id, row.time, row.fact)
