"""SQLite databases: migrations, atomic transactions, errors in one line."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from foundation.errors import IndexStateError
from foundation.files import private_directory, private_file, restrict

START_AGAIN = "remove it and start again, or put a copy of it back"
BUSY_SECONDS = 30  # a writer waits this long for another process's transaction
LOG_SECONDS = 1  # so long it waits for readers to empty the log

Migration = tuple[str, Sequence[str]]
"""(its name, the statements that it runs)"""


def open_database(
    path: Path, migrations: Sequence[Migration], damaged: str = START_AGAIN
) -> Engine:
    """Open or create a database and bring its tables up to date.

    Transactions are explicit: a writing one takes the lock at its start (so two writers wait for
    each other and never fail half-way), a reading one sees one state until it ends.

    Only the owner may read the files.

    Args:
        path: Its file.
        migrations: Append only: the database records which of these it has had, and runs the rest
            in one transaction.
        damaged: Advice for a damaged file.

    Raises:
        IndexStateError: the file is not a database, is damaged, or comes from a newer version.
    """
    try:
        private_directory(path.parent)
        private_file(path)
        for kept in (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-shm")):
            if kept.exists():  # SQLite gives new ones the permissions of the database
                restrict(kept)
    except OSError as error:
        raise IndexStateError(
            f"{path} cannot be created ({error.strerror}); choose another --home"
        ) from error
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}
    ).execution_options(damaged=damaged)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        with writing(engine, path) as connection:
            _migrate(connection, path, migrations)
    except IndexStateError:
        engine.dispose()
        raise
    return engine


@contextmanager
def reading(engine: Engine, path: Path) -> Iterator[Connection]:
    """Open a transaction that sees one state of the database."""
    with _explained(path, engine), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, path: Path) -> Iterator[Connection]:
    """Open a transaction that is committed, or rolled back if anything in it raises."""
    with _explained(path, engine), engine.execution_options(writing=True).begin() as connection:
        yield connection


def empty_log(path: Path) -> None:
    """Move a database's log into it and empty the log, so that no removed text stays on the disk.

    What other connections still read stays in the log until the next call, or until the last
    connection is closed.
    """
    with closing(sqlite3.connect(path, timeout=LOG_SECONDS)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin
    # A kill loses at most the current transaction, a power cut perhaps the last ones.
    _log_ahead(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    # Overwrite deleted text, which would otherwise stay in the file until its place is reused.
    connection.execute("PRAGMA secure_delete=ON")


@retry(
    retry=retry_if_exception_message(match="database is locked"),
    stop=stop_after_delay(BUSY_SECONDS),
    wait=wait_random(0.01, 0.1),
    reraise=True,
)
def _log_ahead(connection: sqlite3.Connection) -> None:
    # Two processes that create a database at once: SQLite lets neither wait for the other here.
    connection.execute("PRAGMA journal_mode=WAL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection, path: Path, migrations: Sequence[Migration]) -> None:
    run = connection.exec_driver_sql
    run("CREATE TABLE IF NOT EXISTS migrations (name VARCHAR PRIMARY KEY)")
    applied = set(run("SELECT name FROM migrations").scalars())
    unknown = applied - {name for name, _ in migrations}
    if unknown:
        raise IndexStateError(
            f"{path} was written by a newer version (it has had {min(unknown)!r}); "
            "update Fulcrum or choose another --home"
        )
    for name, statements in migrations:
        if name not in applied:
            for statement in statements:
                run(statement)
            run("INSERT INTO migrations VALUES (?)", (name,))


@contextmanager
def _explained(path: Path, engine: Engine) -> Iterator[None]:
    """Turn an error of SQLite into one line with advice."""
    try:
        yield
    except IntegrityError:
        raise
    except OperationalError as error:
        reason = str(error.orig)
        if "locked" in reason:
            advice = "another process is writing to it; try again when it has finished"
        elif reason.startswith(("no such table", "no such column")):
            advice = engine.get_execution_options()["damaged"]
        else:
            advice = "check its permissions and the space on its disk, or choose another --home"
        raise IndexStateError(f"{path} cannot be used ({reason}); {advice}") from error
    except DatabaseError as error:
        advice = engine.get_execution_options()["damaged"]
        raise IndexStateError(f"{path} is damaged ({error.orig}); {advice}") from error
