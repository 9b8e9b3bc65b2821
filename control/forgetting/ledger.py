"""The ledger of forgotten facts and of corrections: append-only, chained by hashes, encrypted."""

import hashlib
import json
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from control.forgetting import chain as chains
from control.forgetting import originals
from control.forgetting.chain import COLUMNS, START, Chain, Head, VerifiedChain
from control.forgetting.checkpoint import ACCEPT, CheckpointFile, Checkpoints, Seen
from control.forgetting.cipher import KEY, VARIABLE, KeyFile, LedgerCipher, parse_key
from control.forgetting.ledger_tables import Row, open_tables
from control.forgetting.originals import EncryptedOriginal
from control.forgetting.record import Record, checked
from foundation.errors import IndexStateError, InputError
from foundation.text import normalise

DATABASE = "ledger.db"
ADDED, REMOVED = "added", "removed"
CORRECTED, WITHDRAWN = "corrected", "correction withdrawn"
ENTERED = (ADDED, REMOVED, CORRECTED, WITHDRAWN)  # events that change what is in force
ENDS = {REMOVED: ADDED, WITHDRAWN: CORRECTED}  # which of them end what others made
ID_BYTES = 8  # drawn at random: two of 100,000 records collide in one of 4 billion ledgers
BATCH = 1_000  # events written by one statement
INDEX = "index"  # directory of the passage index in a home


@dataclass(frozen=True)
class Event:
    """One event of the audit.

    Attributes:
        sequence: Its number; consecutive from 1.
        kind: "added", "removed", "corrected", "correction withdrawn", "withheld", "swept".
        record_id: The record or correction that it concerns, or "".
        time: ISO 8601 in UTC.
        details: Further data; for "added" and "corrected" the fields of the entry.
    """

    sequence: int
    kind: str
    record_id: str
    time: str
    details: dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """The changes since a version.

    Attributes:
        version: The number of the newest event, from which the next changes are requested.
        added: Records added since then and still active.
        removed: Ids of records removed since then.
    """

    version: int
    added: list[Record] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EntryChanges:
    """The changes since a version among entries of one kind, such as the corrections.

    Attributes:
        version: The number of the newest event, from which the next changes are requested.
        entered: The events of entries made since then and still in force.
        ended: Ids of entries that ended since then.
    """

    version: int
    entered: list[Event] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


