"""The SQLite database of the passages: its tables and migrations."""

import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode, TextNode
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    delete,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from foundation.sqlite import open_database, writing
from retrieval.embedding import Vectors
from retrieval.ingest.chunking import passage
from retrieval.ingest.documents import TITLE_KEY

# Append only: a database records which of these it has had, and runs the rest when opened.
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "0001 passages, removals, settings",
        (
            # AUTOINCREMENT never reuses a number: vectors in memory are identified by it, and
            # those above its highest one are missing there.
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
    (
        "0002 words",
        (
            # An external-content table: the texts are in the table of passages alone, and triggers
            # synchronize the words in the same transactions.
            """CREATE VIRTUAL TABLE words USING fts5(
                title, text, content='passages', content_rowid='rowid',
                tokenize='porter unicode61 remove_diacritics 2')""",
            """CREATE TRIGGER words_of_new AFTER INSERT ON passages BEGIN
                INSERT INTO words (rowid, title, text) VALUES (new.rowid, new.title, new.text);
            END""",
            """CREATE TRIGGER words_of_removed AFTER DELETE ON passages BEGIN
                INSERT INTO words (words, rowid, title, text)
                VALUES ('delete', old.rowid, old.title, old.text);
            END""",
            "INSERT INTO words (words) VALUES ('rebuild')",
        ),
    ),
    (
        # Otherwise the words of a removed passage stay on disk until SQLite merges that part of the
        # word list. A removal takes 2 ms instead of 0.5 (measured at 30,000 passages).
        "0003 removed words leave nothing",
        ("INSERT INTO words (words, rank) VALUES ('secure-delete', 1)",),
    ),
)


class PassageColumns:
    """Of a passage with its vector: float32, little-endian, of length 1."""

    rowid: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[str] = mapped_column(unique=True)
    document_id: Mapped[str] = mapped_column(index=True)
    title: Mapped[str]
    text: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    embedding: Mapped[bytes] = mapped_column(LargeBinary)


def to_row(
    node: BaseNode, vector: Vectors, content_hash: str, own_columns: Collection[str]
) -> dict[str, Any]:
    """Return the columns of a passage; ``own_columns`` are the metadata that are not details."""
    return {
        "node_id": node.node_id,
        "document_id": node.ref_doc_id or node.node_id,
        "content_hash": content_hash,
        "title": node.metadata.get(TITLE_KEY, ""),
        "text": node.get_content(),
        "details": {key: it for key, it in node.metadata.items() if key not in own_columns},
        "embedding": vector.astype("<f4").tobytes(),
    }


def to_node(row: Any, **own: str) -> TextNode:
    """Return the passage of a row, with ``own`` as further metadata."""
    metadata = {**row.details, TITLE_KEY: row.title, **own}
    return passage(row.node_id, row.document_id, row.text, metadata)


def to_vector(row: Any) -> Vectors:
    """Return the vector of a row, shape (dimension,)."""
    return np.frombuffer(row.embedding, "<f4")


class IndexTables(DeclarativeBase):
    """The tables as the newest migration leaves them."""


class PassageRow(PassageColumns, IndexTables):
    """One passage of the index."""

    __tablename__ = "passages"
    content_hash: Mapped[str] = mapped_column(index=True)


class RemovalRow(IndexTables):
    """A removed passage and the generation of its removal, for the vectors of other processes."""

    __tablename__ = "removals"
    passage: Mapped[int] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(index=True)


class SettingRow(IndexTables):
    """A property of the index: identity, generation, embedding (name), dimension, finished.

    ``finished`` is the last passage of the last completed ingestion.
    """

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


def open_passages(path: Path) -> Engine:
    """Open or create the passages' database.

    Raises:
        IndexStateError: as `foundation.sqlite.open_database`.
    """
    engine = open_database(path, MIGRATIONS)
    with writing(engine, path) as connection:
        connection.execute(
            upsert(SettingRow).on_conflict_do_nothing(),
            {"name": "identity", "value": new_identity()},
        )
    return engine


def new_identity() -> str:
    """Return a new random identity for the content, which invalidates old snapshots."""
    return uuid.uuid4().hex


def read_settings(connection: Connection) -> dict[str, str]:
    """Return the properties of the index."""
    rows = connection.execute(select(SettingRow.name, SettingRow.value))
    return {name: value for name, value in rows}


def remove(connection: Connection, condition: ColumnElement[bool], generation: int) -> int:
    """Remove passages, record it for other processes, and return how many there were."""
    numbers = select(PassageRow.rowid, literal(generation)).where(condition)
    connection.execute(insert(RemovalRow).from_select(["passage", "generation"], numbers))
    return connection.execute(delete(PassageRow).where(condition)).rowcount


def next_generation(connection: Connection) -> int:
    """Increment the generation, which counts the changes, and return it."""
    generation = int(read_settings(connection)["generation"]) + 1
    record(connection, generation=generation)
    return generation


def record(connection: Connection, **settings: str | int) -> None:
    """Set properties of the index."""
    rows = [{"name": name, "value": str(value)} for name, value in settings.items()]
    statement = upsert(SettingRow)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": statement.excluded.value}
        ),
        rows,
    )
