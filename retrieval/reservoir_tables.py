"""The SQLite database of the reservoir: its tables, and passages as rows of them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode, TextNode
from sqlalchemy import JSON, Connection, Engine, LargeBinary, delete
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column

from foundation.sqlite import open_database
from retrieval.embedding import Vectors
from retrieval.ingest.chunking import passage
from retrieval.ingest.documents import TITLE_KEY

# Append only: a database records which of these it has had, and runs the rest when opened.
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "0001 entries, erasures",
        (
            # AUTOINCREMENT never gives a number out twice: by count and highest number a process
            # knows whether the vectors that it holds are still the right ones.
            """CREATE TABLE entries (
                rowid INTEGER PRIMARY KEY AUTOINCREMENT,
                content_hash VARCHAR NOT NULL UNIQUE,
                node_id VARCHAR NOT NULL UNIQUE,
                document_id VARCHAR NOT NULL,
                title VARCHAR NOT NULL,
                text VARCHAR NOT NULL,
                details JSON NOT NULL,
                embedding_name VARCHAR NOT NULL,
                embedding BLOB NOT NULL,
                query VARCHAR NOT NULL,
                created FLOAT NOT NULL,
                useful FLOAT NOT NULL,
                uses INTEGER NOT NULL)""",
            "CREATE INDEX entries_document_id ON entries (document_id)",
            "CREATE INDEX entries_embedding_name ON entries (embedding_name)",
            "CREATE INDEX entries_created ON entries (created)",
            "CREATE INDEX entries_useful ON entries (useful)",
            "CREATE TABLE erasures (document_id VARCHAR PRIMARY KEY, time FLOAT NOT NULL)",
        ),
    ),
    # Nothing that was asked is kept; rows are written anew without it, and the old ones erased.
    ("0002 no questions", ("ALTER TABLE entries DROP COLUMN query",)),
)


class Base(DeclarativeBase):
    """The tables as the newest migration leaves them."""


class ReservoirRow(Base):
    """One passage with its vector (float32, little-endian, of length 1); times in UTC seconds."""

    __tablename__ = "entries"
    rowid: Mapped[int] = mapped_column(primary_key=True)
    content_hash: Mapped[str] = mapped_column(unique=True)
    node_id: Mapped[str] = mapped_column(unique=True)
    document_id: Mapped[str] = mapped_column(index=True)
    title: Mapped[str]
    text: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    embedding_name: Mapped[str] = mapped_column(index=True)
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    created: Mapped[float] = mapped_column(index=True)
    useful: Mapped[float] = mapped_column(index=True)
    uses: Mapped[int]


class Erasure(Base):
    """A document that was erased a moment ago, and when."""

    __tablename__ = "erasures"
    document_id: Mapped[str] = mapped_column(primary_key=True)
    time: Mapped[float]


def open_entries(path: Path) -> Engine:
    """Open or create the reservoir's database.

    Raises:
        IndexStateError: as ``foundation.sqlite.open_database``.
    """
    return open_database(path, MIGRATIONS)


@dataclass(frozen=True)
class Entry:
    """A passage in the reservoir.

    Attributes:
        node: The passage; its metadata holds the title and where the document came from.
        content_hash: SHA-256 of title and text, in hexadecimal.
        vector: Of length 1, shape (dimension,).
        created: When it came, in UTC seconds.
        useful: When it last survived the filter, in UTC seconds.
        uses: How many questions it has served.
    """

    node: TextNode
    content_hash: str
    vector: Vectors
    created: float
    useful: float
    uses: int


def content_hash(node: BaseNode) -> str:
    """Return what makes two passages the same: the hash of title and text."""
    stated = json.dumps([node.metadata.get(TITLE_KEY, ""), node.get_content()], ensure_ascii=False)
    return hashlib.sha256(stated.encode()).hexdigest()


def to_row(node: BaseNode, vector: Vectors) -> dict[str, Any]:
    """Return a passage as the columns that say what it is."""
    return {
        "content_hash": content_hash(node),
        "node_id": node.node_id,
        "document_id": node.ref_doc_id or node.node_id,
        "title": node.metadata.get(TITLE_KEY, ""),
        "text": node.get_content(),
        "details": {key: value for key, value in node.metadata.items() if key != TITLE_KEY},
        "embedding": vector.astype("<f4").tobytes(),
    }


def to_node(row: Any, with_vector: bool = False) -> TextNode:
    """Return the passage of a row."""
    metadata = {**row.details, TITLE_KEY: row.title}
    node = passage(row.node_id, row.document_id, row.text, metadata)
    if with_vector:
        node.embedding = _vector(row).tolist()
    return node


def to_entry(row: Any) -> Entry:
    """Return all that a row says."""
    return Entry(
        node=to_node(row),
        content_hash=row.content_hash,
        vector=_vector(row),
        created=row.created,
        useful=row.useful,
        uses=row.uses,
    )


def _vector(row: Any) -> Vectors:
    return np.frombuffer(row.embedding, "<f4")


def remove(
    connection: Connection, column: InstrumentedAttribute[str], values: Iterable[str]
) -> int:
    """Remove the entries with one of these values, and return how many there were."""
    return sum(
        connection.execute(delete(ReservoirRow).where(column == value)).rowcount for value in values
    )
