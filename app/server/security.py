"""Access keys, and limits of size and time for each request."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from control.forgetting.clearing import Cleared, own
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Role = Literal["reader", "administrator"]

SHORTEST_KEY = 16  # characters: at 64 signs, 96 bits
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATH = "/health"
MEGABYTE = 1_000_000
FORM_BYTES = MEGABYTE // 10  # of a form around the file in it
NO_KEY = "no key, or a wrong one; send it as: Authorization: Bearer KEY"
ROLE = "fulcrum_role"  # where a request's scope says who sent it


@dataclass(frozen=True)
class Keys:
    """The keys of readers and administrators; without keys everybody is an administrator.

    Attributes:
        reading: For questions and for the list of documents.
        administration: For these, for adding and removing documents, and for all about forgetting.
    """

    reading: str | None = None
    administration: str | None = None

    def role(self, shown: str | None) -> Role | None:
        """Return whose key this is; compares in constant time."""
        if self.reading is None or self.administration is None:
            return "administrator"
        reads = _equal(shown or "", self.reading)
        is_administrator = _equal(shown or "", self.administration)
        return "administrator" if is_administrator else "reader" if reads else None


def load_keys(settings: "Settings", host: str) -> Keys:
    """Read and check the keys of a server at ``host``.

    Raises:
        InputError: A key is missing, too short, or both are the same.
    """
    given = [settings.read_key, settings.admin_key]
    reading, administration = (key and key.get_secret_value() for key in given)
    if not reading and not administration and is_loopback(host):
        return Keys()
    if not reading or not administration:
        where = "" if is_loopback(host) else f"--host {host} lets other machines in: "
        raise InputError(
            f"{where}set both FULCRUM_READ_KEY (to ask) and FULCRUM_ADMIN_KEY (to add documents "
            "and to forget), such as from: openssl rand -hex 24"
        )
    if min(len(reading), len(administration)) < SHORTEST_KEY:
        raise InputError(
            f"a key of fewer than {SHORTEST_KEY} characters is soon guessed; give "
            "FULCRUM_READ_KEY and FULCRUM_ADMIN_KEY such as from: openssl rand -hex 24"
        )
    if reading == administration:
        raise InputError(
            "FULCRUM_READ_KEY and FULCRUM_ADMIN_KEY are the same, so every reader could forget "
            "facts; give two keys"
        )
    return Keys(reading, administration)


def is_loopback(host: str) -> bool:
    """Whether only its own machine can reach a server that binds to this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_administrator(request: Any) -> bool:
    """Whether a request, a Starlette or a gradio one, has the administration key."""
    scope = getattr(getattr(request, "request", request), "scope", {})
    return scope.get(ROLE) == "administrator"


@dataclass(frozen=True)
class RequestLimits:
    """The limits of one request.

    Attributes:
        body: Bytes of a request to the API.
        upload: Bytes of one with files.
        body_seconds: For a body of the first kind to arrive.
        upload_seconds: For one of the second kind.
        send_seconds: For the client to take a piece of the answer.
    """

    body: int = MEGABYTE
    upload: int = 50 * MEGABYTE
    body_seconds: float = 20.0
    upload_seconds: float = 600.0
    send_seconds: float = 60.0


