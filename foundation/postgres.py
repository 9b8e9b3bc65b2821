"""Connections to PostgreSQL servers, whose errors become one line each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from foundation.errors import IndexStateError, InputError

FORM = "postgresql://user:password@host:port/database"
CONNECT_SECONDS = 10  # a host that swallows packets would hold a question for two minutes
PORT = 5432
FORBIDDEN = "42501"  # PostgreSQL's code for it
# A connection that fails has no code; the words that tell what is wrong, the first that fit.
CONNECTION_ADVICE = (
    (r"database .* does not exist", "create the database first, or correct its name in {option}"),
    (r"authentication|role|password|pg_hba", "check user and password in {option}"),
    (r"connection option", f"give {FORM}"),
    (r"", "check that the server runs, and host and port in {option}"),
)


def parse(url: str, option: str) -> URL:
    """Parse a URL; no message repeats it, since it may hold a password.

    Args:
        url: As the user gave it.
        option: What it was given as, such as ``--index``.

    Raises:
        InputError: It cannot be read, or names no database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"{option} is no URL that can be read; give {FORM}") from error
    if "@" in (parsed.host or ""):
        raise InputError(
            f'the user or password in {option} holds an "@"; write it as %40, and other signs alike'
        )
    if not parsed.database:
        raise InputError(f"{option} names no database; give {FORM}")
    return parsed


def place(url: URL) -> str:
    """Return the name of a database for messages, without user and password."""
    return f"postgresql://{url.host or 'localhost'}:{url.port or PORT}/{url.database}"


def connect(url: URL, option: str, package: str) -> Engine:
    """Create an engine, which has not connected yet.

    Args:
        url: Of the database.
        option: What it was given as, such as ``--index``.
        package: The package to install where the driver, psycopg2, is missing.

    Raises:
        InputError: The driver is missing.
    """
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg2"),
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_SECONDS},
        )
    except ImportError as error:
        raise missing_package(url, option, package) from error


def missing_package(url: URL, option: str, package: str) -> InputError:
    """The error for a database that needs a Python package which is not installed."""
    return InputError(
        f"{option} {place(url)} needs a package that is missing; run: pip install {package}"
    )


@contextmanager
def explained(place: str, option: str) -> Iterator[None]:
    """Turn an error of PostgreSQL into one line with advice.

    Raises:
        IndexStateError: in place of any error of the server or of the connection to it.
    """
    try:
        yield
    except DBAPIError as error:
        lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
        reason = lines[0].replace("FATAL:  ", "")
        advice = _advice(getattr(error.orig, "pgcode", None), reason).format(option=option)
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
