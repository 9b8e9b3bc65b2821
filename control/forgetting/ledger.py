"""The ledger of forgotten facts and of corrections: append-only, chained by hashes, encrypted."""

import hashlib
import json
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Delete, delete, insert, select

from control.forgetting import chain as chains
from control.forgetting.chain import ADDED, ENTERED, REMOVED, START, Chain, Head, VerifiedChain
from control.forgetting.checkpoint import ACCEPT, CheckpointFile, Checkpoints, Seen
from control.forgetting.cipher import KEY, VARIABLE, KeyFile, LedgerCipher, parse_key
from control.forgetting.ledger_tables import Original, Row, open_tables
from control.forgetting.record import Record, checked
from foundation.errors import IndexStateError, InputError
from foundation.text import counted, normalise

DATABASE = "ledger.db"
ID_BYTES = 8  # drawn at random: two of 100,000 records collide in one of 4 billion ledgers
BATCH = 1_000  # events written by one statement
INDEX = "index"  # directory of the passage index in a home

Entry = TypeVar("Entry")


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
class EntryChanges(Generic[Entry]):
    """The changes since a version among entries of one kind: the records, or the corrections.

    Attributes:
        version: The number of the newest event, from which the next changes are requested.
        added: Entries made since then and still in force.
        removed: Ids of entries that ended since then.
    """

    version: int
    added: list[Entry] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


Changes = EntryChanges[Record]


