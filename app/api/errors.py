"""Errors in the form of OpenAI's API: one line each, cleared of forgotten facts."""

import logging
import re
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.api.schema import UNSUPPORTED
from app.server.security import error_body
from control.forgetting.clearing import Cleared, own
from foundation.errors import (
    BusyError,
    ClosingError,
    FulcrumError,
    IndexStateError,
    InputError,
    ModelError,
)

if TYPE_CHECKING:
    from app.server.service import Service

log = logging.getLogger(__name__)
ErrorLine = Callable[[FulcrumError], Cleared]
"""Gives what an error says, such as `app.server.service.Service.error_line`."""

WRAPPINGS = {"body", "query", "path", "constrained-str"}  # parts of a location that no client sent
FORM = re.compile(r"function-|list\[|dict\[|literal\[|constrained-")  # pydantic's names of forms
EXPECTED = "Input should be "  # how pydantic begins to say what a field takes
HALF = "holds half a character; send whole UTF-8"
RETRY_SECONDS = 2  # about as long as an answer takes


class Details(BaseModel):
    """What went wrong."""

    message: Cleared
    type: Cleared
    param: Cleared | None
    code: Cleared | None


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 and above."""

    error: Details


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What was asked is wrong or too much"},
    "5XX": {"model": ErrorBody, "description": "The server cannot answer (now)"},
}


class NotFoundError(InputError):
    """A path or a field names something that does not exist; ``code`` is OpenAI's word for it."""

    code: Cleared | None = None


class ModelNotFoundError(NotFoundError):
    """A request names a model that is not here."""

    code = own("model_not_found")


def add_handlers(app: FastAPI) -> None:
    """Let an application answer in this form to any exception."""
    app.add_exception_handler(FulcrumError, _fulcrum)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def describe_error(error: BaseException, line: ErrorLine) -> tuple[int, Cleared]:
    """Return the status and the message for an error.

    Args:
        error: The error.
        line: Gives what one of Fulcrum's own errors says.
    """
    if not isinstance(error, FulcrumError):
        log.error("%s at %s", type(error).__name__, _place(error))
        return 500, own(f"the server failed ({type(error).__name__}); its log says where")
    status = 400
    for kind, code in STATUS.items():
        if isinstance(error, kind):
            status = code
    return status, line(error)


STATUS = {
    BusyError: 429,
    ClosingError: 503,
    IndexStateError: 503,
    ModelError: 503,
    NotFoundError: 404,
}


def _service(request: Request) -> "Service":
    service: Service = request.app.state.service
    return service


def _fulcrum(request: Request, error: Exception) -> JSONResponse:
    status, message = describe_error(error, _service(request).error_line)
    code = error.code if isinstance(error, NotFoundError) else None
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else None
    return JSONResponse(error_body(status, message, code=code), status, headers)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    found = list(error.errors()) if isinstance(error, RequestValidationError) else []
    # A field of several forms has an error for each of them; what cannot be done says most.
    found.sort(key=lambda each: each.get("type") != UNSUPPORTED)
    first = found[0] if found else {}
    code = own(UNSUPPORTED) if first.get("type") == UNSUPPORTED else None
    place = _place_of(first)
    if first.get("type") == "json_invalid":
        return JSONResponse(error_body(400, own("the body is not valid JSON")), 400)
    param = ".".join(place) or None
    message = _message(found)
    if first.get("type") == "string_unicode":
        message = HALF
    if param or first.get("type") != "value_error":  # that one says itself what it is about
        message = f"{param or 'the request'}: {message}"
    line = _service(request).error_line
    shown = line(InputError(param)) if param else None
    return JSONResponse(error_body(400, line(InputError(message)), shown, code), 400)


def _message(found: Sequence[dict[str, Any]]) -> str:
    """What the first error says, and which other forms the same field may have."""
    if not found:
        return "it cannot be read"
    first = found[0].get("msg", "").removeprefix("Value error, ")
    forms = [first]
    if first.startswith(EXPECTED):
        place = _place_of(found[0])
        said = [each.get("msg", "") for each in found[1:] if _place_of(each) == place]
        forms += [each.removeprefix(EXPECTED) for each in said if each.startswith(EXPECTED)]
    return ", or ".join(dict.fromkeys(forms))


def _place_of(error: dict[str, Any]) -> list[str]:
    """The names that lead to the field that an error is about."""
    return [str(part) for part in error.get("loc", ()) if not _is_wrapping(part)]


def _is_wrapping(part: Any) -> bool:
    """Whether a part of a field's place is not its name: which of the field's forms was tried."""
    return isinstance(part, str) and (part in WRAPPINGS or FORM.match(part) is not None)


def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _unexpected(request, error)
    detail = error.detail if isinstance(error.detail, str) else "it cannot be answered"
    message = _service(request).error_line(InputError(detail))
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    status, message = describe_error(error, _service(request).error_line)
    return JSONResponse(error_body(status, message), status)


def _place(error: BaseException) -> str:
    """Return where an error was raised, without its text, which may hold a forgotten fact."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
