"""A web server that cuts off who sends too slowly, and ends in order."""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from h11 import IDLE
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.errors import told
from app.server.security import error_body
from foundation.errors import ClosingError

if TYPE_CHECKING:
    from app.server.security import Application, Message, Receive, Scope, Send

HEADER_SECONDS = 20.0  # for the head of a request to arrive
GRACE_SECONDS = 20  # after which every connection is closed, once the server is told to stop
ANSWER_SECONDS = 17.0  # of these for answers under way; what is left by then ends in an error
QUIET_SECONDS = 0.5  # without an answer under way, after which open pages are left
BEAT = 0.1
MOST_CONNECTIONS = 500

log = logging.getLogger(__name__)


class Served(Protocol):
    """An ASGI application whose answers take a while."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered."""

    def close(self) -> None:
        """Take no more questions and refuse those that wait."""

    def abandon(self) -> None:
        """End the answers under way in an error."""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request."""


def server(site: Served, header_seconds: float = HEADER_SECONDS) -> uvicorn.Server:
    """Make a server.

    Args:
        site: What it serves.
        header_seconds: For the head of a request to arrive.
    """
    config = uvicorn.Config(
        guarded(site),
        http=type("Prompt", (_HeaderDeadline,), {"header_seconds": header_seconds}),
        ws="none",
        log_config=None,  # by the handlers of the command line, which know what is forgotten
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return _GracefulServer(config, site)


def guarded(app: "Application") -> "Application":
    """The application, whose failures become one line in the log and an error in JSON.

    A traceback may repeat what was asked, and names files.
    """

    async def answered(scope: "Scope", receive: "Receive", send: "Send") -> None:
        begun = False

        async def sent(message: "Message") -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, sent)
        except ClientDisconnect:  # before all that it was sending had come
            return
        except (asyncio.CancelledError, Exception) as error:
            if scope["type"] != "http":
                raise
            cancelled = isinstance(error, asyncio.CancelledError)  # the time to stop is up
            status, message = told(ClosingError() if cancelled else error)
            if begun:
                log.warning("an answer under way was cut off: %s", message)
            else:
                response = JSONResponse(error_body(status, message), status)
                await response(scope, receive, send)

    return answered


class _HeaderDeadline(H11Protocol):
    """Closes a connection on which the head of a request does not arrive in time."""

    header_seconds: float
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch(over=True)
        super().connection_lost(exc)

    def _watch(self, over: bool = False) -> None:
        if over or self.conn.their_state is not IDLE:
            if self._late is not None:
                self._late.cancel()
            self._late = None
        elif self._late is None:
            self._late = self.loop.call_later(self.header_seconds, self.transport.abort)


class _GracefulServer(uvicorn.Server):
    """Told to stop, waits for answers, but not for pages, which stay connected while open."""

    def __init__(self, config: uvicorn.Config, site: Served) -> None:
        super().__init__(config)
        self._site = site

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._site.close()
        leaving = asyncio.create_task(self._let_go())
        ending = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._site.abandon)
        await super().shutdown(sockets)
        ending.cancel()
        leaving.cancel()

    async def _let_go(self) -> None:
        quiet = 0.0
        while quiet < QUIET_SECONDS:
            await asyncio.sleep(BEAT)
            quiet = quiet + BEAT if self._site.idle else 0.0
        for connection in list(self.server_state.connections):
            connection.transport.close()
