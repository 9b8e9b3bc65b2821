"""A web server that cuts off who sends too slowly, and ends in order."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn
from h11 import IDLE
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from app.guarding import Application, Receive, Scope, Send

HEADER_SECONDS = 20.0  # for the head of a request to arrive
GRACE_SECONDS = 20  # for answers under way, once the server is told to stop
QUIET_SECONDS = 0.5  # without an answer under way, after which open pages are left
BEAT = 0.1
MOST_CONNECTIONS = 500


def server(
    app: "Application", idle: Callable[[], bool], header_seconds: float = HEADER_SECONDS
) -> uvicorn.Server:
    """Make a server.

    Args:
        app: What it serves.
        idle: Says whether nothing is being answered.
        header_seconds: For the head of a request to arrive.
    """

    async def until_cancelled(scope: "Scope", receive: "Receive", send: "Send") -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:  # its time was up when the server was told to stop
            logging.getLogger(__name__).warning("an answer under way was cut off")

    config = uvicorn.Config(
        until_cancelled,
        http=type("Prompt", (_Prompt,), {"header_seconds": header_seconds}),
        ws="none",
        log_config=None,  # by the handlers of the command line, which know what is forgotten
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return _Orderly(config, idle)


class _Prompt(H11Protocol):
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


class _Orderly(uvicorn.Server):
    """Told to stop, waits for answers, but not for pages, which stay connected while open."""

    def __init__(self, config: uvicorn.Config, idle: Callable[[], bool]) -> None:
        super().__init__(config)
        self._idle = idle

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        leaving = asyncio.create_task(self._let_go())
        await super().shutdown(sockets)
        leaving.cancel()

    async def _let_go(self) -> None:
        quiet = 0.0
        while quiet < QUIET_SECONDS:
            await asyncio.sleep(BEAT)
            quiet = quiet + BEAT if self._idle() else 0.0
        for connection in list(self.server_state.connections):
            connection.transport.close()
