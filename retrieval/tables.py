"""The SQLite database of the passages: its tables, its migrations, its connections, its errors."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    create_engine,
    delete,
    event,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from foundation.errors import IndexStateError

BUSY_SECONDS = 30  # a writer waits this long for another process's batch

# Append only: a database records which of these it has had, and runs the rest when opened.
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "0001 passages, removals, settings",
        (
            # AUTOINCREMENT never gives a number out twice: the vectors that a process holds are
            # known by these numbers, and those above its highest are the ones that it lacks.
            """CREATE TABLE passages (
                rowid INTEGER PRIMARY KEY AUTOINCREMENT,
                node_id VARCHAR NOT NULL UNIQUE,
                document_id VARCHAR NOT NULL,
                content_hash VARCHAR NOT NULL,
                title VARCHAR NOT NULL,
                text VARCHAR NOT NULL,
                details JSON NOT NULL,
                embedding BLOB NOT NULL)""",
            "CREATE INDEX passages_document_id ON passages (document_id)",
            "CREATE INDEX passages_content_hash ON passages (content_hash)",
            """CREATE TABLE removals (
                passage INTEGER PRIMARY KEY,
                generation INTEGER NOT NULL)""",
            "CREATE INDEX removals_generation ON removals (generation)",
            "CREATE TABLE settings (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
            "INSERT INTO settings VALUES ('generation', '0')",
        ),
    ),
)


class Base(DeclarativeBase):
    """The tables as the newest migration leaves them."""


class Passage(Base):
    """One passage with its vector: float32, little-endian, of length 1."""

    __tablename__ = "passages"
    rowid: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[str] = mapped_column(unique=True)
    document_id: Mapped[str] = mapped_column(index=True)
    content_hash: Mapped[str] = mapped_column(index=True)
    title: Mapped[str]
    text: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    embedding: Mapped[bytes] = mapped_column(LargeBinary)


class Removal(Base):
    """A passage that is no more, so that other processes drop its vector, and since when."""

    __tablename__ = "removals"
    passage: Mapped[int] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(index=True)


class Setting(Base):
    """A fact about the whole index: identity, generation, embedding (its name), dimension."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


def open_database(path: Path) -> Engine:
    """Open or create the database and bring its tables up to date.

    Transactions are explicit: a writing one takes the lock at its start (so two writers wait for
    each other and never fail half-way), a reading one sees one state until it ends.

    Raises:
        IndexStateError: the file is not a database, is damaged, or comes from a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexStateError(
            f"{path.parent} cannot be created ({error.strerror}); choose another --home"
        ) from error
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        with writing(engine, path) as connection:
            _migrate(connection, path)
    except IndexStateError:
        engine.dispose()
        raise
    return engine


@contextmanager
def reading(engine: Engine, path: Path) -> Iterator[Connection]:
    """Open a transaction that sees one state of the database."""
    with _explained(path), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, path: Path) -> Iterator[Connection]:
    """Open a transaction that is kept whole, or undone if anything in it raises."""
    with _explained(path), engine.execution_options(writing=True).begin() as connection:
        yield connection


def new_identity() -> str:
    """Return a fresh name for the content of a database, so that old snapshots do not fit it."""
    return uuid.uuid4().hex


def read_settings(connection: Connection) -> dict[str, str]:
    """Return the facts about the whole index."""
    rows = connection.execute(select(Setting.name, Setting.value))
    return {name: value for name, value in rows}


def remove(connection: Connection, condition: ColumnElement[bool], generation: int) -> int:
    """Remove passages, leave word of it for other processes, and return how many there were."""
    numbers = select(Passage.rowid, literal(generation)).where(condition)
    connection.execute(insert(Removal).from_select(["passage", "generation"], numbers))
    return connection.execute(delete(Passage).where(condition)).rowcount


def next_generation(connection: Connection) -> int:
    """Count one more change of the passages and return its number."""
    generation = int(read_settings(connection)["generation"]) + 1
    record(connection, generation=generation)
    return generation


def record(connection: Connection, **settings: str | int) -> None:
    """Set facts about the whole index."""
    rows = [{"name": name, "value": str(value)} for name, value in settings.items()]
    statement = upsert(Setting)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": statement.excluded.value}
        ),
        rows,
    )


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin
    # A kill loses at most the batch in hand; a power cut perhaps the last ones, never the file.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection, path: Path) -> None:
    run = connection.exec_driver_sql
    run("CREATE TABLE IF NOT EXISTS migrations (name VARCHAR PRIMARY KEY)")
    applied = set(run("SELECT name FROM migrations").scalars())
    unknown = applied - {name for name, _ in MIGRATIONS}
    if unknown:
        raise IndexStateError(
            f"{path} was written by a newer version (it has had {min(unknown)!r}); "
            "update Fulcrum or choose another --home"
        )
    for name, statements in MIGRATIONS:
        if name not in applied:
            for statement in statements:
                run(statement)
            run("INSERT INTO migrations VALUES (?)", (name,))
    run("INSERT OR IGNORE INTO settings VALUES ('identity', ?)", (new_identity(),))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says of a file into one line that says what to do with it."""
    try:
        yield
    except IntegrityError:
        raise
    except OperationalError as error:
        reason = str(error.orig)
        advice = (
            "another process is writing to it; try again when it has finished"
            if "locked" in reason
            else "check its permissions and the space on its disk, or choose another --home"
        )
        raise IndexStateError(f"{path} cannot be used ({reason}); {advice}") from error
    except DatabaseError as error:
        raise IndexStateError(
            f"{path} is damaged ({error.orig}); remove it and ingest the documents again, "
            "or put a copy of it back"
        ) from error
