"""The vectors in memory: a FAISS index that follows the database, exact at first, then fast.

The database is the truth. Whatever happens to the snapshot costs time and never an answer.
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
from retrieval.embedding import Vectors
from retrieval.stores import snapshot
from retrieval.stores.snapshot import FaissIndex
from retrieval.stores.sqlite_tables import Passage, Removal, read_settings

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
    """The program has come to its end while an index was being built."""


class VectorIndex:
    """Vectors of length 1, found by inner product, which for them is the cosine.

    With the description "auto" it searches exactly up to ``FLAT_LIMIT`` passages. Beyond, a thread
    builds an approximate index from the database while queries go on against the exact one; the
    first query after it is finished takes it over and what has changed since it was begun.
    """

    def __init__(self, path: Path, factory: str, reader: Reader) -> None:
        """Hold nothing yet.

        Args:
            path: Of the snapshot.
            factory: FAISS's description of the index, such as "Flat", or "auto".
            reader: Opens a transaction on the database, for the thread that builds.

        Raises:
            InputError: FAISS does not know the description.
        """
        self._path = path
        self._factory = factory
        self._reader = reader
        self._held: FaissIndex | None = None
        self._seen = ("", -1)  # identity and generation of the database at the last look
        self._builder: threading.Thread | None = None
        self._built: FaissIndex | None = None
        self._may_build = True
        if factory != AUTO:
            empty(factory, PROBE_DIMENSION)  # so that a wrong description speaks up at once

    def follow(self, connection: Connection) -> None:
        """Take in what has changed in the database since the last call, in any process."""
        settings = read_settings(connection)
        identity, generation = settings["identity"], int(settings["generation"])
        swapped = self._take_over(identity)
        if (identity, generation) == self._seen and not swapped:
            return
        if "dimension" not in settings:  # nothing was ever ingested, or all was cleared
            self._held, self._seen = None, (identity, generation)
            return
        dimension = int(settings["dimension"])
        held, known, repaired = self._held, 0, False
        if held is not None and (held.identity != identity or self._overrun(held, connection)):
            held = None
        if held is None:
            held = self._load(connection, identity, generation, dimension)
        if held is not None:
            known = held.size
            catch_up(held, connection, generation)
            if self._held is not held and held.size != passage_count(connection):
                held = None  # a snapshot that lacks something
        if held is None:
            logger.info("rebuilding the vectors from the database")
            held = self._begin(connection, self._choice(passage_count(connection), dimension))
            repaired = True
        self._held, self._seen = held, (identity, generation)
        # A big snapshot takes seconds: those are written when they are built and by `finish`.
        if repaired or (held.factory == FLAT and held.size - known > SAVE_AFTER):
            self.save()
        self._renew(held)

    def search(self, queries: Vectors, top_k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Return the nearest passages' cosines and numbers, each (queries, at most top_k).

        Best first. A row that has fewer ends in numbers of -1.
        """
        held = self._held
        if held is None:
            shape = (len(queries), 0)
            return np.empty(shape, np.float32), np.empty(shape, np.int64)
        total = int(held.index.ntotal)
        wanted = top_k if not held.gone else 2 * top_k
        gone = np.fromiter(held.gone, np.int64, len(held.gone))
        while True:
            wanted = max(1, min(wanted, total))
            widen(held, wanted)
            with _threads(len(queries)):
                cosines, numbers = held.index.search(queries, wanted)
            if not held.gone:
                break
            left = (numbers >= 0) & ~np.isin(numbers, gone)
            if wanted == total or left.sum(axis=1).min(initial=top_k) >= top_k:
                order = np.argsort(~left, axis=1, kind="stable")  # the gone ones to the end
                numbers = np.where(left, numbers, -1)
                numbers, cosines = (np.take_along_axis(a, order, 1) for a in (numbers, cosines))
                break
            wanted *= 4
        return np.clip(cosines[:, :top_k], -1.0, 1.0), numbers[:, :top_k]

    def save(self) -> None:
        """Write the snapshot. A failure is logged and harms nothing."""
        if self._held is not None:
            snapshot.save(self._held, self._path)

    def wait(self) -> None:
        """Wait for an index that is being built; the next ``follow`` takes it over."""
        if self._builder is not None:
            self._builder.join()

    def _choice(self, count: int, dimension: int) -> str:
        if self._factory != AUTO:
            return self._factory
        return FLAT if count <= FLAT_LIMIT else approximate(dimension)

    def _overrun(self, held: FaissIndex, connection: Connection) -> bool:
        """Say whether so much is new that beginning anew, with another kind, costs no more."""
        new = highest_number(connection) - held.highest
        return self._factory == AUTO and held.factory == FLAT and new > FLAT_LIMIT

    def _load(
        self, connection: Connection, identity: str, generation: int, dimension: int
    ) -> FaissIndex | None:
        held = snapshot.load(self._path, identity, generation, dimension)
        if held is None:
            return None
        accepted = {self._factory} if self._factory != AUTO else {FLAT, approximate(dimension)}
        if held.factory not in accepted:
            logger.info("the snapshot %s is not used: it has other settings", self._path)
            return None
        if self._overrun(held, connection):
            return None
        if held.factory != FLAT:
            tune(held.index)
            removed = removed_numbers(connection, held.since, held.highest, until=held.generation)
            numbers = faiss.vector_to_array(held.index.id_map)
            held.gone = set(np.intersect1d(removed, numbers).tolist())
        return held

    def _begin(self, connection: Connection, factory: str) -> FaissIndex:
        """Build an index of all passages of the database, as this transaction sees it."""
        settings = read_settings(connection)
        dimension, generation = int(settings["dimension"]), int(settings["generation"])
        index = empty(factory, dimension)
        held = FaissIndex(index, factory, settings["identity"], generation, generation)
        if not index.is_trained:
            train(held, connection)
        tune(index)
        add_new(held, connection)
        return held

    def _renew(self, held: FaissIndex) -> None:
        """Start to build another index if this one no longer fits."""
        choice = self._choice(held.size, held.index.d)
        outgrown = held.factory == FLAT != choice
        worn = len(held.gone) * REBUILT_SHARE > held.index.ntotal
        if (outgrown or worn) and self._builder is None and self._may_build:
            self._builder = threading.Thread(
                target=self._build, args=(choice,), name="index builder"
            )
            self._builder.start()

    def _build(self, factory: str) -> None:
        faiss.omp_set_num_threads(1)  # of this thread alone: the other cores answer queries
        logger.info("building another index; queries go on against the present one")
        try:
            with self._reader() as connection:
                built = self._begin(connection, factory)
            snapshot.save(built, self._path)
            self._built = built
        except ProcessEndsError:
            self._may_build = False
        except (FulcrumError, RuntimeError, MemoryError) as error:
            self._may_build = False
            logger.warning("the index stays as it is, for another could not be built: %s", error)

    def _take_over(self, identity: str) -> bool:
        """Put a newly built index in the place of the present one."""
        if self._builder is None or self._builder.is_alive():
            return False
        built, self._built, self._builder = self._built, None, None
        if built is None or built.identity != identity:
            return False
        self._held = built
        return True


@contextmanager
def _threads(queries: int) -> Iterator[None]:
    """Let FAISS use no more threads than there are queries.

    It parts the work by queries: further threads would have none, and waiting for them costs one
    query tens of milliseconds on a busy machine.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, queries))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


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