class Ledger:
    """The records and the audit of forgetting, and the corrections, in SQLite or PostgreSQL.

    Every change is one transaction, so a process killed at any moment leaves the state before or
    after it, and every call sees all earlier changes of any process. Personal data is encrypted
    with a key that is stored outside the database. All events are verified when the ledger is
    opened, and new ones before they count. A ledger that the key does not decrypt, that lacks
    events seen before or holds others raises, so that no forgotten fact is stated by mistake.
    Thread-safe.
    """

    def __init__(
        self,
        place: str | Path,
        key: bytes | KeyFile,
        home: Path | None = None,
        checkpoint: Path | None = None,
        trusted: bool = False,
    ) -> None:
        """Open or create a ledger.

        Args:
            place: A file for SQLite, or the URL of a SQLite or PostgreSQL database.
            key: 32 bytes, or the key file, which is created when the first fact is recorded.
            home: Directory of the checkpoint of the last event seen, and of its copy with the
                passage index; by default the directory of a database file, none for a URL.
            checkpoint: A file for one more copy, such as on another disk.
            trusted: Open without verification, for `verify` and `accept` alone.

        Raises:
            InputError: the URL or the key cannot be used.
            IndexStateError: the database or the key file is damaged, changed, lost or another one.
        """
        self._key_file = key if isinstance(key, KeyFile) else None
        self._loaded_key = key if isinstance(key, bytes) else None
        self._loaded_cipher = LedgerCipher(key) if isinstance(key, bytes) else None
        self._key_state: tuple[int, ...] | None = None
        self._key_fits = False
        self._database = open_tables(place)
        self._checkpoints = _checkpoints(place, self._database.place, home, checkpoint)
        self._verified = VerifiedChain(ENDS)
        self._accepted: object = None  # what the checkpoints said when they were last compared
        self._lock = threading.RLock()  # held while events are verified or what is in force is read
        if trusted:
            return
        with self._reading():
            head = self._verified.head
        if self._checkpoints and head != START:
            self._checkpoints.complete(head, self._cipher)

    def add(self, records: Iterable[Record]) -> list[Record]:
        """Record facts: all of them, or none if one cannot be recorded.

        Args:
            records: The facts; consumed before anything is written.

        Returns:
            The records with id and time; for a fact that is forgotten already (the same subject,
            relation, answers and scope) the existing record.

        Raises:
            InputError: a record cannot be enforced; see ``control.forgetting.record.checked``.
        """
        # Slow work comes before the transaction, which blocks other writers.
        ready = [(checked(record), _identity(record)) for record in records]
        added: list[Record] = []
        if ready:
            with self.appending() as chain:
                known = dict[str, Record]()
                for start in range(0, len(ready), BATCH):
                    added += self._add_part(chain, ready[start : start + BATCH], known)
        return added

    def remove(self, record_id: str, who: str = "", reason: str = "") -> Record:
        """Remove a record, so that its fact may be stated again; the audit keeps both events.

        Raises:
            InputError: there is no such record, or it was removed before.
        """
        with self.appending() as chain:
            record = self._active(chain.connection, record_id)
            chain.append(REMOVED, record_id, {"who": who, "reason": reason})
        return record

    def note(self, kind: str, record_id: str = "", **details: Any) -> None:
        """Add an event to the audit, with encrypted details."""
        if kind in ENTERED:
            raise InputError(f"an event cannot be noted as {kind!r}; add or remove the entry")
        with self.appending() as chain:
            chain.append(kind, record_id, details)

    def records(self) -> list[Record]:
        """Return the active records, in the order in which they were added."""
        return self.changes(since=0).added

    def record(self, record_id: str) -> Record:
        """Return an active record.

        Raises:
            InputError: there is no such record, or it was removed.
        """
        with self._reading() as connection:
            return self._active(connection, record_id)

    def changes(self, since: int) -> Changes:
        """Return the changes after the event of this number; 0 for all changes.

        Raises:
            IndexStateError: the ledger has fewer events than that, or one that cannot be read.
        """
        version, rows, removed = self._changed(ADDED, REMOVED, since)
        return Changes(version, [self._record(row) for row in rows], removed)

    def entries(self, entered: str, ended: str, since: int = 0) -> EntryChanges:
        """Return the changes among entries that begin and end by events of these kinds.

        Args:
            entered: Kind of the event that makes an entry; its ``record_id`` is the entry's id.
            ended: Kind of the event that ends the entry of its ``record_id``.
            since: Number of the event after which changes are returned; 0 for all changes.

        Raises:
            IndexStateError: the ledger has fewer events than that, or one that cannot be read.
        """
        version, rows, gone = self._changed(entered, ended, since)
        return EntryChanges(version, [self._event(row) for row in rows], gone)

    def events(self) -> list[Event]:
        """Return the whole audit, the oldest event first; all of it is verified again.

        Raises:
            IndexStateError: an event is missing or was changed.
        """
        with self._reading() as connection:
            head = self._verified.head
            again = VerifiedChain(ENDS)
            fault = again.verify(connection, self._cipher, head.sequence)
            if fault is None and again.head != head:
                fault = f"event {again.head.sequence + 1} is missing: it was taken out"
            if fault:
                raise IndexStateError(self._message(fault))
            rows = connection.execute(
                COLUMNS.where(Row.sequence <= head.sequence).order_by(Row.sequence)
            )
            return [self._event(row) for row in rows]

    def head(self) -> Head:
        """Return the newest event, with all events before it verified."""
        with self._reading():
            return self._verified.head

    def cipher(self) -> LedgerCipher:
        """Return what the ledger's key is used for.

        Raises:
            IndexStateError: the key is missing, or nothing was recorded yet.
        """
        return self._cipher()

    def version(self) -> int:
        """Return the number of the newest event, 0 if there is none; nothing is verified."""
        with self._database.reading() as connection:
            return chains.version(connection)

    def verify(self) -> str | None:
        """Check every event, the database, and that the end was not truncated.

        Returns:
            ``None`` if everything is as recorded, else a sentence on the first fault.
        """
        try:
            with self._lock:
                seen = self._seen()
                with self._database.reading() as connection:
                    return (
                        VerifiedChain(ENDS).verify(connection, self._cipher)
                        or self._checkpoint_fault(connection, seen)
                        or self._damage(connection)
                    )
        except IndexStateError as error:
            return str(error)

    def loss(self) -> str | None:
        """Tell what `accept` accepts: what a checkpoint says that is no longer so.

        Returns:
            One sentence; ``None`` if everything is as recorded.

        Raises:
            IndexStateError: events were changed or taken out, which nothing can repair.
        """
        verified = VerifiedChain(ENDS)
        with self._lock:
            seen = self._seen()
        with self._database.reading() as connection:
            if chains.version(connection):
                self._check_key(connection)
                if fault := verified.verify(connection, self._cipher):
                    raise IndexStateError(self._message(fault))
            try:
                fault = self._checkpoint_fault(connection, seen)
            except IndexStateError as error:
                fault = str(error)
        if fault is None:
            return None
        count = verified.head.sequence
        return (
            f"{fault}; if you go on with the {count:,} events that are there, what later ones said "
            "is lost for good: facts that were forgotten by them will be said again"
        )

    def accept(self) -> None:
        """Trust the events that are there: write the checkpoints again.

        Raises:
            IndexStateError: as `loss`, or a checkpoint cannot be written.
        """
        with self._lock, self._database.writing() as connection:
            verified = VerifiedChain(ENDS)
            if fault := verified.verify(connection, self._cipher):
                raise IndexStateError(self._message(fault))
            if self._checkpoints:
                self._checkpoints.replace(verified.head, self._cipher)

    def seal(self, record_id: str, name: str, text: str) -> None:
        """Store a text encrypted before a record's fact is redacted in it.

        Args:
            record_id: The record.
            name: Identifies the text; replaces one stored under the same name.
            text: The text.
        """
        cipher = self._cipher()
        with self._database.writing() as connection:
            originals.store(connection, cipher, EncryptedOriginal(record_id, name, text))

    def sealed(self, record_id: str | None = None) -> list[EncryptedOriginal]:
        """Return the originals stored for a record, or for all, in the order of storing."""
        with self._database.reading() as connection:
            if not chains.version(connection):  # there may be no key yet
                return []
            return originals.load(connection, self._cipher(), record_id)

    def unseal(self, record_id: str, name: str | None = None) -> list[EncryptedOriginal]:
        """Return and delete the originals of a record, or the one of that name."""
        cipher = self._cipher()
        with self._database.writing() as connection:
            found = originals.load(connection, cipher, record_id, name)
            originals.remove(connection, cipher, record_id, name)
        return found

    @contextmanager
    def appending(self) -> Iterator[Chain]:
        """Open a transaction that appends: all of its events are recorded, or none.

        It excludes other writers, so do slow work before it.

        Yields:
            The end of the chain, to append to.
        """
        with self._lock:
            seen = self._seen()
        with self._database.writing() as connection:
            with self._lock:
                self._verify(connection, seen)
                start = self._verified.head
            chain = Chain(connection, partial(self._cipher, create=start == START), start)
            yield chain
            chain.write()
            if self._checkpoints and start == START and chain.head != start:
                self._checkpoints.begin(self._cipher)
        if self._checkpoints and chain.head != start:  # committed, so they are advanced
            self._checkpoints.advance(chain.head, self._cipher)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Open a transaction that reads, in which all that is new was verified."""
        # One at a time: an older transaction would find fewer events than were verified.
        with self._lock:
            # Before the database, so that an event added in between is not taken for a fault.
            seen = self._seen()
            with self._database.reading() as connection:
                self._verify(connection, seen)
                yield connection

    def _changed(
        self, entered: str, ended: str, since: int
    ) -> tuple[int, Sequence[Any], list[str]]:
        """The version, the rows of new entries in force, and the ids of those that ended."""
        with self._reading() as connection:
            version = self._verified.head.sequence
            if version == since:
                return version, [], []
            if version < since:
                fault = f"it ends with event {version}, but event {since} was there before"
                raise IndexStateError(self._message(fault))
            wanted = self._verified.entered(entered, since)
            gone = self._verified.ended(ended, since)
            new = (Row.sequence > since) & (Row.sequence <= version) & (Row.kind == entered)
            found = {
                row.record_id: row
                for row in connection.execute(COLUMNS.where(new).order_by(Row.sequence))
                if wanted.get(row.record_id) == row.sequence
            }
            if missing := wanted.keys() - found.keys():
                number = min(wanted[key] for key in missing)
                raise IndexStateError(self._message(f"event {number} was changed or taken out"))
            return version, list(found.values()), gone

    def _event(self, row: Any) -> Event:
        return Event(row.sequence, row.kind, row.record_id, row.time, self._details(row))

    def _add_part(
        self, chain: Chain, part: list[tuple[Record, list[str]]], known: dict[str, Record]
    ) -> list[Record]:
        """Add what is not in force; ``known`` gains the records by the hash of their fact."""
        hashed = [(chain.cipher().keyed_hash(identity), record) for record, identity in part]
        same = (Row.kind == ADDED) & Row.fact.in_({fact for fact, _ in hashed})
        for row in chain.connection.execute(COLUMNS.where(same)).all():
            if self._verified.number(ADDED, row.record_id) == row.sequence:
                known[row.fact] = self._record(row)
        for fact, record in hashed:
            if fact not in known:
                new = replace(record, id=secrets.token_hex(ID_BYTES), time=chain.time)
                chain.append(ADDED, new.id, _fields(new), fact)
                known[fact] = new
        chain.write()
        return [known[fact] for fact, _ in hashed]

    def _seen(self) -> dict[CheckpointFile, Seen] | IndexStateError:
        """What the checkpoints say, or what is wrong with one of them."""
        self._watch_key()
        try:
            return self._checkpoints.read(self._cipher) if self._checkpoints else {}
        except IndexStateError as error:  # told after what is wrong with the key, which explains it
            return error

    def _message(self, fault: str) -> str:
        return f"{self._database.place} is not whole: {fault}; put a copy of it back"

    def _watch_key(self) -> None:
        """Read a key file again that was changed since: it has to hold the same key."""
        if self._key_file is None or self._loaded_key is None:
            return
        state = self._key_file.state()
        if state is None or state != self._key_state:
            if self._read_key(create=False) != self._loaded_key:
                self._key_fits, self._loaded_key, self._loaded_cipher = False, None, None
            self._key_state = state

    def _cipher(self, create: bool = False) -> LedgerCipher:
        if self._loaded_cipher is None:
            if self._key_file is not None:
                self._key_state = self._key_file.state()
            self._loaded_key = self._read_key(create)
            self._loaded_cipher = LedgerCipher(self._loaded_key)
        return self._loaded_cipher

    def _read_key(self, create: bool) -> bytes:
        file = self._key_file
        key = file.read() if file else None
        if key is None and file and create:
            key = file.create()
        if key is None:
            raise IndexStateError(
                f"{self._database.place} holds or held forgotten facts or corrections, but its key "
                f"{file.path if file else ''} is missing; put the key back or set {VARIABLE}"
            )
        return key

    def _verify(
        self, connection: Connection, seen: dict[CheckpointFile, Seen] | IndexStateError
    ) -> None:
        """Verify what is new: the key, the events, and that none is missing that was seen."""
        self._check_key(connection)
        newest, before = chains.last(connection), self._verified.head
        if newest.sequence < before.sequence:
            fault: str | None = chains.find_truncation(connection, before)
        elif newest == before:
            fault = None
        elif newest.sequence == before.sequence:
            fault = f"event {before.sequence} is another one than was there before"
        else:
            fault = self._verified.verify(connection, self._cipher, newest.sequence)
        if fault:
            raise IndexStateError(self._message(fault))
        if seen == self._accepted:
            return
        if fault := self._checkpoint_fault(connection, seen):
            raise IndexStateError(
                f"{self._message(fault)}, or trust what is there: {ACCEPT} says what is lost then"
            )
        if self._verified.head != START:  # of an empty ledger no checkpoint is missed
            self._accepted = seen

    def _checkpoint_fault(
        self, connection: Connection, seen: dict[CheckpointFile, Seen] | IndexStateError
    ) -> str | None:
        if isinstance(seen, IndexStateError):
            raise seen
        if self._checkpoints is None:
            return None
        return self._checkpoints.find_fault(connection, seen, chains.version(connection))

    def _check_key(self, connection: Connection) -> None:
        """Check that the key decrypts the first or the last event."""
        ends = [] if self._key_fits else chains.ends(connection)
        if not ends:
            return
        self._key_fits = any(chains.decrypt(row, self._cipher()) is not None for row in ends)
        if not self._key_fits:
            key = self._key_file.path if self._key_file else f"the key in {VARIABLE}"
            raise IndexStateError(
                f"{self._database.place} does not open with {key}: the key is another one, or the "
                f"events were changed; put the right key back or set {VARIABLE}"
            )

    def _active(self, connection: Connection, record_id: str) -> Record:
        with self._lock:
            number = self._verified.number(ADDED, record_id)
            removed = self._verified.has_ended(REMOVED, record_id)
        row = connection.execute(
            COLUMNS.where(Row.record_id == record_id, Row.kind == (REMOVED if removed else ADDED))
        ).first()
        if number is not None:
            if row is None or row.sequence != number:
                raise IndexStateError(self._message(f"event {number} was changed or taken out"))
            return self._record(row)
        if removed:
            when = f", at {row.time}" if row else ""
            raise InputError(f"record {record_id} was removed already{when}")
        raise InputError(f"there is no record {record_id!r}; fulcrum forget list shows their ids")

    def _details(self, row: Any) -> dict[str, Any]:
        text = chains.decrypt(row, self._cipher())
        if text is None:
            raise IndexStateError(
                f"event {row.sequence} of {self._database.place} cannot be decrypted: it was "
                "changed; fulcrum forget verify checks the ledger, put a copy of it back"
            )
        return json.loads(text)

    def _record(self, row: Any) -> Record:
        details = self._details(row)
        values: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in details.items()
        }
        return Record(**values, time=row.time, id=row.record_id)

    def _damage(self, connection: Connection) -> str | None:
        if chains.version(connection):
            originals.load(connection, self._cipher())  # raises if one was changed
        if connection.dialect.name == "sqlite":  # an index may lack a row of the chain
            result = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
            if result != "ok":
                return f"all events are there, but the database is damaged ({result})"
        return None


def open_ledger(
    home: Path,
    url: str | None = None,
    key: str | None = None,
    checkpoint: Path | None = None,
    trusted: bool = False,
) -> Ledger:
    """Open the ledger of a home directory.

    Args:
        home: The directory of all state.
        url: Of the database; by default it lies in the home.
        key: 64 hexadecimal digits; by default those of ``ledger.key`` in the home.
        checkpoint: A file for one more copy of the checkpoint.
        trusted: Open without verification, for `verify` and `accept` alone.

    Raises:
        InputError, IndexStateError: as ``Ledger``.
    """
    chosen = KeyFile(home / KEY) if key is None else parse_key(key)
    return Ledger(url or home / DATABASE, chosen, home, checkpoint, trusted)


def _checkpoints(
    place: str | Path, name: str, home: Path | None, elsewhere: Path | None
) -> Checkpoints | None:
    if home is not None:
        # A home may have been used with several ledgers, at several URLs.
        shared = isinstance(place, str)
        suffix = f"-{hashlib.sha256(name.encode()).hexdigest()[:16]}" if shared else ""
        file = f"ledger{suffix}.head"
        return Checkpoints(home / file, home / INDEX / file, elsewhere, own_database=not shared)
    if isinstance(place, str) and "://" in place:
        return None
    return Checkpoints(Path(place).with_suffix(".head"), None, elsewhere, own_database=True)


def _identity(record: Record) -> list[str]:
    """The values that are equal for two records of the same fact."""
    spans = sorted({normalise(span) for span in record.spans})
    return [record.scope, normalise(record.subject), normalise(record.relation), *spans]


def _fields(record: Record) -> dict[str, Any]:
    """The fields that are encrypted; id and time have columns of their own."""
    return {name: value for name, value in vars(record).items() if name not in ("id", "time")}
