"""The last event that this home has seen: without it, a ledger cut short would look whole."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from foundation.errors import IndexStateError
from foundation.files import PRIVATE_FILE, replacing


@dataclass(frozen=True)
class Head:
    """The number and the hash of an event."""

    sequence: int
    hash: bytes


class LedgerCheckpoint:
    """The newest head, in a file outside the database. It may lag behind, never run ahead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), mode=PRIVATE_FILE)

    def read(self) -> Head | None:
        """Return the head, or ``None`` if nothing has been written here.

        Raises:
            IndexStateError: the file cannot be read or holds something else.
        """
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return Head(int(kept["sequence"]), bytes.fromhex(kept["hash"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexStateError(
                f"{self.path}, which says how far the ledger goes, cannot be read; put a copy of "
                "it back, or remove it to trust the ledger as it is"
            ) from error

    def advance(self, head: Head) -> None:
        """Write a head whose event is stored for good, unless a later one is there."""
        # The event is recorded all the same, and the file may lag behind.
        with suppress(OSError, IndexStateError), self._lock:
            known = self.read()
            if known is None or known.sequence < head.sequence:
                with replacing(self.path, private=True) as new:
                    kept = {"sequence": head.sequence, "hash": head.hash.hex()}
                    new.write_text(json.dumps(kept), encoding="utf-8")
