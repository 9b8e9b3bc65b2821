"""/v1/forget: forgotten facts and their audit. For administrators only."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.api.access import Administrator
from app.api.errors import NotFoundError
from app.api.schema import ForgetBody
from app.server.documents import ElsewhereDocument
from control.forgetting.chain import now
from control.forgetting.record import LONGEST_TEXT, Record
from control.forgetting.requests import requested
from foundation.errors import InputError

CREATED = 201
MOST_EVENTS = 10_000

router = APIRouter(prefix="/v1/forget", tags=["forgetting"])


class ForgottenFact(BaseModel):
    """A forgotten fact; ``new`` says whether this request recorded it.

    Of a request that forgets it, ``notices`` name the adapters whose weights keep it, and
    ``elsewhere`` the documents in which it may stand under another name of its subject.
    """

    object: str = "forgotten_fact"
    id: str
    time: str
    subject: str
    aliases: list[str]
    relation: str
    questions: list[str]
    answers: list[str]
    answer_aliases: list[str]
    scope: str
    reason: str
    who: str
    new: bool | None = None
    notices: list[str] | None = None
    elsewhere: list[ElsewhereDocument] | None = None


class FactList(BaseModel):
    """All forgotten facts."""

    object: str = "list"
    data: list[ForgottenFact]


class AuditEvent(BaseModel):
    """An event of the audit."""

    object: str = "event"
    sequence: int
    kind: str
    record_id: str
    time: str
    details: dict[str, Any]


class AuditEventList(BaseModel):
    """A part of the audit."""

    object: str = "list"
    data: list[AuditEvent]
    has_more: bool


class Verification(BaseModel):
    """Whether the ledger is unchanged."""

    object: str = "verification"
    whole: bool
    events: int
    fault: str | None


@router.post("", status_code=CREATED, responses={200: {"model": ForgottenFact}})
def add(request: ForgetBody, caller: Administrator) -> Any:
    """Forget a fact from now on, told as a sentence or by its fields.

    200 instead of 201 where it is forgotten already, or where this is a dry run.
    """
    record = requested(request.sentence, request.fields)
    notices = caller.service.adapter_notices([record])
    # First, since the sweep would hide what else states it.
    elsewhere = caller.service.documents.only_elsewhere(record)
    if request.dry_run:
        return JSONResponse(_fact(record, False, notices, elsewhere).model_dump())
    began = now()
    [kept] = caller.service.forget([record])
    new = kept.time >= began
    return JSONResponse(_fact(kept, new, notices, elsewhere).model_dump(), CREATED if new else 200)


@router.get("")
def list_facts(caller: Administrator) -> FactList:
    """List the forgotten facts."""
    return FactList(data=[_fact(record) for record in caller.service.ledger.records()])


@router.get("/audit")
def audit(
    caller: Administrator,
    after: Annotated[int, Query(ge=0, le=2**31, description="Of this sequence number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 1_000,
) -> AuditEventList:
    """List the events: additions, removals, and what was suppressed."""
    events = [event for event in caller.service.ledger.events() if event.sequence > after]
    return AuditEventList(
        data=[AuditEvent(**asdict(event)) for event in events[:limit]], has_more=len(events) > limit
    )


@router.get("/verify")
def verify(caller: Administrator) -> Verification:
    """Check that no event was changed, moved, put in, taken out or cut off."""
    ledger = caller.service.ledger
    fault = ledger.verify()
    return Verification(whole=fault is None, events=ledger.version(), fault=fault)


@router.get("/{record_id}")
def show(record_id: str, caller: Administrator) -> ForgottenFact:
    """Show a forgotten fact."""
    try:
        return _fact(caller.service.ledger.record(record_id))
    except InputError:
        raise _not_found() from None


@router.delete("/{record_id}")
def remove(
    record_id: str,
    caller: Administrator,
    reason: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
    who: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> ForgottenFact:
    """Stop forgetting a fact; the audit keeps that it was forgotten."""
    try:
        return _fact(caller.service.unforget(record_id, who, reason))
    except InputError:
        raise _not_found() from None


def _not_found() -> NotFoundError:
    return NotFoundError("there is no record of this id; GET /v1/forget lists them")


def _fact(
    record: Record,
    new: bool | None = None,
    notices: list[str] | None = None,
    elsewhere: list[ElsewhereDocument] | None = None,
) -> ForgottenFact:
    return ForgottenFact(**asdict(record), new=new, notices=notices, elsewhere=elsewhere)
