"""/v1/documents: the documents of the index."""

import shutil
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi import Path as InPath
from pydantic import AfterValidator, BaseModel, BeforeValidator

from app.api.access import Administrator, Reader
from app.api.errors import NotFoundError
from app.api.schema import LONGEST_DATE
from app.server.uploads import safe_name
from control.forgetting.clearing import Cleared, own
from foundation.errors import BusyError, DocumentError, InputError
from foundation.files import temporary_directory
from retrieval.ingest.dates import parse_dated

MOST_FILES = 32  # of one request
MOST_LISTED = 1_000
MOST_UPLOADS = 8  # requests that may wait for each other

router = APIRouter(prefix="/v1/documents", tags=["documents"])
uploading = CapacityLimiter(MOST_UPLOADS)


def _check_trust(value: object) -> object:
    """Refuse "nan", which pydantic calls too great."""
    if str(value).strip().lower().lstrip("+-") == "nan":
        raise ValueError(f"{value} is no number between 0 and 1")
    return value


def _check_dated(value: str) -> str:
    """Refuse what is no date of a document, in words that name the field."""
    try:
        return parse_dated(value)
    except InputError as error:
        raise ValueError(str(error).removeprefix("--dated ")) from error


class Document(BaseModel):
    """A document of the index."""

    object: Cleared = own("document")
    id: Cleared
    title: Cleared
    source: Cleared
    passages: int
    trust: float | None
    date: Cleared


class DocumentList(BaseModel):
    """A part of the list of documents."""

    object: Cleared = own("list")
    data: list[Document]
    has_more: bool


class SkippedFile(BaseModel):
    """A file that could not be read, or of which a part could not be used."""

    file: Cleared
    reason: Cleared


class IngestResult(BaseModel):
    """The counts of an upload."""

    object: Cleared = own("ingestion")
    documents: int
    passages: int
    duplicates: int
    replaced: int
    skipped: list[SkippedFile]
    notices: list[SkippedFile]


class DeletedDocument(BaseModel):
    """A removed document."""

    object: Cleared = own("document")
    id: Cleared
    deleted: bool = True
    passages: int


@router.get("")
def list_documents(
    caller: Reader,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> DocumentList:
    """List the documents, in order of ingestion; readers do not see the folders of files."""
    found = caller.service.documents.listed(offset, limit + 1, paths=caller.administers)
    return DocumentList(
        data=[Document(**vars(each)) for each in found[:limit]], has_more=len(found) > limit
    )


@router.post("")
async def add_documents(
    caller: Administrator,
    file: Annotated[list[UploadFile], File(min_length=1, max_length=MOST_FILES)],
    trust: Annotated[float | None, BeforeValidator(_check_trust), Form(ge=0, le=1)] = None,
    dated: Annotated[
        Annotated[str, AfterValidator(_check_dated)] | None, Form(max_length=LONGEST_DATE)
    ] = None,
) -> IngestResult:
    """Add files, of the formats that `fulcrum ingest` reads.

    Each is read in a process of its own, with limits of time and memory. Files that cannot be read
    are skipped; if all are, the request fails. What of the others could not be used is in
    ``notices``. ``dated`` is their date, YYYY-MM-DD, YYYY-MM or YYYY, instead of what they say.
    """
    if uploading.borrowed_tokens >= MOST_UPLOADS:
        raise BusyError(f"{MOST_UPLOADS} uploads are being read already; upload again later")
    return await to_thread.run_sync(_ingest, caller, file, trust, dated, limiter=uploading)


@router.delete("/{document_id:path}")
def remove_document(
    caller: Administrator, document_id: Annotated[str, InPath(min_length=1)]
) -> DeletedDocument:
    """Remove a document; an id that is withheld is named by the one listed in its place."""
    passages = caller.service.documents.remove(document_id)
    if not passages:
        raise NotFoundError("there is no document of this id; GET /v1/documents lists them")
    return DeletedDocument(id=caller.service.door.open().id(document_id), passages=passages)


def _ingest(
    caller: Any, files: list[UploadFile], trust: float | None, dated: str | None
) -> IngestResult:
    with temporary_directory("upload") as folder:
        paths = []
        for number, file in enumerate(files):
            # Each in a folder of its own, since two may have the same name.
            path = Path(folder) / str(number) / safe_name(file.filename or "")
            path.parent.mkdir()
            with path.open("wb") as target:
                shutil.copyfileobj(file.file, target)
            paths.append(path)
        *_, done = caller.service.documents.ingest(paths, trust, dated)
    if len(done.skipped) == len(files):
        raise DocumentError(", and ".join(reason for _, reason in done.skipped))
    return IngestResult(
        documents=done.documents,
        passages=done.passages,
        duplicates=done.duplicates,
        replaced=done.replaced,
        skipped=[SkippedFile(file=name, reason=reason) for name, reason in done.skipped],
        notices=[SkippedFile(file=name, reason=reason) for name, reason in done.notices],
    )