@dataclass(frozen=True)
class EncryptedOriginal:
    """A stored text before a record's fact was redacted in it; ``name`` identifies it."""

    record_id: str
    name: str
    text: str


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
                passage index; by default the checkpoint is beside a database file, without a copy.
            checkpoint: A file for one more copy, such as on another disk.
            trusted: Open without verification, for `verify` and `accept` alone.

        Raises:
            InputError: the URL or the key cannot be used, or a URL has no home.
            IndexStateError: the database or the key file is damaged, changed, lost or another one.
        """
        if home is None and "://" in str(place):
            raise InputError("the ledger at a URL needs a home, for its checkpoint; give one")
        self._key = key
        self._key_state: tuple[int, ...] | None = None  # of the key file when it was read
        self._loaded_cipher = LedgerCipher(key) if isinstance(key, bytes) else None
        self._key_fits = False
        self._database = open_tables(place)
        if home is None:
            first, beside, own = Path(place).with_suffix(".head"), None, True
        else:
            own = isinstance(place, Path)
            name = "ledger.head" if own else _head_name(self._database.place)
            first, beside = home / name, home / INDEX / name
        self._checkpoints = Checkpoints(first, beside, checkpoint, own, self.cipher)
        self._verified = VerifiedChain()
        self._accepted: object = None  # what the checkpoints said when they were last compared
        self._lock = threading.RLock()  # held while events are verified or what is in force is read
        if trusted:
            return
        head = self.head()
        if head != START:
            self._checkpoints.complete(head)

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
        """Return an active record; raises as `remove`."""
        with self._reading() as connection:
            return self._active(connection, record_id)

    def changes(self, since: int) -> Changes:
        """Return the changes of the records; as `entries`."""
        found = self.entries(ADDED, REMOVED, since)
        return Changes(found.version, list(map(_record, found.added)), found.removed)

    def entries(self, entered: str, ended: str, since: int = 0) -> EntryChanges[Event]:
        """Return the changes among entries that begin and end by events of these kinds.

        Args:
            entered: Kind of the event that makes an entry; its ``record_id`` is the entry's id.
            ended: Kind of the event that ends the entry of its ``record_id``.
            since: Number of the event after which changes are returned; 0 for all changes.

        Raises:
            IndexStateError: the ledger has fewer events than that, or one that cannot be read.
        """
        with self._reading() as connection:
            version = self._verified.head.sequence
            if version == since:
                return EntryChanges(version)
            if version < since:
                fault = f"it ends with event {version}, but event {since} was there before"
                raise self._not_whole(fault)
            wanted = chains.after(self._verified.entered[entered], since)
            new = (Row.sequence > since) & (Row.sequence <= version) & (Row.kind == entered)
            found = {
                row.record_id: row
                for row in connection.execute(chains.COLUMNS.where(new).order_by(Row.sequence))
                if wanted.get(row.record_id) == row.sequence
            }
            if missing := wanted.keys() - found.keys():
                number = min(wanted[key] for key in missing)
                raise self._not_whole(f"event {number} was changed or taken out")
            gone = list(chains.after(self._verified.ended[ended], since))
        return EntryChanges(version, list(map(self._event, found.values())), gone)

    def events(self) -> list[Event]:
        """Return the whole audit, the oldest event first; all of it is verified again.

        Raises:
            IndexStateError: an event is missing or was changed.
        """
        with self._reading() as connection:
            upto = self._verified.head.sequence
            head = self._verify_again(connection, upto)
            if head != self._verified.head:
                raise self._not_whole(f"event {head.sequence + 1} is missing: it was taken out")
            rows = connection.execute(
                chains.COLUMNS.where(Row.sequence <= upto).order_by(Row.sequence)
            )
            return [self._event(row) for row in rows]

    def head(self) -> Head:
        """Return the newest event, with all events before it verified."""
        with self._reading():
            return self._verified.head

    def version(self) -> int:
        """Return the number of the newest event, 0 if there is none; nothing is verified."""
        with self._database.reading() as connection:
            return chains.last(connection).sequence

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
                        VerifiedChain().verify(connection, self.cipher)
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
        with self._lock:
            seen = self._seen()
        with self._database.reading() as connection:
            self._check_key(connection)
            count = self._verify_again(connection).sequence
            try:
                fault = self._checkpoint_fault(connection, seen)
            except IndexStateError as error:
                fault = str(error)
        if fault is None:
            return None
        there = counted(count, "event that is there", "events that are there")
        return (
            f"{fault}; if you go on with the {there}, what later ones said is lost for good: "
            "facts that were forgotten by them will be said again"
        )

    def accept(self) -> None:
        """Trust the events that are there: write the checkpoints again.

        Raises:
            IndexStateError: as `loss`, or a checkpoint cannot be written.
        """
        with self._lock, self._database.writing() as connection:
            head = self._verify_again(connection)
            self._checkpoints.replace(head)

    def seal(self, record_id: str, name: str, text: str) -> None:
        """Store a text encrypted before a record's fact is redacted in it.

        It replaces one that was stored for the record under the same name.
        """
        hashed = self._hashed_name(name)
        content = json.dumps({"name": name, "text": text}, ensure_ascii=False)
        payload = self.cipher().seal(content, ("original", record_id, hashed))
        row = {"record_id": record_id, "name": hashed, "payload": payload}
        with self._database.writing() as connection:
            connection.execute(_without_original(record_id, hashed))
            connection.execute(insert(Original), row)

    def sealed(self) -> list[EncryptedOriginal]:
        """Return the stored originals, in the order of storing.

        Raises:
            IndexStateError: one of them was changed.
        """
        with self._database.reading() as connection:
            return self._originals(connection)

    def unseal(self, record_id: str, name: str) -> None:
        """Delete the original of a record and a name; one that is not there is no error."""
        with self._database.writing() as connection:
            connection.execute(_without_original(record_id, self._hashed_name(name)))

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
            chain = Chain(connection, partial(self.cipher, create=start == START), start)
            yield chain
            chain.write()
            if start == START and chain.head != start:
                self._checkpoints.begin()
        if chain.head != start:  # committed, so they are advanced
            self._checkpoints.advance(chain.head)

    def cipher(self, create: bool = False) -> LedgerCipher:
        """Return what the ledger's key is used for.

        Args:
            create: Create the key file if there is none.

        Raises:
            IndexStateError: the key is missing, such as before anything is recorded.
        """
        cipher = self._loaded_cipher
        if cipher is None:
            cipher = self._loaded_cipher = LedgerCipher(self._read_key(create))
        return cipher

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

    def _add_part(
        self, chain: Chain, part: list[tuple[Record, list[str]]], known: dict[str, Record]
    ) -> list[Record]:
        """Add what is not in force; ``known`` gains the records by the hash of their fact."""
        hashed = [(chain.cipher().keyed_hash(identity), record) for record, identity in part]
        same = (Row.kind == ADDED) & Row.fact.in_({fact for fact, _ in hashed})
        for row in chain.connection.execute(chains.COLUMNS.where(same)).all():
            if self._verified.entered[ADDED].get(row.record_id) == row.sequence:
                known[row.fact] = _record(self._event(row))
        for fact, record in hashed:
            if fact not in known:
                new = replace(record, id=secrets.token_hex(ID_BYTES), time=chain.time)
                chain.append(ADDED, new.id, _fields(new), fact)
                known[fact] = new
        chain.write()
        return [known[fact] for fact, _ in hashed]

    def _active(self, connection: Connection, record_id: str) -> Record:
        with self._lock:
            number = self._verified.entered[ADDED].get(record_id)
            removed = record_id in self._verified.ended[REMOVED]
        row = connection.execute(
            chains.COLUMNS.where(
                Row.record_id == record_id, Row.kind == (REMOVED if removed else ADDED)
            )
        ).first()
        if number is not None:
            if row is None or row.sequence != number:
                raise self._not_whole(f"event {number} was changed or taken out")
            return _record(self._event(row))
        if removed:
            when = f", at {row.time}" if row else ""
            raise InputError(f"record {record_id} was removed already{when}")
        raise InputError(f"there is no record {record_id!r}; fulcrum forget list shows their ids")

    def _event(self, row: Any) -> Event:
        details = chains.decrypt(row, self.cipher())
        if details is None:
            raise IndexStateError(
                f"event {row.sequence} of {self._database.place} cannot be decrypted: it was "
                "changed; fulcrum forget verify checks the ledger, put a copy of it back"
            )
        return Event(row.sequence, row.kind, row.record_id, row.time, json.loads(details))

    def _hashed_name(self, name: str) -> str:
        """What an original is found by in the database."""
        return self.cipher().keyed_hash(["original", name])

    def _originals(self, connection: Connection) -> list[EncryptedOriginal]:
        found = []
        for row in connection.execute(
            select(*Original.__table__.columns).order_by(Original.number)
        ):
            text = self.cipher().open(row.payload, ("original", row.record_id, row.name))
            if text is None:
                raise IndexStateError(
                    f"an original kept for record {row.record_id} of the ledger cannot be "
                    "decrypted: it was changed; put a copy of the ledger back"
                )
            found.append(EncryptedOriginal(row.record_id, **json.loads(text)))
        return found

    def _not_whole(self, fault: str, advice: str = "") -> IndexStateError:
        return IndexStateError(
            f"{self._database.place} is not whole: {fault}; put a copy of it back{advice}"
        )

    def _read_key(self, create: bool) -> bytes:
        if isinstance(self._key, bytes):
            return self._key
        self._key_state = self._key.state()
        key = self._key.read()
        if key is None and create:
            key = self._key.create()
        if key is None:
            raise IndexStateError(
                f"{self._database.place} holds or held forgotten facts or corrections, but its key "
                f"{self._key.path} is missing; put the key back or set {VARIABLE}"
            )
        return key

    def _watch_key(self) -> None:
        """Forget the key of a file that was changed since: it is read again, and has to fit."""
        if isinstance(self._key, KeyFile):
            state = self._key.state()
            if state is None or state != self._key_state:
                self._loaded_cipher, self._key_fits = None, False

    def _check_key(self, connection: Connection) -> None:
        """Check that the key decrypts the first or the last event."""
        ends = [] if self._key_fits else chains.ends(connection)
        if not ends:
            return
        self._key_fits = any(chains.decrypt(row, self.cipher()) is not None for row in ends)
        if not self._key_fits:
            key = f"the key in {VARIABLE}" if isinstance(self._key, bytes) else self._key.path
            raise IndexStateError(
                f"{self._database.place} does not open with {key}: the key is another one, or the "
                f"events were changed; put the right key back or set {VARIABLE}"
            )

    def _seen(self) -> dict[CheckpointFile, Seen] | IndexStateError:
        """What the checkpoints say, or what is wrong with one of them."""
        self._watch_key()
        try:
            return self._checkpoints.read()
        except IndexStateError as error:  # told after what is wrong with the key, which explains it
            return error

    def _verify(
        self, connection: Connection, seen: dict[CheckpointFile, Seen] | IndexStateError
    ) -> None:
        """Verify what is new: the key, the events, and that none is missing that was seen."""
        self._check_key(connection)
        newest, before = chains.last(connection), self._verified.head
        fault = None
        if newest.sequence > before.sequence:
            fault = self._verified.verify(connection, self.cipher, newest.sequence)
        elif newest != before:
            fault = chains.find_truncation(connection, before)
        if fault:
            raise self._not_whole(fault)
        if seen == self._accepted:
            return
        if fault := self._checkpoint_fault(connection, seen):
            raise self._not_whole(
                fault, f", or trust what is there: {ACCEPT} says what is lost then"
            )
        if self._verified.head != START:  # of an empty ledger no checkpoint is missed
            self._accepted = seen

    def _verify_again(self, connection: Connection, upto: int | None = None) -> Head:
        """Verify all events once more, and return the last one."""
        verified = VerifiedChain()
        if fault := verified.verify(connection, self.cipher, upto):
            raise self._not_whole(fault)
        return verified.head

    def _checkpoint_fault(
        self, connection: Connection, seen: dict[CheckpointFile, Seen] | IndexStateError
    ) -> str | None:
        if isinstance(seen, IndexStateError):
            raise seen
        return self._checkpoints.find_fault(connection, seen, chains.last(connection).sequence)

    def _damage(self, connection: Connection) -> str | None:
        self._originals(connection)  # raises if one was changed
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
    """Open the ledger of a home directory; raises as `Ledger`.

    Args:
        home: The directory of all state.
        url: Of the database; by default it lies in the home.
        key: 64 hexadecimal digits; by default those of ``ledger.key`` in the home.
        checkpoint: As in `Ledger`.
        trusted: As in `Ledger`.
    """
    chosen = KeyFile(home / KEY) if key is None else parse_key(key)
    return Ledger(url or home / DATABASE, chosen, home, checkpoint, trusted)


def _head_name(database: str) -> str:
    """A home may have been used with several ledgers, at several URLs."""
    return f"ledger-{hashlib.sha256(database.encode()).hexdigest()[:16]}.head"


def _without_original(record_id: str, hashed_name: str) -> Delete:
    same = (Original.record_id == record_id) & (Original.name == hashed_name)
    return delete(Original).where(same)


def _record(event: Event) -> Record:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in event.details.items()
    }
    return Record(**values, time=event.time, id=event.record_id)


def _identity(record: Record) -> list[str]:
    """The values that are equal for two records of the same fact."""
    spans = sorted({normalise(span) for span in record.spans})
    return [record.scope, normalise(record.subject), normalise(record.relation), *spans]


def _fields(record: Record) -> dict[str, Any]:
    """The fields that are encrypted; id and time have columns of their own."""
    return {name: value for name, value in vars(record).items() if name not in ("id", "time")}
