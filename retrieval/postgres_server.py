"""The connection to a PostgreSQL server, and what goes wrong with one, each in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from foundation.errors import IndexStateError, InputError

FORM = "postgresql://user:password@host:port/database"
PACKAGE = "llama-index-vector-stores-postgres"  # it brings the driver, psycopg2
CONNECT_SECONDS = 10  # a host that swallows packets would hold a question for two minutes
PORT = 5432

# After a deletion, or for many passages, go on along the graph until as many are found as asked.
SEARCH_ON = "SET hnsw.iterative_scan = strict_order"  # pgvector before 0.8 passes over it

FORBIDDEN = "42501"  # PostgreSQL's code for it
# A connection that fails has no code; the words that tell what is wrong, the first that fit.
CONNECTION_ADVICE = (
    (r"database .* does not exist", "create the database first, or correct its name in --index"),
    (r"authentication|role|password|pg_hba", "check user and password in --index"),
    (r"connection option", f"give {FORM}"),
    (r"", "check that the server runs, and host and port in --index"),
)


def connect(url: str) -> tuple[Engine, str]:
    """Return an engine, which has not connected yet, and what to call its database in messages.

    Raises:
        InputError: the URL cannot be read, or a Python package is missing.
    """
    parsed = _parse(url)
    place = f"postgresql://{parsed.host or 'localhost'}:{parsed.port or PORT}/{parsed.database}"
    try:
        import llama_index.vector_stores.postgres  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--index {place} needs a package that is missing; run: pip install {PACKAGE}"
        ) from error
    engine = create_engine(
        parsed, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS}
    )
    event.listen(engine, "connect", _prepare)
    return engine, place


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what PostgreSQL says into one line that says what to do.

    Raises:
        IndexStateError: in place of any error of the server or of the connection to it.
    """
    try:
        yield
    except DBAPIError as error:
        lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
        reason = lines[0].replace("FATAL:  ", "")
        advice = _advice(getattr(error.orig, "pgcode", None), reason)
        raise IndexStateError(f"{place} cannot be used ({reason}); {advice}") from error


def _advice(code: str | None, reason: str) -> str:
    if "extension" in reason:
        return (
            'ask its administrator to run "CREATE EXTENSION vector" in this database'
            if code == FORBIDDEN
            else "install pgvector on the server (Debian: postgresql-17-pgvector)"
        )
    if code == FORBIDDEN:
        return "give the user the right to create and change tables in the schema public"
    if code is not None:
        return "see the server's log"
    return next(advice for pattern, advice in CONNECTION_ADVICE if re.search(pattern, reason))


def _parse(url: str) -> URL:
    """Read a URL; no message repeats it, since a password is in it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"--index is no URL that can be read; give {FORM}") from error
    if "@" in (parsed.host or ""):
        raise InputError(
            'the user or password in --index holds an "@"; write it as %40, and other signs alike'
        )
    if not parsed.database:
        raise InputError(f"--index names no database; give {FORM}")
    return parsed.set(drivername="postgresql+psycopg2")


def _prepare(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(SEARCH_ON)
    connection.commit()
