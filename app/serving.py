"""The command that opens page and API: `fulcrum serve`."""

import asyncio
import errno
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from app import settings as settings_module
from app.console import example, out
from foundation.errors import InputError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from app.guarding import Application, Receive, Scope, Send
    from app.service import Service
    from app.settings import Settings

HEADER_SECONDS = 20.0  # for the head of a request to arrive
GRACE_SECONDS = 20  # for answers under way, once the server is told to stop
MOST_CONNECTIONS = 500
BACKLOG = 128
EXTRA = "pip install 'fulcrum[serve]'"


@click.command(epilog=example("fulcrum serve", "fulcrum serve --port 8080"))
@click.option(
    "--host",
    help="Address to bind to; one that other machines reach needs keys.  [default: 127.0.0.1]",
)
@click.option("--port", type=click.IntRange(0, 65535), help="0 = a free one.  [default: 7860]")
@click.pass_obj
def serve(given: dict[str, Any], host: str | None, port: int | None) -> None:
    """Open the page at / and the API at /v1.

    The API is OpenAI's: /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, and
    beside them /v1/documents, /v1/forget, /health and /metrics.
    """
    settings = settings_module.load(**given, host=host, port=port)
    _installed()
    listening = bound(settings.host, settings.port)
    try:
        run(settings, listening)
    finally:
        listening.close()


def run(settings: "Settings", listening: socket.socket) -> None:
    """Serve at a bound socket until a signal comes."""
    from app.service import Service

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    service = Service(settings)
    app = application(service)
    address = url(settings.host, listening)
    out.print(
        f"Fulcrum: page at {address}/, API at {address}/v1; stop it by Ctrl+C", highlight=False
    )
    threading.Thread(target=service.load, name="fulcrum-load", daemon=True).start()
    try:
        server(app).run(sockets=[listening])
    except KeyboardInterrupt:  # how the server passes Ctrl+C on, once it has stopped
        out.print("Fulcrum: stopped")


def application(service: "Service", page: bool = True) -> "Application":
    """Page and API in one ASGI application.

    Args:
        service: The assistant behind both.
        page: Whether there is a page.

    Raises:
        InputError: The keys are missing or useless.
    """
    from fastapi import FastAPI

    from app import api, guarding
    from app.guarding import Guard, Limits

    settings = service.settings
    keys = guarding.keys(settings, settings.host)
    megabyte = guarding.MEGABYTE
    limits = Limits(settings.body_limit * megabyte, settings.upload_limit * megabyte)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    inner = api.build(service, keys, settings.host, limits)
    outer = FastAPI(openapi_url=None, lifespan=lifespan)
    if page:
        _mount_page(outer, service)
    guarded = Guard(outer, keys, settings.host, limits)

    async def split(scope: "Scope", receive: "Receive", send: "Send") -> None:
        to_api = scope["type"] == "http" and guarding.is_api(scope["path"])
        await (inner if to_api else guarded)(scope, receive, send)

    return split


def server(app: "Application") -> "uvicorn.Server":
    """A server that cuts off who sends too slowly, and ends in order."""
    import uvicorn
    from h11 import IDLE
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Prompt(H11Protocol):
        """Closes a connection on which the head of a request does not arrive in time."""

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
                self._late = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    config = uvicorn.Config(
        app,
        http=Prompt,
        ws="none",
        log_config=None,  # by the handlers of the command line, which know what is forgotten
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to host and port.

    Raises:
        InputError: The port is taken, or there is no such address here.
    """
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host}: no such address ({error.strerror})") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} of {host} is taken by another program; "
                "give another one by --port, or --port 0 for a free one"
            ) from error
        raise InputError(f"--host {host} --port {port}: {error.strerror}; give others") from error
    return listening


def url(host: str, listening: socket.socket) -> str:
    """The address of a server, for a browser on its own machine."""
    port = listening.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name and '[' not in name else name}:{port}"


def _mount_page(app: "FastAPI", service: "Service") -> None:
    from app import page

    page.mount(app, service)


def _installed() -> None:
    try:
        import fastapi  # noqa: F401
        import gradio  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"serve needs {error.name}; run: {EXTRA}") from error
