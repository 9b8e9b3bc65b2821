"""The last event of the ledger that was seen, signed, in files outside its database."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection

from control.forgetting.chain import START, Head, find_truncation
from control.forgetting.cipher import LedgerCipher
from foundation.errors import IndexStateError, InputError
from foundation.files import PRIVATE_FILE, private_directory, replacing, version_of

ACCEPT = "fulcrum forget verify --accept"
# What a file raises that was changed; the last two for Infinity and for thousands of brackets.
UNREADABLE = OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError
GetCipher = Callable[[], LedgerCipher]


@dataclass(frozen=True)
class Seen:
    """What a checkpoint says.

    Attributes:
        head: The last event that was seen.
        elsewhere: Whether the place that a user chose holds a checkpoint as well.
    """

    head: Head
    elsewhere: bool = False

    def signed(self, cipher: LedgerCipher) -> dict[str, Any]:
        """What the file holds; without the key nobody can write its signature."""
        sequence, digest = self.head.sequence, self.head.hash.hex()
        values = ("checkpoint", str(sequence), digest, str(self.elsewhere))
        return {
            "sequence": sequence,
            "hash": digest,
            "elsewhere": self.elsewhere,
            "signature": cipher.keyed_hash(values),
        }


class CheckpointFile:
    """A file with a checkpoint; read again only when it was changed."""

    def __init__(self, path: Path, cipher: GetCipher) -> None:
        self.path = path
        self._cipher = cipher
        self._read: tuple[tuple[int, ...], Seen] | None = None

    def read(self) -> Seen | None:
        """Return what it says, or ``None`` if there is no file.

        Raises:
            IndexStateError: It cannot be read, or was not written with this key.
        """
        try:
            version = version_of(self.path)
            if self._read is None or self._read[0] != version:
                self._read = version, self._parsed(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UNREADABLE as error:
            raise self._unusable("cannot be read") from error
        return self._read[1]

    def write(self, seen: Seen) -> None:
        """Write what was seen.

        Raises:
            OSError: The file cannot be written.
        """
        private_directory(self.path.parent)
        with replacing(self.path, private=True) as new:
            new.write_text(json.dumps(seen.signed(self._cipher())), encoding="utf-8")

    def _parsed(self, text: str) -> Seen:
        cipher = self._cipher()  # first: a key that is missing is told before a damaged file
        stored = json.loads(text)
        head = Head(int(stored["sequence"]), bytes.fromhex(stored["hash"]))
        seen = Seen(head, stored.get("elsewhere") is True)
        if "signature" not in stored:
            raise self._unusable(
                "is not signed: somebody changed it, or an earlier version wrote it"
            )
        if stored != seen.signed(cipher):
            raise self._unusable("was changed, or signed with another key")
        return seen

    def _unusable(self, why: str) -> IndexStateError:
        return IndexStateError(
            f"{self.path}, which says how far the ledger goes, {why}; put a copy of it back, or "
            f"trust the ledger as it is: {ACCEPT}"
        )


class Checkpoints:
    """The checkpoint of a home and its copies; none is ever newer than the database.

    Who removes the end of the database together with the first checkpoint is found by a copy.
    """

    def __init__(
        self,
        first: Path,
        beside: Path | None,
        elsewhere: Path | None,
        own_database: bool,
        cipher: GetCipher,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            first: The checkpoint of this home.
            beside: Its copy with the passage index, which may be removed with it.
            elsewhere: A copy at a place that the user chose, which other homes may share.
            own_database: Whether this home alone writes the ledger. Of a shared one the first
                event that a home sees need not be the first one there is.
            cipher: Signs them; called when it is first needed.
        """
        self._first = CheckpointFile(first, cipher)
        self._beside = CheckpointFile(beside, cipher) if beside else None
        self._elsewhere = CheckpointFile(elsewhere, cipher) if elsewhere else None
        # In the order of writing: each before the ones that may refer to it.
        files = (self._elsewhere, self._beside, self._first)
        self._files = [file for file in files if file is not None]
        self._own_database = own_database
        self._lock = FileLock(first.with_name(f".{first.name}.lock"), mode=PRIVATE_FILE)

    def read(self) -> dict[CheckpointFile, Seen]:
        """Return what the files say that exist; call it before the database is read.

        Raises:
            IndexStateError: One cannot be read or was changed.
        """
        # The last one first: what it refers to exists by then.
        found = {file: file.read() for file in reversed(self._files)}
        return {file: seen for file, seen in found.items() if seen is not None}

    def find_fault(
        self, connection: Connection, seen: dict[CheckpointFile, Seen], events: int
    ) -> str | None:
        """What is wrong if the database, or a checkpoint, is not as it was; else ``None``.

        Args:
            connection: To the database.
            seen: As read before the transaction began.
            events: The number of the newest event.
        """
        for file, each in seen.items():
            if fault := find_truncation(connection, each.head):
                return f"{fault} ({file.path} says so)"
        if not events:
            return None
        needed = [self._first] if self._own_database or self._beside in seen else []
        if self._elsewhere and any(each.elsewhere for each in seen.values()):
            needed.append(self._elsewhere)
        for file in needed:
            # Another process may have written both the first event and the file meanwhile.
            if file not in seen and not file.path.exists():
                return f"{file.path}, which says how far it goes, was removed"
        return None

    def begin(self) -> None:
        """Write checkpoints of an empty ledger where there are none, before its first event.

        Raises:
            IndexStateError: One cannot be written.
        """
        with _explained(self._files), self._lock:
            for file in self._missing():
                file.write(self._saying(START))

    def complete(self, head: Head) -> None:
        """Write the checkpoints that are missing, such as one at a place just named.

        Raises:
            IndexStateError: The one at the place that the user chose cannot be written.
        """
        missing = self._missing()
        if self._elsewhere is not None and self._elsewhere in missing:
            with _explained([self._elsewhere]):
                self._elsewhere.write(self._saying(head))
        if missing:
            self.advance(head)

    def advance(self, head: Head) -> None:
        """Write a head whose event is committed, unless a later one is stored."""
        # An error is ignored: the event is recorded, and the files may be older.
        with suppress(OSError, IndexStateError), self._lock:
            for file in self._files:
                with suppress(OSError):
                    known = file.read()
                    new = self._saying(head)
                    if known is not None:
                        if known.head.sequence > head.sequence:
                            new = known
                        new = replace(new, elsewhere=new.elsewhere or known.elsewhere)
                    if new != known:
                        file.write(new)

    def replace(self, head: Head) -> None:
        """Write a head whatever is stored; for an empty ledger remove the files.

        Raises:
            IndexStateError: One cannot be written.
        """
        with _explained(self._files), self._lock:
            for file in self._files:
                if head == START:
                    file.path.unlink(missing_ok=True)
                else:
                    file.write(self._saying(head))

    def _missing(self) -> list[CheckpointFile]:
        return [file for file in self._files if not file.path.exists()]

    def _saying(self, head: Head) -> Seen:
        return Seen(head, self._elsewhere is not None and self._elsewhere.path.exists())


@contextmanager
def _explained(files: Sequence[CheckpointFile]) -> Iterator[None]:
    """Turn an error of the disk into one line."""
    try:
        yield
    except OSError as error:
        raise IndexStateError(
            "the checkpoint of the ledger cannot be written to "
            f"{' or '.join(f'{file.path}' for file in files)} ({error.strerror}); check "
            "permissions and the space on the disk, or choose another place"
        ) from error


def check_place(path: Path, name: str) -> Path:
    """The path of a checkpoint that the user chose by the setting of this name.

    Raises:
        InputError: It is no path of a file.
    """
    if ":/" in f"{path}"[2:]:  # after the letter of a drive
        raise InputError(f"{name} is {f'{path}'!r}, a URL; give the path of a file")
    if path.is_dir():
        raise InputError(f"{name} is {f'{path}'!r}, a directory; give the path of a file in it")
    return path.expanduser().absolute()
