"""The ledger of forgotten facts and of corrections: append-only, chained by hashes, encrypted."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, exists, select
from sqlalchemy.orm import aliased

from control.forgetting import chain as chains
from control.forgetting import originals
from control.forgetting.chain import COLUMNS, START, Chain, Head, LedgerCheckpoint
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
ID_BYTES = 8  # drawn at random: two of 100,000 records collide in one of 4 billion ledgers
BATCH = 1_000  # events written by one statement


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
    with a key that is stored outside the database. A ledger that the key does not decrypt, or that
    lacks events seen before, raises, so that no forgotten fact is stated by mistake. Thread-safe.
    """

    def __init__(self, place: str | Path, key: bytes | KeyFile, home: Path | None = None) -> None:
        """Open or create a ledger.

        Args:
            place: A file for SQLite, or the URL of a SQLite or PostgreSQL database.
            key: 32 bytes, or the key file, which is created when the first fact is recorded.
            home: Directory of the checkpoint of the last event seen; by default that of a database
                file, none for a URL.

        Raises:
            InputError: the URL or the key cannot be used.
            IndexStateError: the database or the key file is damaged, lost or another one.
        """
        self._key_file = key if isinstance(key, KeyFile) else None
        self._loaded_cipher = LedgerCipher(key) if isinstance(key, bytes) else None
        self._key_fits = False
        self._database = open_tables(place)
        self._head = _checkpoint(place, self._database.place, home)
        seen = self._seen()
        with self._database.reading() as connection:
            self._check(connection, seen)

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
                for start in range(0, len(ready), BATCH):
                    added += self._add_part(chain, ready[start : start + BATCH])
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
        with self._database.reading() as connection:
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
        """Return the whole audit, the oldest event first."""
        with self._database.reading() as connection:
            rows = connection.execute(COLUMNS.order_by(Row.sequence))
            return [self._event(row) for row in rows]

    def version(self) -> int:
        """Return the number of the newest event, which is how many there are; 0 if none."""
        with self._database.reading() as connection:
            return chains.version(connection)

    def verify(self) -> str | None:
        """Check every event, the database, and that the end was not truncated.

        Returns:
            ``None`` if everything is as recorded, else a sentence on the first fault.
        """
        try:
            seen = self._seen()
            with self._database.reading() as connection:
                return (
                    chains.find_fault(connection, self._cipher)
                    or chains.find_truncation(connection, seen)
                    or self._damage(connection)
                )
        except IndexStateError as error:
            return str(error)

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
        with self._database.writing() as connection:
            # Checked again: an empty ledger may have been filled with another key, or truncated.
            self._check(connection, self._seen())
            start = chains.last(connection)
            chain = Chain(connection, partial(self._cipher, create=start == START), start)
            yield chain
            chain.write()
        if self._head and chain.head != start:  # committed, so the checkpoint is advanced
            self._head.advance(chain.head)

    def _changed(
        self, entered: str, ended: str, since: int
    ) -> tuple[int, Sequence[Any], list[str]]:
        """The version, the rows of new entries in force, and the ids of those that ended."""
        with self._database.reading() as connection:
            version = chains.version(connection)
            if version == since:
                return version, [], []
            if version < since:
                fault = f"it ends with event {version}, but event {since} was there before"
                raise IndexStateError(self._truncation_message(fault))
            new = (Row.sequence > since) & (Row.sequence <= version)
            gone = connection.execute(
                select(Row.record_id).where(Row.kind == ended, new).order_by(Row.sequence)
            )
            rows = connection.execute(
                _active_rows(entered, ended).where(new).order_by(Row.sequence)
            )
            return version, rows.all(), list(gone.scalars())

    def _event(self, row: Any) -> Event:
        return Event(row.sequence, row.kind, row.record_id, row.time, self._details(row))

    def _add_part(self, chain: Chain, part: list[tuple[Record, list[str]]]) -> list[Record]:
        hashed = [(chain.cipher().keyed_hash(identity), record) for record, identity in part]
        known = Row.fact.in_({fact for fact, _ in hashed})
        rows = chain.connection.execute(_active_rows().where(known))
        stored = {row.fact: self._record(row) for row in rows}
        for fact, record in hashed:
            if fact not in stored:
                new = replace(record, id=secrets.token_hex(ID_BYTES), time=chain.time)
                chain.append(ADDED, new.id, _fields(new), fact)
                stored[fact] = new
        chain.write()
        return [stored[fact] for fact, _ in hashed]

    def _seen(self) -> Head | None:
        # Read before the database, so that an event added in between is not taken for a fault.
        return self._head.read() if self._head else None

    def _truncation_message(self, fault: str) -> str:
        accept = f", or remove {self._head.path} to go on without it" if self._head else ""
        return f"{self._database.place} is not whole: {fault}; put a copy of it back{accept}"

    def _cipher(self, create: bool = False) -> LedgerCipher:
        if self._loaded_cipher is None:
            self._loaded_cipher = LedgerCipher(self._read_key(create))
        return self._loaded_cipher

    def _read_key(self, create: bool) -> bytes:
        file = self._key_file
        key = file.read() if file else None
        if key is None and file and create:
            key = file.create()
        if key is None:
            raise IndexStateError(
                f"{self._database.place} holds forgotten facts or corrections, but its key "
                f"{file.path if file else ''} is missing; put the key back or set {VARIABLE}"
            )
        return key

    def _check(self, connection: Connection, seen: Head | None) -> None:
        """Check that no seen event is missing and that the key decrypts the first or last event."""
        if fault := chains.find_truncation(connection, seen):
            raise IndexStateError(self._truncation_message(fault))
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
        row = connection.execute(_active_rows().where(Row.record_id == record_id)).first()
        if row is not None:
            return self._record(row)
        gone = select(Row.time).where(Row.record_id == record_id, Row.kind == REMOVED)
        time = connection.execute(gone).scalar()
        if time is not None:
            raise InputError(f"record {record_id} was removed already, at {time}")
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


def open_ledger(home: Path, url: str | None = None, key: str | None = None) -> Ledger:
    """Open the ledger of a home directory.

    Args:
        home: The directory of all state.
        url: Of the database; by default it lies in the home.
        key: 64 hexadecimal digits; by default those of ``ledger.key`` in the home.

    Raises:
        InputError, IndexStateError: as ``Ledger``.
    """
    chosen = KeyFile(home / KEY) if key is None else parse_key(key)
    return Ledger(url or home / DATABASE, chosen, home)


def _checkpoint(place: str | Path, name: str, home: Path | None) -> LedgerCheckpoint | None:
    if home is not None:
        # A home may have been used with several ledgers, at several URLs.
        suffix = (
            f"-{hashlib.sha256(name.encode()).hexdigest()[:16]}" if isinstance(place, str) else ""
        )
        return LedgerCheckpoint(home / f"ledger{suffix}.head")
    if isinstance(place, str) and "://" in place:
        return None
    return LedgerCheckpoint(Path(place).with_suffix(".head"))


def _identity(record: Record) -> list[str]:
    """The values that are equal for two records of the same fact."""
    spans = sorted({normalise(span) for span in record.spans})
    return [record.scope, normalise(record.subject), normalise(record.relation), *spans]


def _fields(record: Record) -> dict[str, Any]:
    """The fields that are encrypted; id and time have columns of their own."""
    return {name: value for name, value in vars(record).items() if name not in ("id", "time")}


def _active_rows(entered: str = ADDED, ended: str = REMOVED) -> Select[Any]:
    later = aliased(Row)
    gone = exists().where(later.record_id == Row.record_id, later.kind == ended)
    return COLUMNS.where(Row.kind == entered, ~gone)
