"""Forgotten facts, events of the audit, documents and claims, for terminal, page and API."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from control.conflict.sources import MEMORY, SourceClaim
from control.forgetting.record import Record, shown

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from control.forgetting.ledger import Event


def fact(record: Record) -> str:
    """A forgotten fact in one line."""
    if record.scope == "subject":
        return f"everything about {record.subject}"
    if record.scope == "verbatim":
        return f"wording of {record.subject}: {', '.join(map(shown, record.answers))}"
    about = f"{record.subject}, {record.relation}" if record.relation.strip() else record.subject
    return f"{about}: {', '.join(record.answers)}"


def event(happened: "Event") -> tuple[str, dict[str, Any]]:
    """The fact that an event has added, empty for any other event, and what else is known of it."""
    details = happened.details
    if happened.kind != "added":
        return "", details
    added = Record(**{**details, "answers": tuple(details["answers"])})
    return fact(added), {name: details[name] for name in ("who", "reason")}


def document(passage: "BaseNode") -> str:
    """The name of a passage's document: its file, else its title, else its id."""
    source = PurePath(str(passage.metadata.get("source", ""))).name
    return source or str(passage.metadata.get("title", "")) or str(passage.ref_doc_id)


def agrees(claims: Sequence[SourceClaim]) -> bool:
    """Whether memory claims the same as a passage that the answer follows."""
    remembered = {claim.group for claim in claims if claim.source == MEMORY}
    return any(
        claim.followed and claim.source != MEMORY and claim.group in remembered for claim in claims
    )
