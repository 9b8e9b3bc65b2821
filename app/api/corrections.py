"""/v1/corrections: pinned corrections. For administrators only."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.api.access import Administrator
from app.api.errors import NotFoundError
from app.api.schema import CorrectionBody
from control.corrections import Correction
from control.forgetting.clearing import Clearance
from control.forgetting.record import LONGEST_TEXT
from foundation.errors import InputError

CREATED = 201

router = APIRouter(prefix="/v1/corrections", tags=["corrections"])


class PinnedCorrection(BaseModel):
    """A pinned correction.

    ``new`` says whether this request recorded it, ``replaced`` which ones it withdrew for that;
    ``forgotten`` names the forgotten facts that it states, for which it is not used.
    """

    object: str = "correction"
    id: str
    time: str
    statement: str
    source: str
    who: str
    scope: str
    new: bool | None = None
    replaced: list[str] = []
    forgotten: list[str] = []


class CorrectionList(BaseModel):
    """The corrections in force."""

    object: str = "list"
    data: list[PinnedCorrection]


@router.post("", status_code=CREATED, responses={200: {"model": PinnedCorrection}})
def add(request: CorrectionBody, caller: Administrator) -> Any:
    """Pin a correction, which stands above passages and memory from now on.

    200 instead of 201 where it was pinned before.
    """
    given = Correction(request.statement, request.source, request.who, request.scope)
    pinned = caller.service.corrections.add(given, request.replace)
    replaced = [old.id for old in pinned.replaced]
    body = PinnedCorrection(**asdict(pinned.correction), new=pinned.new, replaced=replaced)
    return JSONResponse(body.model_dump(), CREATED if pinned.new else 200)


@router.get("")
def list_corrections(caller: Administrator) -> CorrectionList:
    """List the corrections in force, cleared of what has been forgotten since."""
    corrections, clear = caller.service.corrections, caller.service.door.open()
    return CorrectionList(
        data=[_shown(each, clear, corrections.forgotten(each)) for each in corrections.all()]
    )


@router.delete("/{correction_id}")
def withdraw(
    correction_id: str,
    caller: Administrator,
    reason: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
    who: Annotated[str, Query(max_length=LONGEST_TEXT)] = "",
) -> PinnedCorrection:
    """Withdraw a correction; the audit keeps that it was pinned."""
    try:
        gone = caller.service.corrections.withdraw(correction_id, who, reason)
    except InputError:
        raise NotFoundError(
            "no correction of this id is in force; GET /v1/corrections lists them"
        ) from None
    return _shown(gone, caller.service.door.open(), ())


def _shown(correction: Correction, clear: Clearance, forgotten: Sequence[str]) -> PinnedCorrection:
    """A correction without what has been forgotten since it was pinned."""
    return PinnedCorrection(
        id=correction.id,
        time=correction.time,
        statement=clear.text(correction.statement, correction.scope),
        source=clear.name(correction.source),
        who=clear.name(correction.who),
        scope=clear.name(correction.scope),
        forgotten=list(forgotten),
    )
