"""The file that holds an index of vectors, so that the next process need not build it."""

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


def save(held: FaissIndex, path: Path) -> None:
    """Write the snapshot. A failure is logged and harms nothing."""
    try:
        with replacing(path, private=True) as new, new.open("wb") as file:
            file.write(b" " * HEADER_BYTES)
            checksum = _Checksum(file.write)
            writer = faiss.PyCallbackIOWriter(checksum, BUFFER_BYTES)  # type: ignore[attr-defined]
            faiss.write_index(held.index, writer)
            del writer  # flushes its buffer
            file.seek(0)
            file.write(_header(held, checksum.value).ljust(HEADER_BYTES))
    except (OSError, RuntimeError) as error:
        logger.warning("the snapshot %s was not written: %s", path, error)


def load(path: Path, identity: str, generation: int, dimension: int) -> FaissIndex | None:
    """Read the snapshot; return None if there is none that fits this state of the database.

    What was removed since it was begun is for the caller to fill in.
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


def _header(held: FaissIndex, checksum: int) -> bytes:
    return json.dumps(
        {
            "format": FORMAT,
            "factory": held.factory,
            "identity": held.identity,
            "since": held.since,
            "generation": held.generation,
            "highest": held.highest,
            "checksum": checksum,
        }
    ).encode()


def _checksum(file: IO[bytes]) -> int:
    value = 0
    while block := file.read(BUFFER_BYTES):
        value = zlib.crc32(block, value)
    return value


class _Checksum:
    """A write function that keeps the checksum of what passes through it."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self.value = 0
        self._write = write

    def __call__(self, block: bytes) -> int:
        self.value = zlib.crc32(block, self.value)
        return self._write(block)
