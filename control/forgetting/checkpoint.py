"""The last event of the ledger that was seen, signed, in files outside its database."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Connection

from control.forgetting.chain import START, Head, find_truncation
from control.forgetting.cipher import LedgerCipher
from foundation.errors import IndexStateError
from foundation.files import PRIVATE_FILE, private_directory, replacing

ACCEPT = "fulcrum forget verify --accept"
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

    def signature(self, cipher: LedgerCipher) -> str:
        """The keyed hash without which nobody can write a checkpoint."""
        values = ("checkpoint", str(self.head.sequence), self.head.hash.hex(), str(self.elsewhere))
        return cipher.keyed_hash(values)


class CheckpointFile:
    """A file with a checkpoint; read again only when it was changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, ...], Seen] | None = None

    def read(self, cipher: GetCipher) -> Seen | None:
        """Return what it says, or ``None`` if there is no file.

        Raises:
            IndexStateError: It cannot be read, or was not written with this key.
        """
        try:
            found = self.path.stat()
            state = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            if self._read is None or self._read[0] != state:
                self._read = state, self._parsed(self.path.read_text(encoding="utf-8"), cipher())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IndexStateError(
                f"{self.path}, which says how far the ledger goes, cannot be read; put a copy of "
                f"it back, or trust the ledger as it is: {ACCEPT}"
            ) from error
        return self._read[1]

    def write(self, seen: Seen, cipher: GetCipher) -> None:
        """Write what was seen.

        Raises:
            OSError: The file cannot be written.
        """
        private_directory(self.path.parent)
        content = {
            "sequence": seen.head.sequence,
            "hash": seen.head.hash.hex(),
            "elsewhere": seen.elsewhere,
            "signature": seen.signature(cipher()),
        }
        with replacing(self.path, private=True) as new:
            new.write_text(json.dumps(content), encoding="utf-8")

    def _parsed(self, text: str, cipher: LedgerCipher) -> Seen:
        stored = json.loads(text)
        head = Head(int(stored["sequence"]), bytes.fromhex(stored["hash"]))
        seen = Seen(head, stored.get("elsewhere") is True)
        if "signature" in stored and not isinstance(stored["elsewhere"], bool):
            raise ValueError("elsewhere")
        if stored.get("signature") != seen.signature(cipher):
            was = "was changed, or signed with another key"
            if "signature" not in stored:
                was = "is not signed: somebody changed it, or an earlier version wrote it"
            raise IndexStateError(
                f"{self.path}, which says how far the ledger goes, {was}; put a copy of it back, "
                f"or trust the ledger as it is: {ACCEPT}"
            )
        return seen


class Checkpoints:
    """The checkpoint of a home and its copies; none is ever newer than the database.

    Who removes the end of the database together with the first checkpoint is found by a copy.
    """

    def __init__(
        self, first: Path, beside: Path | None, elsewhere: Path | None, own_database: bool
    ) -> None:
        """Nothing is read or written yet.

        Args:
            first: The checkpoint of this home.
            beside: Its copy with the passage index, which may be removed with it.
            elsewhere: A copy at a place that the user chose, which other homes may share.
            own_database: Whether this home alone writes the ledger. Of a shared one the first
                event that a home sees need not be the first one there is.
        """
        self.first = CheckpointFile(first)
        self.beside = CheckpointFile(beside) if beside else None
        self.elsewhere = CheckpointFile(elsewhere) if elsewhere else None
        self._own_database = own_database
        self._lock = FileLock(first.with_name(f".{first.name}.lock"), mode=PRIVATE_FILE)

    @property
    def files(self) -> list[CheckpointFile]:
        """All of them; each is written before the ones that may refer to it."""
        return [each for each in (self.elsewhere, self.beside, self.first) if each is not None]

    def read(self, cipher: GetCipher) -> dict[CheckpointFile, Seen]:
        """Return what the files say that exist; call it before the database is read.

        Raises:
            IndexStateError: One cannot be read or was changed.
        """
        # The last one first: what it refers to exists by then.
        found = {file: file.read(cipher) for file in reversed(self.files)}
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
        return self._find_missing(seen) if events else None

    def _find_missing(self, seen: dict[CheckpointFile, Seen]) -> str | None:
        needed = []
        if self._own_database or self.beside in seen:
            needed.append(self.first)
        if self.elsewhere is not None and any(each.elsewhere for each in seen.values()):
            needed.append(self.elsewhere)
        for file in needed:
            # Another process may have written both the first event and the file meanwhile.
            if file not in seen and not file.path.exists():
                return f"{file.path}, which says how far it goes, was removed"
        return None

    def begin(self, cipher: GetCipher) -> None:
        """Write checkpoints of an empty ledger where there are none, before its first event.

        Raises:
            IndexStateError: One cannot be written.
        """
        try:
            with self._lock:
                for file in self.files:
                    if not file.path.exists():
                        file.write(self._saying(START), cipher)
        except OSError as error:
            raise _unwritable(error, self.files) from error

    def complete(self, head: Head, cipher: GetCipher) -> None:
        """Write the checkpoints that are missing, such as one at a place just named.

        Raises:
            IndexStateError: The one at the place that the user chose cannot be written.
        """
        if all(file.path.exists() for file in self.files):
            return
        if self.elsewhere is not None and not self.elsewhere.path.exists():
            try:
                self.elsewhere.write(self._saying(head), cipher)
            except OSError as error:
                raise _unwritable(error, [self.elsewhere]) from error
        self.advance(head, cipher)

    def advance(self, head: Head, cipher: GetCipher) -> None:
        """Write a head whose event is committed, unless a later one is stored."""
        # An error is ignored: the event is recorded, and the files may be older.
        with suppress(OSError, IndexStateError), self._lock:
            for file in self.files:
                with suppress(OSError):
                    known = file.read(cipher)
                    new = self._saying(head)
                    if known is not None:
                        if known.head.sequence > head.sequence:
                            new = known
                        new = replace(new, elsewhere=new.elsewhere or known.elsewhere)
                    if new != known:
                        file.write(new, cipher)

    def replace(self, head: Head, cipher: GetCipher) -> None:
        """Write a head whatever is stored; for an empty ledger remove the files.

        Raises:
            IndexStateError: One cannot be written.
        """
        try:
            with self._lock:
                for file in self.files:
                    if head == START:
                        file.path.unlink(missing_ok=True)
                    else:
                        file.write(self._saying(head), cipher)
        except OSError as error:
            raise _unwritable(error, self.files) from error

    def _saying(self, head: Head) -> Seen:
        return Seen(head, elsewhere=self.elsewhere is not None and self.elsewhere.path.exists())


def check_place(path: Path, name: str) -> Path:
    """The path of a checkpoint that the user chose.

    Args:
        path: As given.
        name: Of the setting.

    Raises:
        InputError: It is no path of a file.
    """
    from foundation.errors import InputError

    if ":/" in f"{path}"[2:]:  # after the letter of a drive
        raise InputError(f"{name} is {f'{path}'!r}, a URL; give the path of a file")
    if path.is_dir():
        raise InputError(f"{name} is {f'{path}'!r}, a directory; give the path of a file in it")
    return path.expanduser().absolute()


def _unwritable(error: OSError, files: Sequence[CheckpointFile]) -> IndexStateError:
    return IndexStateError(
        f"the checkpoint of the ledger cannot be written to "
        f"{' or '.join(f'{file.path}' for file in files)} ({error.strerror}); check permissions "
        "and the space on the disk, or choose another place"
    )
