"""Validates what a browser sends to the page: known routes, its own sessions, plain values.

gradio takes any JSON for the value of an input. A file object in it (`gradio.FileData`) makes it
copy that file, and its sessions belong to whoever names them. So a request is parsed here first and
rebuilt from its checked parts; gradio receives nothing else.
"""

import hmac
import json
import logging
import math
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from app.server.security import MEGABYTE, ROLE, SERVER_ERROR, error_body
from control.forgetting.clearing import own

if TYPE_CHECKING:
    from app.server.security import Application, Message, Receive, Scope, Send

API = "/gradio_api"
UPLOAD = f"{API}/upload"
# What the page's own script asks for. gradio has more routes: files of the machine, other servers
# through this one, recordings, code written by a model. None of them is of use here.
OPEN_ROUTES = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    rf"|/(?:assets|static)(?:/[\w@.~+-]{{1,200}}){{1,8}}|{API}/startup-events",
    re.ASCII,
)
QUEUED, AT_ONCE = f"{API}/queue/join", f"{API}/run/predict"  # the two kinds of events
HEARTBEAT = f"{API}/heartbeat/"
ADMINISTRATION_ROUTES = frozenset({UPLOAD, f"{API}/upload_progress"})
READ_METHODS = ("GET", "HEAD")

CLOSING = b'"close_stream"'  # the last thing that gradio sends to a session

COOKIE = "fulcrum_visitor"
COOKIE_BYTES = 32
VISITOR = re.compile(r"[\w-]{43}", re.ASCII)  # so many bytes in base64 for URLs
SESSION = re.compile(r"\w{1,64}", re.ASCII)
EVENT_KEYS = frozenset({"id", "action", "value", "index"})  # of what happened to a component
MOST_FILES = 32  # of one event
FILE_KEYS = ("orig_name", "size", "mime_type")  # kept of a file object beside its path
# All of a request's headers that gradio reads, but for those on origins, which the guard before
# this one has compared.
HEADERS = frozenset(
    {b"host", b"content-type", b"content-length", b"if-none-match", b"x-forwarded-proto"}
)
FORWARDED_HOST = re.compile(rb"[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")
NOTHING_HERE = HTTPException(404, "there is nothing here")
NOT_ALLOWED = HTTPException(403, "this needs the administration key")
BODY_HEADERS = frozenset({b"content-length", b"content-type", b"transfer-encoding"})


Check = Callable[["Scope", Any], Any]
"""What becomes of an input's value, in a request of this scope."""

log = logging.getLogger(__name__)


