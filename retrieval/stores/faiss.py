"""FAISS index of the passages in the database: exact up to a size, then approximate.

The database is the truth: a lost or damaged snapshot costs time and nothing else.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from foundation.errors import FulcrumError, IndexStateError, InputError
from foundation.text import counted
from retrieval.embedding import Vectors
from retrieval.stores import snapshot
from retrieval.stores.snapshot import FaissIndex
from retrieval.stores.sqlite_tables import PassageRow, RemovalRow, read_settings

logger = logging.getLogger(__name__)

AUTO = "auto"
# Up to here exact search takes at most 9 ms a query (measured, 384 dimensions, one core).
FLAT_LIMIT = 100_000
SAVE_AFTER = 10_000  # catching up with more than this takes longer than writing a snapshot
REBUILT_SHARE = 10  # rebuild when one in so many of the vectors is of a removed passage
PROBE_DIMENSION = 3840  # divisible by the part counts that product quantisers use
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

Reader = Callable[[], AbstractContextManager[Connection]]


class ProcessEndsError(Exception):
    """The program ended while an index was being built."""


class VectorIndex:
    """Search by inner product over vectors of length 1, which is their cosine.

    With the factory "auto" search is exact up to ``FLAT_LIMIT`` passages. Beyond, a thread builds
    an approximate index from the database while the exact one answers queries; the first query
    after that switches to it and applies what has changed meanwhile.
    """

    def __init__(self, path: Path, factory: str, reader: Reader) -> None:
        """Start without vectors; `synchronize` reads them.

        Args:
            path: Of the snapshot.
            factory: FAISS's ``index_factory`` string, such as "Flat", or "auto".
            reader: Opens a transaction on the database, for the thread that builds an index.

        Raises:
            InputError: FAISS does not know the description.
        """
        self._path = path
        self._factory = factory
        self._reader = reader
        self._current: FaissIndex | None = None
        self._synchronized_with = ("", -1)  # identity and generation
        self._builder: threading.Thread | None = None
        self._built: FaissIndex | None = None
        self._may_build = True
        if factory != AUTO:
            create_index(factory, PROBE_DIMENSION)  # raises if the string is wrong

    def synchronize(self, connection: Connection) -> None:
        """Apply what any process has changed in the database since the last call."""
        settings = read_settings(connection)
        identity, generation = settings["identity"], int(settings["generation"])
        swapped = self._adopt_built(identity)
        if (identity, generation) == self._synchronized_with and not swapped:
            return
        if "dimension" not in settings:  # nothing was ever ingested, or all was cleared
            self._current, self._synchronized_with = None, (identity, generation)
            return
        dimension = int(settings["dimension"])
        state, size_before, rebuilt = self._current, 0, False
        if state is not None and (
            state.identity != identity or self._is_far_behind(state, connection)
        ):
            state = None
        if state is None:
            state = self._load(connection, identity, generation, dimension)
        if state is not None:
            size_before = state.size
            apply_changes(state, connection, generation)
            if self._current is not state and state.size != passage_count(connection):
                state = None  # the snapshot is incomplete
        if state is None:
            logger.info("rebuilding the vectors from the database")
            state = self._create(
                connection, self._choose_factory(passage_count(connection), dimension)
            )
            rebuilt = True
        self._current, self._synchronized_with = state, (identity, generation)
        # A big snapshot takes seconds, so it is written after a build and by `finish` only.
        if rebuilt or (state.factory == FLAT and state.size - size_before > SAVE_AFTER):
            self.save()
        self._rebuild_if_needed(state)

    def search(self, queries: Vectors, top_k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Return the nearest passages' cosines and numbers, each (queries, at most top_k).

        Best first; rows with fewer results are padded with -1.
        """
        state = self._current
        if state is None:
            shape = (len(queries), 0)
            return np.empty(shape, np.float32), np.empty(shape, np.int64)
        total = int(state.index.ntotal)
        wanted = top_k if not state.deleted else 2 * top_k
        deleted = np.fromiter(state.deleted, np.int64, len(state.deleted))
        while True:
            wanted = max(1, min(wanted, total))
            set_candidates(state, wanted)
            with _threads(len(queries)):
                cosines, numbers = state.index.search(queries, wanted)
            if not state.deleted:
                break
            present = (numbers >= 0) & ~np.isin(numbers, deleted)
            if wanted == total or present.sum(axis=1).min(initial=top_k) >= top_k:
                order = np.argsort(~present, axis=1, kind="stable")  # deleted ones to the end
                numbers = np.where(present, numbers, -1)
                numbers, cosines = (np.take_along_axis(a, order, 1) for a in (numbers, cosines))
                break
            wanted *= 4
        return np.clip(cosines[:, :top_k], -1.0, 1.0), numbers[:, :top_k]

    def save(self) -> None:
        """Write the snapshot; a failure is only logged."""
        if self._current is not None:
            snapshot.save(self._current, self._path)

    def wait(self) -> None:
        """Wait for the index being built; the next `synchronize` switches to it."""
        if self._builder is not None:
            self._builder.join()

    def _choose_factory(self, count: int, dimension: int) -> str:
        if self._factory != AUTO:
            return self._factory
        return FLAT if count <= FLAT_LIMIT else approximate_factory(dimension)

    def _is_far_behind(self, state: FaissIndex, connection: Connection) -> bool:
        """Whether so much is new that building an approximate index costs no more."""
        new = highest_number(connection) - state.highest
        return self._factory == AUTO and state.factory == FLAT and new > FLAT_LIMIT

    def _load(
        self, connection: Connection, identity: str, generation: int, dimension: int
    ) -> FaissIndex | None:
        state = snapshot.load(self._path, identity, generation, dimension)
        if state is None:
            return None
        accepted = (
            {self._factory} if self._factory != AUTO else {FLAT, approximate_factory(dimension)}
        )
        if state.factory not in accepted:
            logger.info("the snapshot %s is not used: it has other settings", self._path)
            return None
        if self._is_far_behind(state, connection):
            return None
        if state.factory != FLAT:
            tune(state.index)
            removed = removed_numbers(
                connection, state.since, state.highest, until=state.generation
            )
            numbers = faiss.vector_to_array(state.index.id_map)
            state.deleted = set(np.intersect1d(removed, numbers).tolist())
        return state

    def _create(self, connection: Connection, factory: str) -> FaissIndex:
        """Build an index of all passages that this transaction sees."""
        settings = read_settings(connection)
        dimension, generation = int(settings["dimension"]), int(settings["generation"])
        index = create_index(factory, dimension)
        state = FaissIndex(index, factory, settings["identity"], generation, generation)
        if not index.is_trained:
            train(state, connection)
        tune(index)
        add_new(state, connection)
        return state

    def _rebuild_if_needed(self, state: FaissIndex) -> None:
        """Start building another index if this one is too large or has too many deleted vectors."""
        choice = self._choose_factory(state.size, state.index.d)
        outgrown = state.factory == FLAT != choice
        fragmented = len(state.deleted) * REBUILT_SHARE > state.index.ntotal
        if (outgrown or fragmented) and self._builder is None and self._may_build:
            self._builder = threading.Thread(
                target=self._build_in_background, args=(choice,), name="index builder"
            )
            self._builder.start()

    def _build_in_background(self, factory: str) -> None:
        faiss.omp_set_num_threads(1)  # of this thread alone: the other cores answer queries
        logger.info("building another index; queries go on against the present one")
        try:
            with self._reader() as connection:
                built = self._create(connection, factory)
            snapshot.save(built, self._path)
            self._built = built
        except ProcessEndsError:
            self._may_build = False
        except (FulcrumError, RuntimeError, MemoryError) as error:
            self._may_build = False
            logger.warning("the index stays as it is, for another could not be built: %s", error)

    def _adopt_built(self, identity: str) -> bool:
        """Switch to a newly built index; whether there was one."""
        if self._builder is None or self._builder.is_alive():
            return False
        built, self._built, self._builder = self._built, None, None
        if built is None or built.identity != identity:
            return False
        self._current = built
        return True


