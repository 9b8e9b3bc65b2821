"""The ledger of forgotten facts: append-only, chained by hashes, encrypted."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
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
ID_BYTES = 8  # drawn at random: among 100,000 records two are alike once in 4 billion ledgers
BATCH = 1_000  # events written by one statement


@dataclass(frozen=True)
class Event:
    """One entry of the audit.

    Attributes:
        sequence: Its number; the first is 1, none is left out.
        kind: "added", "removed", "refused", "redacted", "guarded", "swept", ...
        record_id: The record that it is about, or "".
        time: ISO 8601 in UTC.
        details: What was recorded with it; for "added" the fields of the record.
    """

    sequence: int
    kind: str
    record_id: str
    time: str
    details: dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """What has happened since a version.

    Attributes:
        version: The number of the newest event; ask for the changes since it the next time.
        added: Records that came and are still active.
        removed: Ids of records that went.
    """

    version: int
    added: list[Record] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Ledger:
    """Records and what was done because of them, in SQLite or PostgreSQL.

    Every change is one transaction, so a process killed at any moment leaves the state before or
    after it, and every call sees all changes made before, in any process. What is personal is
    encrypted, with a key that lies outside the database. A ledger that its key does not open, or
    that lacks events seen before, raises instead of forgetting what was to be forgotten. Safe to
    use from several threads.
    """

    def __init__(self, place: str | Path, key: bytes | KeyFile, home: Path | None = None) -> None:
        """Open or create a ledger.

        Args:
            place: A file for SQLite, or the URL of a SQLite or PostgreSQL database.
            key: 32 bytes, or the file that holds them or will when the first fact is recorded.
            home: Where the last event seen is kept; by default beside a file, for a URL nowhere.

        Raises:
            InputError: the URL or the key cannot be used.
            IndexStateError: the database or the key file is damaged, lost or another one.
        """
        self._key_file = key if isinstance(key, KeyFile) else None
        self._known = LedgerCipher(key) if isinstance(key, bytes) else None
        self._fits = False
        self._database = open_tables(place)
        self._head = _head_file(place, self._database.place, home)
        seen = self._seen()
        with self._database.reading() as connection:
            self._check(connection, seen)

    def add(self, records: Iterable[Record]) -> list[Record]:
        """Record facts, all of them or, if one cannot be recorded, none.

        Args:
            records: Taken one by one before anything is written.

        Returns:
            The records with id and time. In place of a fact that is forgotten already (the same
            subject, relation, answers and scope) comes the record that exists.

        Raises:
            InputError: a record cannot be enforced; see ``control.forgetting.record.checked``.
        """
        # All that takes time comes before the transaction, which other writers wait for.
        ready = [(checked(record), _identity(record)) for record in records]
        added: list[Record] = []
        if ready:
            with self._appending() as chain:
                for start in range(0, len(ready), BATCH):
                    added += self._add_part(chain, ready[start : start + BATCH])
        return added

    def remove(self, record_id: str, who: str = "", reason: str = "") -> Record:
        """Let a fact be said again; that it was forgotten, and why no longer, stays in the audit.

        Raises:
            InputError: there is no such record, or it was removed before.
        """
        with self._appending() as chain:
            record = self._active(chain.connection, record_id)
            chain.append(REMOVED, record_id, {"who": who, "reason": reason})
        return record

    def note(self, kind: str, record_id: str = "", **details: Any) -> None:
        """Add an event to the audit, with counts or words, which are encrypted."""
        if kind in (ADDED, REMOVED):
            raise InputError(f"an event cannot be noted as {kind!r}; add or remove the record")
        with self._appending() as chain:
            chain.append(kind, record_id, details)

    def records(self) -> list[Record]:
        """Return the active records, in the order in which they came."""
        return self.changes(since=0).added

    def record(self, record_id: str) -> Record:
        """Return an active record.

        Raises:
            InputError: there is no such record, or it was removed.
        """
        with self._database.reading() as connection:
            return self._active(connection, record_id)

    def changes(self, since: int) -> Changes:
        """Return what happened after the event of this number; 0 stands for the beginning.

        Raises:
            IndexStateError: the ledger has fewer events than that, or one that cannot be read.
        """
        with self._database.reading() as connection:
            version = chains.version(connection)
            if version == since:
                return Changes(version)
            if version < since:
                fault = f"it ends with event {version}, but event {since} was there before"
                raise IndexStateError(self._cut_short(fault))
            new = (Row.sequence > since) & (Row.sequence <= version)
            gone = connection.execute(
                select(Row.record_id).where(Row.kind == REMOVED, new).order_by(Row.sequence)
            )
            removed = list(gone.scalars())
            rows = connection.execute(_active_rows().where(new).order_by(Row.sequence))
            return Changes(version, [self._record(row) for row in rows], removed)

    def events(self) -> list[Event]:
        """Return the whole audit, the oldest event first."""
        with self._database.reading() as connection:
            rows = connection.execute(COLUMNS.order_by(Row.sequence))
            return [
                Event(row.sequence, row.kind, row.record_id, row.time, self._details(row))
                for row in rows
            ]

    def version(self) -> int:
        """Return the number of the newest event, which is how many there are; 0 if none."""
        with self._database.reading() as connection:
            return chains.version(connection)

    def verify(self) -> str | None:
        """Check every event, the database, and that nothing was cut off.

        Returns:
            ``None`` if all is as it was recorded, else a sentence on the first thing that is not.
        """
        try:
            seen = self._seen()
            with self._database.reading() as connection:
                return (
                    chains.broken(connection, self._vault)
                    or chains.cut(connection, seen)
                    or self._damage(connection)
                )
        except IndexStateError as error:
            return str(error)

    def seal(self, record_id: str, name: str, text: str) -> None:
        """Keep a text as it is before a record's fact is taken out of it.

        Args:
            record_id: The record.
            name: Which text; one sealed before under the same name makes way for it.
            text: The text.
        """
        vault = self._vault()
        with self._database.writing() as connection:
            originals.keep(connection, vault, EncryptedOriginal(record_id, name, text))

    def sealed(self, record_id: str | None = None) -> list[EncryptedOriginal]:
        """Return the texts kept for a record, or for all, in the order in which they came."""
        with self._database.reading() as connection:
            if not chains.version(connection):  # and so perhaps no key yet
                return []
            return originals.kept(connection, self._vault(), record_id)

    def unseal(self, record_id: str, name: str | None = None) -> list[EncryptedOriginal]:
        """Return the texts kept for a record, or the one of that name, and keep them no longer."""
        vault = self._vault()
        with self._database.writing() as connection:
            found = originals.kept(connection, vault, record_id, name)
            originals.forget(connection, vault, record_id, name)
        return found

    def _add_part(self, chain: Chain, part: list[tuple[Record, list[str]]]) -> list[Record]:
        wanted = [(chain.vault().mark(identity), record) for record, identity in part]
        known = Row.fact.in_({mark for mark, _ in wanted})
        rows = chain.connection.execute(_active_rows().where(known))
        held = {row.fact: self._record(row) for row in rows}
        for mark, record in wanted:
            if mark not in held:
                new = replace(record, id=secrets.token_hex(ID_BYTES), time=chain.time)
                chain.append(ADDED, new.id, _fields(new), mark)
                held[mark] = new
        chain.write()
        return [held[mark] for mark, _ in wanted]

    @contextmanager
    def _appending(self) -> Iterator[Chain]:
        """Open a transaction that appends; when it is stored, the head moves on."""
        with self._database.writing() as connection:
            # Again: an empty ledger may have been filled with another key, or its end cut off.
            self._check(connection, self._seen())
            start = chains.last(connection)
            chain = Chain(connection, partial(self._vault, create=start == START), start)
            yield chain
            chain.write()
        if self._head and chain.head != start:
            self._head.advance(chain.head)

    def _seen(self) -> Head | None:
        # Read before the database: what another process adds in between is then no surprise.
        return self._head.read() if self._head else None

    def _cut_short(self, fault: str) -> str:
        accept = f", or remove {self._head.path} to go on without it" if self._head else ""
        return f"{self._database.place} is not whole: {fault}; put a copy of it back{accept}"

    def _vault(self, create: bool = False) -> LedgerCipher:
        if self._known is None:
            self._known = LedgerCipher(self._read_key(create))
        return self._known

    def _read_key(self, create: bool) -> bytes:
        file = self._key_file
        key = file.read() if file else None
        if key is None and file and create:
            key = file.create()
        if key is None:
            raise IndexStateError(
                f"{self._database.place} holds forgotten facts, but its key "
                f"{file.path if file else ''} is missing; put the key back or set {VARIABLE}"
            )
        return key

    def _check(self, connection: Connection, seen: Head | None) -> None:
        """See that nothing seen is missing, and that the key opens the first event or the last."""
        if fault := chains.cut(connection, seen):
            raise IndexStateError(self._cut_short(fault))
        ends = [] if self._fits else chains.ends(connection)
        if not ends:
            return
        self._fits = any(chains.opened(row, self._vault()) is not None for row in ends)
        if not self._fits:
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
        text = chains.opened(row, self._vault())
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
            originals.kept(connection, self._vault())  # raises if one was changed
        if connection.dialect.name == "sqlite":  # an index may hide a row that the chain holds
            said = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
            if said != "ok":
                return f"all events are there, but the database is damaged ({said})"
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


def _head_file(place: str | Path, name: str, home: Path | None) -> LedgerCheckpoint | None:
    if home is not None:
        # A home may have known several ledgers, by several URLs.
        mark = (
            f"-{hashlib.sha256(name.encode()).hexdigest()[:16]}" if isinstance(place, str) else ""
        )
        return LedgerCheckpoint(home / f"ledger{mark}.head")
    if isinstance(place, str) and "://" in place:
        return None
    return LedgerCheckpoint(Path(place).with_suffix(".head"))


def _identity(record: Record) -> list[str]:
    """What makes two records the same fact."""
    spans = sorted({normalise(span) for span in record.spans})
    return [record.scope, normalise(record.subject), normalise(record.relation), *spans]


def _fields(record: Record) -> dict[str, Any]:
    """The fields that are encrypted; id and time stand in columns."""
    return {name: value for name, value in vars(record).items() if name not in ("id", "time")}


def _active_rows() -> Select[Any]:
    later = aliased(Row)
    gone = exists().where(later.record_id == Row.record_id, later.kind == REMOVED)
    return COLUMNS.where(Row.kind == ADDED, ~gone)
