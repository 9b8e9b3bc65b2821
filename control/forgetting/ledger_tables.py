"""The database of the ledger: its tables, on SQLite and on PostgreSQL, and its transactions."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Index, LargeBinary, UniqueConstraint, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from foundation import postgres
from foundation.errors import InputError
from foundation.sqlite import open_database, reading, writing

VARIABLE = "FULCRUM_LEDGER"
PACKAGE = "psycopg2-binary"  # the driver
DAMAGED = "put a backup of it back; the facts in it are kept nowhere else"
LOCK = 0x46554C4C  # of PostgreSQL, held while appending; spells "FULL"

# Append only: a database records which migrations were applied, and applies the rest when opened.
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "0001 events, originals",
        (
            """CREATE TABLE ledger_events (
                sequence INTEGER PRIMARY KEY,
                kind VARCHAR NOT NULL,
                record_id VARCHAR NOT NULL,
                time VARCHAR NOT NULL,
                fact VARCHAR NOT NULL,
                payload BLOB NOT NULL,
                hash BLOB NOT NULL)""",
            "CREATE INDEX ledger_events_record ON ledger_events (record_id, kind)",
            "CREATE INDEX ledger_events_fact ON ledger_events (fact)",
            """CREATE TABLE ledger_originals (
                number INTEGER PRIMARY KEY,
                record_id VARCHAR NOT NULL,
                name VARCHAR NOT NULL,
                payload BLOB NOT NULL,
                UNIQUE (record_id, name))""",
        ),
    ),
)


class Base(DeclarativeBase):
    """The tables after the newest migration."""


class Row(Base):
    """One event; no row is ever changed or removed.

    ``fact`` is the keyed hash of an added fact, empty for other events. ``payload`` is encrypted.
    ``hash`` covers the row and, through the hash before it, all rows before.
    """

    __tablename__ = "ledger_events"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    record_id: Mapped[str]
    time: Mapped[str]
    fact: Mapped[str]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    __table_args__ = (
        Index("ledger_events_record", "record_id", "kind"),
        Index("ledger_events_fact", "fact"),
    )


class Original(Base):
    """The encrypted original of a redacted text; ``name`` is a keyed hash. Not in the audit."""

    __tablename__ = "ledger_originals"
    number: Mapped[int] = mapped_column(primary_key=True)
    record_id: Mapped[str]
    name: Mapped[str]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    __table_args__ = (UniqueConstraint("record_id", "name"),)


@dataclass(frozen=True)
class Database:
    """An open database.

    Attributes:
        place: Its name in messages, without a password.
        reading: Opens a transaction that reads.
        writing: Opens one that is committed or rolled back as a whole and excludes other writers.
    """

    place: str
    reading: Callable[[], AbstractContextManager[Connection]]
    writing: Callable[[], AbstractContextManager[Connection]]


def open_tables(place: str | Path) -> Database:
    """Open or create the ledger's database.

    Args:
        place: A file for SQLite, or the URL of a SQLite or PostgreSQL database.

    Raises:
        InputError: the URL cannot be read, or a Python package is missing.
        IndexStateError: the database is damaged, cannot be reached, or refuses.
    """
    if isinstance(place, Path) or "://" not in place:
        return _open_file(Path(place))
    url = _parse(place)
    if url.get_backend_name() == "sqlite":
        return _open_file(Path(url.database or ""))
    return _open_server(url)


def _open_file(path: Path) -> Database:
    engine = open_database(path, MIGRATIONS, DAMAGED)
    # A recorded fact must survive a power failure.
    event.listen(engine, "connect", _write_through)
    engine.dispose()  # the connection opened before lacks the listener
    return Database(str(path), partial(reading, engine, path), partial(writing, engine, path))


def _write_through(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=FULL")


def _open_server(url: URL) -> Database:
    place, engine = postgres.place(url), postgres.connect(url, "the ledger", PACKAGE)
    reads = partial(_transaction, engine, place)
    writes = partial(_transaction, engine, place, locked=True)
    with writes() as connection:  # locked: concurrent creation of a table fails
        Base.metadata.create_all(connection)
    return Database(place, reads, writes)


@contextmanager
def _transaction(engine: Engine, place: str, locked: bool = False) -> Iterator[Connection]:
    with postgres.explained(place, VARIABLE), engine.begin() as connection:
        if locked:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        yield connection


def _parse(place: str) -> URL:
    url = postgres.parse(place, VARIABLE)
    if url.get_backend_name() not in ("sqlite", "postgresql") or url.database == ":memory:":
        raise InputError(
            f"{VARIABLE} names a database of the kind {url.get_backend_name()!r}, in memory or of "
            f"another make; give sqlite:///PATH or {postgres.FORM}"
        )
    return url
