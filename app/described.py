"""Forgotten facts, events of the audit and documents in words, for terminal, page and API."""

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from control.forgetting.record import Record, shown
from foundation.text import FUNCTION_WORDS

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from control.forgetting.ledger import Event


def fact(record: Record) -> str:
    """A forgotten fact in one line."""
    if record.scope == "subject":
        return f"everything about {record.subject}"
    if record.scope == "verbatim":
        return f"wording of {record.subject}: {', '.join(map(shown, record.answers))}"
    *_, last = record.relation.split() or [""]
    if last.lower() in FUNCTION_WORDS:  # "commanded by"
        about = f"{record.subject} {record.relation}"
    else:
        about = f"{record.relation} of {record.subject}" if last else record.subject
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
