"""The connection of an index to a PostgreSQL server."""

from functools import partial
from typing import Any

from sqlalchemy import Engine, event

from foundation import postgres
from foundation.errors import InputError

OPTION = "--index"
PACKAGE = "llama-index-vector-stores-postgres"  # it brings the driver, psycopg2

# After a deletion, or for many passages, go on along the graph until as many are found as asked.
SEARCH_ON = "SET hnsw.iterative_scan = strict_order"  # pgvector before 0.8 passes over it

explained = partial(postgres.explained, option=OPTION)


def connect(url: str) -> tuple[Engine, str]:
    """Return an engine, which has not connected yet, and what to call its database in messages.

    Raises:
        InputError: the URL cannot be read, or a Python package is missing.
    """
    parsed = postgres.parse(url, OPTION)
    place = postgres.place(parsed)
    try:
        import llama_index.vector_stores.postgres  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{OPTION} {place} needs a package that is missing; run: pip install {PACKAGE}"
        ) from error
    engine = postgres.connect(parsed)
    event.listen(engine, "connect", _prepare)
    return engine, place


def _prepare(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(SEARCH_ON)
    connection.commit()