@dataclass
class RequestGuard:
    """ASGI middleware that checks key, origin, size and time of each request.

    Attributes:
        app: The application.
        keys: Required on all paths but ``/health``.
        host: What the server binds to.
        limits: Of each request.
    """

    app: Application
    keys: Keys = field(default_factory=Keys)
    host: str = "127.0.0.1"
    limits: RequestLimits = field(default_factory=RequestLimits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        if refused := self._find_refusal(scope, headers):
            await _send_error(scope, receive, send, refused)
            return
        uploading = is_upload(scope["path"])
        most = self.limits.upload + FORM_BYTES if uploading else self.limits.body
        if _length(headers) > most:
            await _send_error(scope, receive, send, _too_large(most))
            return
        seconds = self.limits.upload_seconds if uploading else self.limits.body_seconds
        await self.app(scope, _LimitedBody(receive, most, seconds), self._with_timeout(send))

    def _find_refusal(self, scope: Scope, headers: dict[str, bytes]) -> HTTPException | None:
        host = headers.get("host", b"").decode("latin-1")
        named = _address(f"//{host}")
        if named and (named[1] != host or "@" in host):
            named = ()  # more than a host and a port
        if is_loopback(self.host) and (not named or named[0] not in {*LOOPBACK_NAMES, self.host}):
            # Protects from DNS rebinding: a web page whose own host name resolves to this server.
            return HTTPException(403, "this server has no such name; ask it as localhost")
        if not named:
            return HTTPException(400, "the host that the request names cannot be read")
        origin = headers.get("origin")
        foreign = origin is not None and _address(origin.decode("latin-1"))[1:] != (host,)
        if scope["method"] not in ("GET", "HEAD") and foreign:
            return HTTPException(403, "requests from pages of other servers are not answered")
        scope[ROLE] = self.keys.role(_read_key(headers.get("authorization", b"")))
        if scope[ROLE] is None and scope["path"] != OPEN_PATH:
            return HTTPException(
                401, NO_KEY, headers={"WWW-Authenticate": challenge(scope["path"])}
            )
        return None

    def _with_timeout(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            async with asyncio.timeout(self.limits.send_seconds):
                await send(message)

        return sent


class _LimitedBody:
    """Receives a request's body within a limit of size and time."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most, self._left = receive, most, most
        self._until = time.monotonic() + seconds
        self._arriving = True

    async def __call__(self) -> Message:
        if not self._arriving:
            return await self._receive()  # waits until the client leaves
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408, "the request took too long to arrive", headers={"Connection": "close"}
            ) from None
        self._left -= len(message.get("body", b""))
        self._arriving = message.get("more_body", False)
        if self._left < 0:
            raise _too_large(self._most)
        return message


def is_api(path: str) -> bool:
    """Whether a path belongs to the API, and not to the page."""
    return path in (OPEN_PATH, "/metrics", "/v1") or path.startswith("/v1/")


def is_upload(path: str) -> bool:
    """Whether files arrive at a path."""
    return path in ("/v1/documents", "/gradio_api/upload")


def challenge(path: str) -> str:
    """Return the ``WWW-Authenticate`` header: basic for the page, bearer for the API."""
    return "Bearer" if is_api(path) else 'Basic realm="Fulcrum: the key is the password"'


def _too_large(most: int) -> HTTPException:
    return HTTPException(
        413,
        f"the request is larger than {most / MEGABYTE:g} MB; send less at once",
        headers={"Connection": "close"},
    )


def _length(headers: dict[str, bytes]) -> int:
    stated = headers.get("content-length", b"0")
    return int(stated) if stated.isdigit() else 0


def _address(url: str) -> tuple[str, ...]:
    """Return a URL's host name, and its host with port as written; empty if it cannot be parsed."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "", parts.netloc) if parts.port != 0 else ()
    except ValueError:
        return ()


def _read_key(header: bytes) -> str | None:
    """The key in an Authorization header: a bearer's, or the password of the basic scheme."""
    scheme, _, rest = header.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(rest).decode().partition(":")
        except ValueError:  # no base64, or no text in it
            return None
        return password
    return None


def _equal(one: str, other: str) -> bool:
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (one, other)]
    return hmac.compare_digest(*digests)


async def _send_error(scope: Scope, receive: Receive, send: Send, why: HTTPException) -> None:
    """Answer with an error, after reading what the client still sends, up to a limit."""
    await _drain(receive)
    body = json.dumps(error_body(why.status_code, own(why.detail))).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    headers |= {name.lower(): value for name, value in (why.headers or {}).items()}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": why.status_code, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _drain(receive: Receive, most: int = 16 * MEGABYTE, seconds: float = 5.0) -> None:
    # A client that is still sending when the connection closes does not get to see the answer.
    try:
        async with asyncio.timeout(seconds):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
TYPES |= {429: "rate_limit_error"}
SERVER_ERROR = 500


def error_body(
    status: int, message: Cleared, param: Cleared | None = None, code: Cleared | None = None
) -> dict[str, Any]:
    """Return an error in the form of OpenAI's API."""
    kind = "server_error" if status >= SERVER_ERROR else TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
