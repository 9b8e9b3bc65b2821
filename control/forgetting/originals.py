"""Encrypted originals of redacted texts."""

import json
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, select, true

from control.forgetting.cipher import LedgerCipher
from control.forgetting.ledger_tables import Original
from foundation.errors import IndexStateError


@dataclass(frozen=True)
class EncryptedOriginal:
    """A stored text as it was before a record's fact was taken out of it; name says which."""

    record_id: str
    name: str
    text: str


def keep(connection: Connection, vault: LedgerCipher, original: EncryptedOriginal) -> None:
    """Keep a text in place of the one of the same record and name."""
    mark = _mark(vault, original.name)
    text = json.dumps({"name": original.name, "text": original.text}, ensure_ascii=False)
    row = {
        "record_id": original.record_id,
        "name": mark,
        "payload": vault.seal(text, _place(original.record_id, mark)),
    }
    forget(connection, vault, original.record_id, original.name)
    connection.execute(insert(Original), row)


def kept(
    connection: Connection,
    vault: LedgerCipher,
    record_id: str | None = None,
    name: str | None = None,
) -> list[EncryptedOriginal]:
    """Return the texts kept for a record, under a name; all of them where left out.

    Raises:
        IndexStateError: one of them was changed.
    """
    wanted = select(*Original.__table__.columns).where(_chosen(vault, record_id, name))
    found = []
    for row in connection.execute(wanted.order_by(Original.number)):
        text = vault.open(row.payload, _place(row.record_id, row.name))
        if text is None:
            raise IndexStateError(
                f"an original kept for record {row.record_id} of the ledger cannot be decrypted: "
                "it was changed; put a copy of the ledger back"
            )
        found.append(EncryptedOriginal(record_id=row.record_id, **json.loads(text)))
    return found


def forget(
    connection: Connection, vault: LedgerCipher, record_id: str, name: str | None = None
) -> None:
    """Keep the texts of a record, or the one of that name, no longer."""
    connection.execute(delete(Original).where(_chosen(vault, record_id, name)))


def _chosen(vault: LedgerCipher, record_id: str | None, name: str | None) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = true()
    if record_id is not None:
        condition &= Original.record_id == record_id
    if name is not None:
        condition &= Original.name == _mark(vault, name)
    return condition


def _mark(vault: LedgerCipher, name: str) -> str:
    return vault.mark(["original", name])


def _place(record_id: str, mark: str) -> tuple[str, str, str]:
    return ("original", record_id, mark)
