"""Encrypted originals of redacted texts."""

import json
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, select, true

from control.forgetting.cipher import LedgerCipher
from control.forgetting.ledger_tables import Original
from foundation.errors import IndexStateError


@dataclass(frozen=True)
class EncryptedOriginal:
    """A stored text before a record's fact was redacted in it; ``name`` identifies it."""

    record_id: str
    name: str
    text: str


def store(connection: Connection, cipher: LedgerCipher, original: EncryptedOriginal) -> None:
    """Store a text in place of the one of the same record and name."""
    hashed = _hashed_name(cipher, original.name)
    text = json.dumps({"name": original.name, "text": original.text}, ensure_ascii=False)
    row = {
        "record_id": original.record_id,
        "name": hashed,
        "payload": cipher.seal(text, _place(original.record_id, hashed)),
    }
    remove(connection, cipher, original.record_id, original.name)
    connection.execute(insert(Original), row)


def load(
    connection: Connection,
    cipher: LedgerCipher,
    record_id: str | None = None,
    name: str | None = None,
) -> list[EncryptedOriginal]:
    """Return the texts stored for a record, under a name; without these, all of them.

    Raises:
        IndexStateError: one of them was changed.
    """
    wanted = select(*Original.__table__.columns).where(_condition(cipher, record_id, name))
    found = []
    for row in connection.execute(wanted.order_by(Original.number)):
        text = cipher.open(row.payload, _place(row.record_id, row.name))
        if text is None:
            raise IndexStateError(
                f"an original kept for record {row.record_id} of the ledger cannot be decrypted: "
                "it was changed; put a copy of the ledger back"
            )
        found.append(EncryptedOriginal(record_id=row.record_id, **json.loads(text)))
    return found


def remove(
    connection: Connection, cipher: LedgerCipher, record_id: str, name: str | None = None
) -> None:
    """Delete the texts of a record, or the one of that name."""
    connection.execute(delete(Original).where(_condition(cipher, record_id, name)))


def _condition(
    cipher: LedgerCipher, record_id: str | None, name: str | None
) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = true()
    if record_id is not None:
        condition &= Original.record_id == record_id
    if name is not None:
        condition &= Original.name == _hashed_name(cipher, name)
    return condition


def _hashed_name(cipher: LedgerCipher, name: str) -> str:
    return cipher.keyed_hash(["original", name])


def _place(record_id: str, hashed: str) -> tuple[str, str, str]:
    return ("original", record_id, hashed)
