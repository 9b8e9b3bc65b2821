"""A web server with a deadline for request headers and a graceful shutdown."""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from h11 import IDLE
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.errors import describe_error
from app.server.security import error_body
from foundation.errors import ClosingError

if TYPE_CHECKING:
    from app.server.security import Application, Message, Receive, Scope, Send
    from app.server.site import Site

HEADER_SECONDS = 20.0  # for the head of a request to arrive
GRACE_SECONDS = 20  # from the signal to stop until every connection is closed
ANSWER_SECONDS = 17.0  # of these, until running answers are stopped with an error
QUIET_SECONDS = 0.5  # without a running answer, after which open pages are disconnected
POLL_SECONDS = 0.1
MOST_CONNECTIONS = 500

log = logging.getLogger(__name__)


def server(site: "Site", header_seconds: float = HEADER_SECONDS) -> uvicorn.Server:
    """Create a server.

    Args:
        site: The application.
        header_seconds: For the head of a request to arrive.
    """
    config = uvicorn.Config(
        contain_errors(site),
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


def contain_errors(app: "Site") -> "Application":
    """Wrap an application: its exceptions become one line in the log and an error in JSON.

    A traceback may repeat a question, and names files.
    """

    async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
        begun = False

        async def send_message(message: "Message") -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, send_message)
        except ClientDisconnect:  # before all that it was sending had come
            return
        except (asyncio.CancelledError, Exception) as error:
            if scope["type"] != "http":
                raise
            cancelled = isinstance(error, asyncio.CancelledError)  # the time to stop is up
            status, message = describe_error(ClosingError() if cancelled else error, app.error_line)
            if begun:
                log.warning("an answer under way was cut off: %s", message)
            else:
                response = JSONResponse(error_body(status, message), status)
                await response(scope, receive, send)

    return application


class _HeaderDeadline(H11Protocol):
    """Closes a connection whose request headers do not arrive in time."""

    header_seconds: float
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._update_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._update_deadline(over=True)
        super().connection_lost(exc)

    def _update_deadline(self, over: bool = False) -> None:
        if over or self.conn.their_state is not IDLE:
            if self._late is not None:
                self._late.cancel()
            self._late = None
        elif self._late is None:
            self._late = self.loop.call_later(self.header_seconds, self.transport.abort)


class _GracefulServer(uvicorn.Server):
    """On shutdown, waits for answers, but not for pages, which stay connected while open."""

    def __init__(self, config: uvicorn.Config, site: "Site") -> None:
        super().__init__(config)
        self._site = site

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._site.close()
        leaving = asyncio.create_task(self._close_idle_connections())
        ending = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._site.abandon)
        await super().shutdown(sockets)
        ending.cancel()
        leaving.cancel()

    async def _close_idle_connections(self) -> None:
        quiet = 0.0
        while quiet < QUIET_SECONDS:
            await asyncio.sleep(POLL_SECONDS)
            quiet = quiet + POLL_SECONDS if self._site.idle else 0.0
        for connection in list(self.server_state.connections):
            connection.transport.close()
