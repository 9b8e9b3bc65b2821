"""Vectors in memory as of one state of the database: how they are made, and kept up with it."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from foundation.errors import IndexStateError, InputError
from retrieval.stores.sqlite_tables import Passage, Removal

FLAT = "Flat"
# The share of all vectors whose 16-bit copies are compared with the query, after one-bit codes
# chose them. Measured at 10^6 x 384: recall@10 0.96 for uniformly random vectors, the worst case,
# and 1.00 for those like passages (clustered ones, measured at 0.008: 0.98 or more); 0.004 gives
# 0.93 for random ones, and takes 9 ms of one core in place of 12.
CANDIDATE_SHARE = 0.007
LEAST_CANDIDATES, MOST_CANDIDATES = 500, 30_000  # 30,000 take 40 ms
PROBED_SHARE = 16  # an inverted file given by the user searches one in so many of its lists
GRAPH_BREADTH = 128  # efSearch of a graph given by the user; FAISS's own default is 16
CODED_DIMENSIONS = 1024  # the one-bit codes' 16-bit sums overflow beyond
TRAINING_ROWS = 100_000
ROWS_AT_ONCE = 10_000  # 15 MB of vectors of 384 dimensions

Vectors = NDArray[np.float32]


@dataclass
class FaissIndex:
    """A FAISS index and which state of the database it holds.

    Attributes:
        index: Passage numbers and their vectors.
        factory: FAISS's description of it.
        identity: Of the database's content.
        since: Generation of the database at which it was begun.
        generation: Generation up to which it has followed.
        highest: The last passage number taken in.
        gone: Numbers that are still in the index and no more in the database.
    """

    index: Any  # faiss has no type information
    factory: str
    identity: str
    since: int
    generation: int
    highest: int = 0
    gone: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        """The number of passages that can be found."""
        return int(self.index.ntotal) - len(self.gone)


class ProcessEndsError(Exception):
    """The program has come to its end while an index was being built."""


def approximate(dimension: int) -> str:
    """FAISS's description of the index for many passages.

    One bit of each dimension chooses candidates among all vectors (RaBitQ, Gao and Long 2024; a
    scan of 56 MB for 10^6 vectors of 384 dimensions), whose cosines then come from 16-bit copies.
    Nothing depends on clusters, so it finds the neighbours of any vector; see ``CANDIDATE_SHARE``.
    """
    # A random rotation makes the bits of the codes alike in worth, whatever the vectors: without
    # it, recall@10 fell to 0.61 where few dimensions held most of the variance.
    rotation = f"RR{dimension}" if dimension <= CODED_DIMENSIONS else "PCAR768"
    return f"{rotation},RaBitQfs,Refine(SQfp16)"


def empty(factory: str, dimension: int) -> Any:
    """An index without passages.

    Raises:
        InputError: FAISS does not know the description.
    """
    try:
        core = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f'FAISS has no index {factory!r}; give an index_factory string such as "Flat"'
        ) from error
    return faiss.IndexIDMap2(core)


def tune(index: Any) -> None:
    """Search an index of the user's own description more broadly than FAISS does by default."""
    parameters = faiss.ParameterSpace()
    with suppress(RuntimeError):  # another kind of index
        lists = faiss.extract_index_ivf(index.index).nlist
        parameters.set_index_parameter(index, "nprobe", max(1, lists // PROBED_SHARE))
    with suppress(RuntimeError):
        parameters.set_index_parameter(index, "efSearch", GRAPH_BREADTH)


def widen(held: FaissIndex, wanted: int) -> None:
    """Let an index of two stages look at enough candidates for so many results."""
    core = faiss.downcast_index(held.index.index)
    if isinstance(core, faiss.IndexRefine):
        share = CANDIDATE_SHARE * core.ntotal
        candidates = min(max(share, LEAST_CANDIDATES), MOST_CANDIDATES)
        core.k_factor = max(2.0, candidates / wanted)


def catch_up(held: FaissIndex, connection: Connection, generation: int) -> None:
    """Take in what was removed and added since the generation that the index holds."""
    removed = removed_numbers(connection, held.generation, held.highest, until=generation)
    if len(removed):
        if held.factory == FLAT:
            held.index.remove_ids(removed)
        else:  # most kinds cannot remove, or would mix up the numbers of the others
            held.gone.update(removed.tolist())
    add_new(held, connection)
    held.generation = generation


def add_new(held: FaissIndex, connection: Connection) -> None:
    """Add the passages with higher numbers than those taken in so far, a part at a time."""
    query = select(Passage.rowid, Passage.embedding).where(Passage.rowid > held.highest)
    rows = connection.execute(
        query.order_by(Passage.rowid).execution_options(yield_per=ROWS_AT_ONCE)
    )
    for part in rows.partitions():
        if not threading.main_thread().is_alive():
            raise ProcessEndsError
        if not held.index.is_trained:
            train(held, connection)
        held.index.add_with_ids(
            _matrix(held, part), np.array([row.rowid for row in part], np.int64)
        )
        held.highest = int(part[-1].rowid)


def train(held: FaissIndex, connection: Connection) -> None:
    """Train on passages drawn from all places of the database."""
    highest = highest_number(connection)
    numbers = np.random.default_rng(0).permutation(highest)[:TRAINING_ROWS] + 1
    rows: list[Any] = []
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        part = numbers[start : start + ROWS_AT_ONCE].tolist()
        rows += connection.execute(select(Passage.embedding).where(Passage.rowid.in_(part)))
    if not rows:
        return
    try:
        held.index.train(_matrix(held, rows))
    except RuntimeError as error:
        raise InputError(
            f"the index {held.factory!r} cannot be trained on {len(rows)} passages; "
            'give more at once, or use "Flat"'
        ) from error


def _matrix(held: FaissIndex, rows: Sequence[Any]) -> Vectors:
    try:
        vectors = np.frombuffer(b"".join(row.embedding for row in rows), "<f4")
        return vectors.reshape(len(rows), held.index.d)
    except ValueError as error:
        raise IndexStateError(
            "a vector in the index is damaged; remove the index and ingest the documents again"
        ) from error


def removed_numbers(
    connection: Connection, after: int, highest: int, until: int
) -> NDArray[np.int64]:
    """The passages up to a number that were removed in these generations."""
    query = select(Removal.passage).where(
        Removal.generation > after, Removal.generation <= until, Removal.passage <= highest
    )
    return np.fromiter(connection.execute(query).scalars(), np.int64)


def highest_number(connection: Connection) -> int:
    """The last passage number in the database; 0 without passages."""
    return connection.execute(select(func.max(Passage.rowid))).scalar_one() or 0


def passage_count(connection: Connection) -> int:
    """The number of passages in the database."""
    return connection.execute(select(func.count()).select_from(Passage)).scalar_one()
