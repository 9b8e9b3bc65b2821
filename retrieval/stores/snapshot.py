"""The state of a FAISS index, and its file, so that the next process need not build it."""

import json
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import faiss

from foundation.files import replacing

logger = logging.getLogger(__name__)

HEADER_BYTES = 512
BUFFER_BYTES = 1 << 20
FORMAT = "fulcrum vectors 2"


@dataclass
class FaissIndex:
    """A FAISS index, and the state of the database that it holds.

    Attributes:
        index: Passage numbers and their vectors.
        factory: FAISS's ``index_factory`` string.
        identity: Of the database's content.
        since: Generation of the database at which building started.
        generation: Generation of the database that it is synchronized with.
        highest: The last passage number added.
        deleted: Numbers still in the index that are no longer in the database.
    """

    index: Any  # faiss has no type information
    factory: str
    identity: str
    since: int
    generation: int
    highest: int = 0
    deleted: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        """The number of passages that can be found."""
        return int(self.index.ntotal) - len(self.deleted)


def save(state: FaissIndex, path: Path) -> None:
    """Write the snapshot; a failure is only logged."""
    try:
        with replacing(path, private=True) as new, new.open("wb") as file:
            file.write(b" " * HEADER_BYTES)
            checksum = _Checksum(file.write)
            writer = faiss.PyCallbackIOWriter(checksum, BUFFER_BYTES)  # type: ignore[attr-defined]
            faiss.write_index(state.index, writer)
            del writer  # flushes its buffer
            file.seek(0)
            file.write(_header(state, checksum.value).ljust(HEADER_BYTES))
    except (OSError, RuntimeError) as error:
        logger.warning("the snapshot %s was not written: %s", path, error)


def load(path: Path, identity: str, generation: int, dimension: int) -> FaissIndex | None:
    """Read the snapshot; return ``None`` if there is none for this state of the database.

    The caller fills in ``deleted``.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
            if header["format"] != FORMAT:
                raise ValueError("it was written by another version")
            if header["identity"] != identity or header["generation"] > generation:
                raise ValueError("it belongs to another database")
            # Before FAISS sees a byte: it allocates whatever a damaged file asks for.
            if _checksum(file) != header["checksum"]:
                raise ValueError("its checksum is wrong")
            file.seek(HEADER_BYTES)
            reader = faiss.PyCallbackIOReader(file.read, BUFFER_BYTES)  # type: ignore[attr-defined]
            index = faiss.read_index(reader)
            if index.d != dimension:
                raise ValueError("its vectors have another dimension")
            names = ("factory", "identity", "since", "generation", "highest")
            return FaissIndex(index, **{name: header[name] for name in names})
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        logger.info("the snapshot %s is not used: %s", path, error)
        return None


def _header(state: FaissIndex, checksum: int) -> bytes:
    return json.dumps(
        {
            "format": FORMAT,
            "factory": state.factory,
            "identity": state.identity,
            "since": state.since,
            "generation": state.generation,
            "highest": state.highest,
            "checksum": checksum,
        }
    ).encode()


def _checksum(file: IO[bytes]) -> int:
    value = 0
    while block := file.read(BUFFER_BYTES):
        value = zlib.crc32(block, value)
    return value


class _Checksum:
    """A write function that computes the checksum of its data."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self.value = 0
        self._write = write

    def __call__(self, block: bytes) -> int:
        self.value = zlib.crc32(block, self.value)
        return self._write(block)
