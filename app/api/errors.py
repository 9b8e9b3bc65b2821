"""Errors in the form of OpenAI's API: one line each, never repeating the request."""

import logging
import traceback
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.server.security import error_body
from foundation.errors import (
    BusyError,
    ClosingError,
    FulcrumError,
    IndexStateError,
    InputError,
    ModelError,
)

log = logging.getLogger(__name__)

WRAPPINGS = {"body", "query", "path", "constrained-str"}  # parts of a location that no client sent
HALF = "holds half a character; send whole UTF-8"
RETRY_SECONDS = 2  # about as long as an answer takes


class Details(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 and above."""

    error: Details


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "What was asked is wrong or too much"},
    "5XX": {"model": ErrorBody, "description": "The server cannot answer (now)"},
}


class NotFoundError(InputError):
    """A path names something that does not exist."""


def add_handlers(app: FastAPI) -> None:
    """Let an application answer in this form to any exception."""
    app.add_exception_handler(FulcrumError, _fulcrum)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def describe_error(error: BaseException) -> tuple[int, str]:
    """Return the status and the message for an error."""
    if not isinstance(error, FulcrumError):
        log.error("%s at %s", type(error).__name__, _place(error))
        return 500, f"the server failed ({type(error).__name__}); its log says where"
    status = 400
    for kind, code in STATUS.items():
        if isinstance(error, kind):
            status = code
    return status, " ".join(str(error).split())


STATUS = {
    BusyError: 429,
    ClosingError: 503,
    IndexStateError: 503,
    ModelError: 503,
    NotFoundError: 404,
}


def _fulcrum(_: Request, error: Exception) -> JSONResponse:
    status, message = describe_error(error)
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else None
    return JSONResponse(error_body(status, message), status, headers)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    place = [str(part) for part in first.get("loc", ()) if part not in WRAPPINGS]
    if first.get("type") == "json_invalid":
        return JSONResponse(error_body(400, "the body is not valid JSON"), 400)
    param = ".".join(place) or None
    message = first.get("msg", "it cannot be read").removeprefix("Value error, ")
    if first.get("type") == "string_unicode":
        message = HALF
    return JSONResponse(error_body(400, f"{param or 'the request'}: {message}", param), 400)


def _http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _unexpected(_, error)
    detail = error.detail if isinstance(error.detail, str) else "it cannot be answered"
    return JSONResponse(error_body(error.status_code, detail), error.status_code, error.headers)


def _unexpected(_: Request, error: Exception) -> JSONResponse:
    status, message = describe_error(error)
    return JSONResponse(error_body(status, message), status)


def _place(error: BaseException) -> str:
    """Return where an error was raised, without its text, which may hold a forgotten fact."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