class PageGuard:
    """ASGI middleware around the page that passes only what the page itself would send.

    It stands within `app.server.security.RequestGuard`, which says who is an administrator.
    """

    def __init__(
        self,
        app: "Application",
        blocks: gr.Blocks,
        uploads: Path,
        most: int,
        left: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Collect the page's events.

        Args:
            app: The page.
            blocks: Its components and events.
            uploads: Where gradio puts uploaded files; no others may be named.
            most: Bytes of a request that holds no files.
            left: Told the name of a session whose visitor went away before the answer came.
        """
        self._left = left
        self._app, self._blocks = app, blocks
        self._uploads, self._most = uploads.resolve(), most
        # gradio would also let a visitor say that somebody has left.
        self._inputs = {
            number: [self._check(component) for component in event.inputs]
            for number, event in blocks.fns.items()
            if all(happened != "unload" for _, happened in event.targets)
        }

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            checked, receive = await self._checked(scope, receive)
        except HTTPException as refused:
            body = error_body(refused.status_code, own(refused.detail))
            await JSONResponse(body, refused.status_code, refused.headers)(scope, receive, send)
            return
        if scope["path"] == "/" and not _visitor(scope):
            send = _with_cookie(send, secure=scope.get("scheme") == "https")
        checked["headers"] = [header for header in checked["headers"] if _passed(*header)]
        if checked["path"] == UPLOAD:
            await self._upload(checked, receive, send)
        elif checked["path"] == f"{API}/queue/data":
            await self._events(checked, receive, send)
        else:
            await self._app(checked, receive, send)

    async def _upload(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Take files; of a request that is no upload, gradio fails without a word."""
        failed = False

        async def sent(message: "Message") -> None:
            nonlocal failed
            failed = failed or message.get("status", 0) >= SERVER_ERROR
            if not failed:
                await send(message)

        try:
            await self._app(scope, receive, sent)
        except (OSError, ClientDisconnect):
            raise
        except Exception as error:
            log.debug("%s", type(error).__name__)
            failed = True
        if failed:
            message = own("no files can be read; send them as multipart/form-data")
            body = error_body(400, message)
            await JSONResponse(body, 400)(scope, receive, send)

    async def _events(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send a session what it is answered, until that is done or the visitor has gone."""
        session = parse_qs(scope["query_string"].decode())["session_hash"][0]
        done = False

        async def received() -> "Message":
            message = await receive()
            if message["type"] == "http.disconnect" and not done:
                self._left(session)
            return message

        async def sent(message: "Message") -> None:
            nonlocal done
            done = done or CLOSING in message.get("body", b"")
            await send(message)

        try:
            await self._app(scope, received, sent)
        except Exception as error:  # gradio tells the page that there is no such session, and fails
            log.debug("%s", type(error).__name__)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _checked(self, scope: "Scope", receive: "Receive") -> "tuple[Scope, Receive]":
        """Return the request for gradio.

        Raises:
            HTTPException: It is refused.
        """
        path, reads = scope["path"], scope["method"] in READ_METHODS
        if path in ADMINISTRATION_ROUTES and reads == (path != UPLOAD):
            if scope.get(ROLE) != "administrator":
                raise NOT_ALLOWED
            return {**scope}, receive
        if reads:
            return self._looked_up(scope, path), receive
        return _replaced(scope, receive, await self._sent(scope, path, receive))

    def _looked_up(self, scope: "Scope", path: str) -> "Scope":
        """Check a request that changes nothing."""
        if OPEN_ROUTES.fullmatch(path):
            return {**scope, "query_string": b""}
        if path == f"{API}/queue/data":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
            query = urlencode({"session_hash": self._session(scope, given)})
            return {**scope, "query_string": query.encode()}
        if path.startswith(HEARTBEAT):
            path = HEARTBEAT + self._session(scope, path.removeprefix(HEARTBEAT))
            return {**scope, "path": path, "raw_path": path.encode()}
        raise NOTHING_HERE

    async def _sent(self, scope: "Scope", path: str, receive: "Receive") -> dict[str, Any]:
        """Return the checked body of a request."""
        if path in (QUEUED, AT_ONCE):
            event = self._event(scope, await self._json(receive))
            if path != (QUEUED if self._blocks.fns[event["fn_index"]].queue else AT_ONCE):
                raise _wrong("fn_index", f"{path} takes other events")
            return event
        if path == f"{API}/cancel":
            given = await self._json(receive)
            return {
                "session_hash": self._session(scope, given.get("session_hash")),
                "event_id": _text(given.get("event_id"), none=False),
                "fn_index": self._number(given.get("fn_index")),
            }
        if path == f"{API}/reset":
            given = await self._json(receive)
            return {"event_id": _text(given.get("event_id"), none=False)}
        raise NOTHING_HERE

    def _event(self, scope: "Scope", given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checked fields of an event."""
        number = self._number(given.get("fn_index"))
        checks, values = self._inputs[number], given.get("data")
        if not isinstance(values, list) or len(values) != len(checks):
            raise _wrong("data", f"give {len(checks)} values")
        happened = given.get("event_data")
        if isinstance(happened, str):
            happened = None  # a text that was changed, which stands in the data, too
        if happened is not None:
            if not isinstance(happened, dict) or not happened.keys() <= EVENT_KEYS:
                raise _wrong("event_data", f"give {', '.join(sorted(EVENT_KEYS))}, or nothing")
            happened = {key: _scalar(value) for key, value in happened.items()}
        trigger = given.get("trigger_id")
        if trigger is not None and type(trigger) is not int:
            raise _wrong("trigger_id", "give a number")
        return {
            "data": [check(scope, value) for check, value in zip(checks, values, strict=True)],
            "event_data": happened,
            "fn_index": number,
            "trigger_id": trigger,
            "session_hash": self._session(scope, given.get("session_hash")),
        }

    def _check(self, component: Any) -> Check:
        """Return the check of an input's value.

        Raises:
            TypeError: There is no check for such an input.
        """
        if isinstance(component, gr.File):
            return partial(self._files, component.file_count == "multiple")
        check = _check(component)
        return lambda _, value: check(value)

    def _files(self, several: bool, scope: "Scope", value: Any) -> Any:
        """Check an input of one file or several, which only administrators may give."""
        if value is None:
            return None
        if scope.get(ROLE) != "administrator":
            raise NOT_ALLOWED
        if not several:
            return self._file(value)
        if not isinstance(value, list) or len(value) > MOST_FILES:
            raise _wrong("data", f"give a list of up to {MOST_FILES} files")
        return [self._file(each) for each in value]

    def _file(self, given: Any) -> dict[str, Any]:
        """Check that a file was uploaded here; no other file of the machine can be named."""
        path = given.get("path") if isinstance(given, dict) else None
        if not isinstance(path, str) or "\0" in path or not _storable(path):
            raise _wrong("data", "give a file that was uploaded")
        found = Path(path)
        if found.is_symlink() or self._uploads not in found.resolve().parents:
            raise _wrong("data", "give a file that was uploaded")
        kept = {key: _scalar(given[key]) for key in FILE_KEYS if key in given}
        return {**kept, "path": path, "meta": {"_type": "gradio.FileData"}}

    def _number(self, given: Any) -> int:
        if type(given) is not int or given not in self._inputs:
            raise _wrong("fn_index", "there is no such event")
        return given

    def _session(self, scope: "Scope", given: Any) -> str:
        """Return the name of a visitor's session, which needs the visitor's cookie."""
        visitor = _visitor(scope)
        if not visitor:
            raise HTTPException(403, "open the page first, in a browser that takes its cookie")
        if not isinstance(given, str) or not SESSION.fullmatch(given):
            raise _wrong("session_hash", "give up to 64 letters and digits")
        return hmac.digest(visitor.encode(), given.encode(), "sha256").hex()

    async def _json(self, receive: "Receive") -> dict[str, Any]:
        """Read the body of a request.

        Raises:
            HTTPException: It is too large, or no object in JSON.
        """
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._most:
                raise HTTPException(
                    413, f"the request is larger than {self._most / MEGABYTE:g} MB; send less"
                )
            if not message.get("more_body", False):
                break
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPException(400, "the body is not valid JSON") from None
        if not isinstance(given, dict):
            raise HTTPException(400, "the body is not an object")
        return given


def _check(component: Any) -> Callable[[Any], Any]:
    if isinstance(component, gr.State):
        return lambda _: None  # the server keeps it
    if isinstance(component, gr.Radio) or (
        isinstance(component, gr.Dropdown) and not component.multiselect
    ):
        return _choice([value for _, value in component.choices])
    if isinstance(component, gr.Checkbox):
        return _yes_or_no
    if isinstance(component, gr.Slider):
        return _between(component.minimum, component.maximum)
    if isinstance(component, gr.Textbox | gr.HTML | gr.BrowserState):
        return _text
    raise TypeError(f"{type(component).__name__} is an input of the page, but nothing checks it")


def _text(value: Any, none: bool = True) -> str | None:
    if value is None and none:
        return None
    if not isinstance(value, str):
        raise _wrong("data", "give a text")
    if not _storable(value):
        raise _wrong("data", "the text holds half a character; send whole UTF-8")
    return value


def _yes_or_no(value: Any) -> bool | None:
    if value is not None and type(value) is not bool:
        raise _wrong("data", "give true or false")
    return value


def _choice(choices: list[Any]) -> "Callable[[Any], Any]":
    def check(value: Any) -> Any:
        if value is not None and (not isinstance(value, str) or value not in choices):
            raise _wrong("data", f"give one of {', '.join(map(str, choices))}")
        return value

    return check


def _between(least: float, most: float) -> "Callable[[Any], Any]":
    def check(value: Any) -> Any:
        if type(value) not in (int, float) or not least <= value <= most:
            raise _wrong("data", f"give a number from {least:g} to {most:g}")
        return value

    return check


def _scalar(value: Any) -> Any:
    """Check a value that is neither a list nor an object."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict | list) or (isinstance(value, float) and not math.isfinite(value)):
        raise _wrong("event_data", "give texts and numbers")
    return value


def _passed(name: bytes, value: bytes) -> bool:
    """Whether to pass a header to gradio; a forwarded host has to be a host name."""
    if name == b"x-forwarded-host":
        return FORWARDED_HOST.fullmatch(value) is not None
    return name in HEADERS


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(what: str, why: str) -> HTTPException:
    return HTTPException(400, f"{what}: {why}")


def _visitor(scope: "Scope") -> str:
    """Return the value of the visitor's cookie; empty without a valid one."""
    sent = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
    try:
        kept = SimpleCookie(sent.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return kept.value if kept and VISITOR.fullmatch(kept.value) else ""


def _with_cookie(send: "Send", secure: bool) -> "Send":
    value = secrets.token_urlsafe(COOKIE_BYTES)
    cookie = f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"

    async def sent(message: "Message") -> None:
        if message["type"] == "http.response.start":
            message = {
                **message,
                "headers": [*message["headers"], (b"set-cookie", cookie.encode())],
            }
        await send(message)

    return sent


def _replaced(scope: "Scope", receive: "Receive", body: dict[str, Any]) -> "tuple[Scope, Receive]":
    """Return a request with another body."""
    encoded = json.dumps(body).encode()
    kept = [(name, value) for name, value in scope["headers"] if name not in BODY_HEADERS]
    length = str(len(encoded)).encode()
    headers = [*kept, (b"content-type", b"application/json"), (b"content-length", length)]
    waiting: list[Message] = [{"type": "http.request", "body": encoded, "more_body": False}]

    async def received() -> "Message":
        return waiting.pop() if waiting else await receive()

    return {**scope, "headers": headers}, received