@contextmanager
def _threads(queries: int) -> Iterator[None]:
    """Let FAISS use no more threads than there are queries.

    It splits the work by query: further threads would be idle, and waiting for them costs tens of
    milliseconds on a busy machine.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, queries))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def approximate_factory(dimension: int) -> str:
    """Return FAISS's ``index_factory`` string for many passages.

    One bit of each dimension chooses candidates among all vectors (RaBitQ, Gao and Long 2024; a
    scan of 56 MB for 10^6 vectors of 384 dimensions), whose cosines then come from 16-bit copies.
    Nothing depends on clusters, so it finds the neighbours of any vector; see ``CANDIDATE_SHARE``.
    """
    # A random rotation spreads the variance over all bits: without it, recall@10 fell to 0.61
    # where few dimensions held most of the variance.
    rotation = f"RR{dimension}" if dimension <= CODED_DIMENSIONS else "PCAR768"
    return f"{rotation},RaBitQfs,Refine(SQfp16)"


def create_index(factory: str, dimension: int) -> Any:
    """Create an index without passages.

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
    """Make an index of the user's own factory string search more than FAISS's default."""
    parameters = faiss.ParameterSpace()
    with suppress(RuntimeError):  # another kind of index
        lists = faiss.extract_index_ivf(index.index).nlist
        parameters.set_index_parameter(index, "nprobe", max(1, lists // PROBED_SHARE))
    with suppress(RuntimeError):
        parameters.set_index_parameter(index, "efSearch", GRAPH_BREADTH)


def set_candidates(state: FaissIndex, wanted: int) -> None:
    """Set how many candidates the first stage of an approximate index returns."""
    core = faiss.downcast_index(state.index.index)
    if isinstance(core, faiss.IndexRefine):
        share = CANDIDATE_SHARE * core.ntotal
        candidates = min(max(share, LEAST_CANDIDATES), MOST_CANDIDATES)
        core.k_factor = max(2.0, candidates / wanted)


def apply_changes(state: FaissIndex, connection: Connection, generation: int) -> None:
    """Remove and add what has changed in the database since the state's generation."""
    removed = removed_numbers(connection, state.generation, state.highest, until=generation)
    if len(removed):
        if state.factory == FLAT:
            state.index.remove_ids(removed)
        else:  # most kinds cannot remove, or would confuse the other ids
            state.deleted.update(removed.tolist())
    add_new(state, connection)
    state.generation = generation


def add_new(state: FaissIndex, connection: Connection) -> None:
    """Add the passages above the highest number so far, in parts."""
    query = select(PassageRow.rowid, PassageRow.embedding).where(PassageRow.rowid > state.highest)
    rows = connection.execute(
        query.order_by(PassageRow.rowid).execution_options(yield_per=ROWS_AT_ONCE)
    )
    for part in rows.partitions():
        if not threading.main_thread().is_alive():
            raise ProcessEndsError
        if not state.index.is_trained:
            train(state, connection)
        state.index.add_with_ids(
            _matrix(state, part), np.array([row.rowid for row in part], np.int64)
        )
        state.highest = int(part[-1].rowid)


def train(state: FaissIndex, connection: Connection) -> None:
    """Train the index on a random sample of the passages."""
    highest = highest_number(connection)
    numbers = np.random.default_rng(0).permutation(highest)[:TRAINING_ROWS] + 1
    rows: list[Any] = []
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        part = numbers[start : start + ROWS_AT_ONCE].tolist()
        rows += connection.execute(select(PassageRow.embedding).where(PassageRow.rowid.in_(part)))
    if not rows:
        return
    try:
        state.index.train(_matrix(state, rows))
    except RuntimeError as error:
        raise InputError(
            f"the index {state.factory!r} cannot be trained on {counted(len(rows), 'passage')}; "
            'give more at once, or use "Flat"'
        ) from error


def _matrix(state: FaissIndex, rows: Sequence[Any]) -> Vectors:
    try:
        vectors = np.frombuffer(b"".join(row.embedding for row in rows), "<f4")
        return vectors.reshape(len(rows), state.index.d)
    except ValueError as error:
        raise IndexStateError(
            "a vector in the index is damaged; remove the index and ingest the documents again"
        ) from error


def removed_numbers(
    connection: Connection, after: int, highest: int, until: int
) -> NDArray[np.int64]:
    """Return the passages up to a number that were removed in these generations."""
    query = select(RemovalRow.passage).where(
        RemovalRow.generation > after, RemovalRow.generation <= until, RemovalRow.passage <= highest
    )
    return np.fromiter(connection.execute(query).scalars(), np.int64)


def highest_number(connection: Connection) -> int:
    """Return the last passage number in the database; 0 without passages."""
    return connection.execute(select(func.max(PassageRow.rowid))).scalar_one() or 0


def passage_count(connection: Connection) -> int:
    """Return the number of passages in the database."""
    return connection.execute(select(func.count()).select_from(PassageRow)).scalar_one()
