"""The tables of an index in PostgreSQL: LlamaIndex's, extended, and the index's properties."""

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Select,
    String,
    column,
    func,
    or_,
    select,
    table,
    text,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSON, REGCONFIG, TSVECTOR
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from llama_index.vector_stores.postgres import PGVectorStore

logger = logging.getLogger(__name__)

NAME = "fulcrum_passages"  # LlamaIndex puts "data_" before it
# PostgreSQL's English stemmer and stop words under our own name: see `prepare`.
LANGUAGE = "public.fulcrum_words"
# PostgreSQL ranks every passage that holds one of the words; the rarest words are used, up to this
# many passages together.
MOST_RANKED = 10_000
MOST_WORDS = 64  # of a pasted text; the first ones

# At 10^5 passages: recall@10 0.99 or more, 5 ms a query, a minute to build (docs/index.md).
M = 16
EF_CONSTRUCTION = 64
EF_SEARCH = 100
MOST_EF_SEARCH = 1000  # pgvector's bound
MOST_DIMENSIONS = 2000  # of pgvector's HNSW over float32; beyond it, search stays exact
# Building is several times slower once the graph outgrows its memory: a passage takes its vector
# and about 1 KiB of links.
LINKS_BYTES = 1024
LEAST_BUILD_MIB, MOST_BUILD_MIB = 64, 4096

PASSAGES = table(
    f"data_{NAME}",
    column("id", BigInteger),
    column("node_id", String),
    column("text", String),
    column("metadata_", JSON),
    column("embedding"),
    column("text_search_tsv", TSVECTOR),
    schema="public",
)
DOCUMENT_ID = PASSAGES.c.metadata_["ref_doc_id"].astext
CONTENT_HASH = PASSAGES.c.metadata_["content_hash"].astext
HNSW_INDEX = f"public.data_{NAME}_embedding_idx"  # as LlamaIndex names it
SETTINGS = table(
    "fulcrum_settings", column("name", String), column("value", String), schema="public"
)

PREPARE = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    f"CREATE TABLE IF NOT EXISTS {SETTINGS.fullname} "
    "(name varchar PRIMARY KEY, value varchar NOT NULL)",
)
# Not by `to_regclass` and the like: in a transaction that waited for another, they may not see yet
# what that one created.
HAS_LANGUAGE = text(
    "SELECT EXISTS (SELECT FROM pg_ts_config WHERE cfgnamespace = 'public'::regnamespace "
    "AND 'public.' || cfgname = :language)"
)
CREATE_LANGUAGE = f"CREATE TEXT SEARCH CONFIGURATION {LANGUAGE} (COPY = pg_catalog.english)"
# The extension comes with the server; creating it takes the right to create in the database.
FOLD_ACCENTS = (
    "CREATE EXTENSION IF NOT EXISTS unaccent SCHEMA public",
    f"ALTER TEXT SEARCH CONFIGURATION {LANGUAGE} ALTER MAPPING FOR hword, hword_part, word "
    "WITH public.unaccent, english_stem",
)
# The title belongs to the searched words, and passages are found by id, documents by content.
COMPLETE = (
    f"""ALTER TABLE {PASSAGES.fullname} DROP COLUMN text_search_tsv,
        ADD COLUMN text_search_tsv tsvector GENERATED ALWAYS AS (
            setweight(to_tsvector('{LANGUAGE}', coalesce(metadata_ ->> 'title', '')), 'A')
            || setweight(to_tsvector('{LANGUAGE}', text), 'B')) STORED""",
    f"CREATE INDEX {NAME}_words ON {PASSAGES.fullname} USING gin (text_search_tsv)",
    f"CREATE UNIQUE INDEX {NAME}_node_id ON {PASSAGES.fullname} (node_id)",
    f"CREATE INDEX {NAME}_content_hash ON {PASSAGES.fullname} ((metadata_ ->> 'content_hash'))",
)
PASSAGES_OF_WORDS = text(
    """
    WITH common AS (
        SELECT lexeme, share * reltuples AS passages
        FROM pg_stats, pg_class,
            unnest(most_common_elems::text::text[], most_common_elem_freqs) AS pair (lexeme, share)
        WHERE schemaname = :schema AND tablename = :table AND attname = 'text_search_tsv'
            AND pg_class.oid = to_regclass(:schema || '.' || :table)
    )
    SELECT word, coalesce(min(passages), 0) AS passages
    FROM unnest(CAST(:words AS text[])) AS word
    CROSS JOIN unnest(tsvector_to_array(to_tsvector(CAST(:language AS regconfig), word))) AS lexeme
    LEFT JOIN common USING (lexeme)
    GROUP BY word
    ORDER BY passages, word
    """
)


def prepare(connection: Connection) -> None:
    """Create what the index needs before its first passage, if it does not exist."""
    run(connection, PREPARE)
    if connection.execute(HAS_LANGUAGE, {"language": LANGUAGE}).scalar_one():
        return
    run(connection, [CREATE_LANGUAGE])
    try:
        with connection.begin_nested():
            run(connection, FOLD_ACCENTS)
    except DBAPIError as error:
        logger.info("search by words takes accents as they are written: %s", error.orig)


def open_table(
    bind: Engine | Connection,
    dimension: int,
    *,
    setup: bool = False,
    hnsw: dict[str, int] | None = None,
) -> "PGVectorStore":
    """Return LlamaIndex's store, on an engine or inside the transaction of a connection.

    SQLAlchemy's sessions neither commit nor end an open transaction of their connection, so
    several steps of the store are one transaction.

    Args:
        bind: Where its sessions begin.
        dimension: Of the vectors.
        setup: Create what is missing of extension, table and, with ``hnsw``, its index.
        hnsw: LlamaIndex's ``hnsw_kwargs``; by default what a search needs.
    """
    from llama_index.vector_stores.postgres import PGVectorStore

    # It would print what it raises as well.
    logging.getLogger(PGVectorStore.__module__).setLevel(logging.ERROR)
    return PGVectorStore(
        table_name=NAME,
        embed_dim=dimension,
        hybrid_search=True,
        text_search_config=LANGUAGE,
        perform_setup=setup,
        initialization_fail_on_error=True,
        hnsw_kwargs=hnsw if setup else {"hnsw_ef_search": EF_SEARCH},
        engine=cast(Engine, bind),
        async_engine=create_async_engine("postgresql+asyncpg://"),  # wanted, but never connects
        customize_query_fn=_order_ties,
    )


def create_table(connection: Connection, dimension: int) -> None:
    """Create LlamaIndex's table, and our columns and indexes."""
    open_table(connection, dimension, setup=True).add([])
    run(connection, COMPLETE)


def build_hnsw(connection: Connection, dimension: int) -> None:
    """Build LlamaIndex's HNSW index with enough memory."""
    passages = connection.execute(select(func.count()).select_from(PASSAGES)).scalar_one()
    size = passages * (dimension * np.dtype(np.float32).itemsize + LINKS_BYTES)
    memory = min(LEAST_BUILD_MIB + size // 2**20, MOST_BUILD_MIB)
    run(connection, [f"SET LOCAL maintenance_work_mem = '{memory}MB'"])
    try:
        with connection.begin_nested():
            _build(connection, dimension)
    except OperationalError:
        # Several workers share that memory, and a container's shared memory is often small.
        run(connection, ["SET LOCAL max_parallel_maintenance_workers = 0"])
        _build(connection, dimension)


def _build(connection: Connection, dimension: int) -> None:
    hnsw = {"hnsw_m": M, "hnsw_ef_construction": EF_CONSTRUCTION, "hnsw_ef_search": EF_SEARCH}
    open_table(connection, dimension, setup=True, hnsw=hnsw).add([])


def _order_ties(
    statement: Select[Any], table: Any, *_unused: object, **_options: object
) -> Select[Any]:
    """Order passages of the same text rank by their id."""
    return statement.order_by(table.id) if "rank" in statement.selected_columns else statement


def exists(connection: Connection, name: str) -> bool:
    """Whether there is a table or an index of this name."""
    return connection.execute(select(func.to_regclass(name))).scalar_one() is not None


def run(connection: Connection, statements: Sequence[str]) -> None:
    """Run statements one after another."""
    for statement in statements:
        connection.execute(text(statement))


def read_settings(connection: Connection) -> dict[str, str]:
    """Return the properties of the index: embedding (its name), dimension and state.

    The state is random, and a new one after each change; an index that only earlier versions wrote
    has none.
    """
    return {name: value for name, value in connection.execute(select(SETTINGS))}


def record(connection: Connection, **settings: str | int) -> None:
    """Set properties of the index."""
    rows = [{"name": name, "value": str(value)} for name, value in settings.items()]
    statement = upsert(SETTINGS)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": statement.excluded.value}
        ),
        rows,
    )


def content_words(connection: Connection, query: str) -> list[str]:
    """Return the words of a query without stop words and, on a big index, the commonest words.

    The frequency of a word comes from PostgreSQL's statistics, as of the last ``ANALYZE``.
    """
    words = re.findall(r"\w+", query.encode("utf-8", "ignore").decode())
    values = {
        "schema": PASSAGES.schema,
        "table": PASSAGES.name,
        "words": list(dict.fromkeys(words))[:MOST_WORDS],
        "language": LANGUAGE,
    }
    ranked = 0
    chosen: list[str] = []
    for word, passages in connection.execute(PASSAGES_OF_WORDS, values):
        ranked += passages
        if chosen and ranked > MOST_RANKED:
            break
        chosen.append(word)
    return chosen


def passages_containing(connection: Connection, groups: Sequence[Sequence[str]]) -> list[str]:
    """Return the ids of all passages that hold, of each group, all words of one of its phrases.

    A phrase of stop words alone, which are not indexed, may be in any passage.
    """
    phrases = [[phrase for phrase in group if re.search(r"\w", phrase)] for group in groups]
    if not phrases or not all(phrases):
        return []
    found = select(PASSAGES.c.node_id).order_by(PASSAGES.c.id)
    language = sql_cast(LANGUAGE, REGCONFIG)
    for group in phrases:
        ways = [func.plainto_tsquery(language, phrase.replace("\0", " ")) for phrase in group]
        indexed = connection.execute(select(*(func.numnode(way) for way in ways))).one()
        if all(indexed):
            any_way = or_(*(PASSAGES.c.text_search_tsv.op("@@")(way) for way in ways))
            found = found.where(any_way)
    return list(connection.execute(found).scalars())
