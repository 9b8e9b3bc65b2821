"""The command that opens page and API: `fulcrum serve`."""

import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import click

from app import settings as settings_module
from app.console import example, out
from app.listening import bound, url
from app.secrets import wipe_environment
from foundation.errors import InputError, ModelError
from foundation.threads import BackgroundThread

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.guarding import Application, Receive, Scope, Send
    from app.service import Service
    from app.settings import Settings

EXTRA = "pip install 'fulcrum[serve]'"
MORE = "pip install 'fulcrum[replicas]'"


@click.command(epilog=example("fulcrum serve", "fulcrum serve --port 8080"))
@click.option(
    "--host",
    help="Address to bind to; one that other machines reach needs keys.  [default: 127.0.0.1]",
)
@click.option("--port", type=click.IntRange(0, 65535), help="0 = a free one.  [default: 7860]")
@click.option(
    "--replicas",
    type=click.IntRange(1, 1_000),
    help="Copies of the assistant, by Ray Serve: on this machine, or on the cluster at RAY_ADDRESS."
    "  [default: 1]",
)
@click.pass_obj
def serve(given: dict[str, Any], host: str | None, port: int | None, replicas: int | None) -> None:
    """Open the page at / and the API at /v1.

    The API is OpenAI's: /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, and
    beside them /v1/documents, /v1/forget, /health and /metrics.
    """
    settings = settings_module.load(**given, host=host, port=port, replicas=replicas)
    wipe_environment()
    _installed(settings.replicas)
    listening = bound(settings.host, settings.port)
    try:
        run(settings, listening)
    finally:
        listening.close()


def run(settings: "Settings", listening: socket.socket) -> None:
    """Serve at a bound socket until a signal comes."""
    from app.server import server

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    service = _service(settings)
    site = Site(service)
    address = url(settings.host, listening)
    out.print(
        f"Fulcrum: page at {address}/, API at {address}/v1; stop it by Ctrl+C",
        highlight=False,
        soft_wrap=True,
    )
    BackgroundThread(service.load, "fulcrum-load")
    try:
        server(site).run(sockets=[listening])
    except KeyboardInterrupt:  # how the server passes Ctrl+C on, once it has stopped
        out.print("Fulcrum: stopped")


@contextmanager
def apart(settings: "Settings", page: bool = False) -> Iterator[str]:
    """A server over these settings in a thread of its own, loaded; its address.

    Raises:
        ModelError: The model does not load.
    """
    from app.server import server
    from app.service import Service

    service = Service(settings)
    service.load()
    if service.state.name == "failed":
        raise ModelError(service.state.message)
    listening, site = bound("127.0.0.1", 0), Site(service, page)
    running = server(site)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield url("127.0.0.1", listening)
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


class Site:
    """Page and API in one ASGI application."""

    def __init__(self, service: "Service", page: bool = True) -> None:
        """Put them over a service.

        Args:
            service: The assistant behind both.
            page: Whether there is a page.

        Raises:
            InputError: The keys are missing or useless.
        """
        from fastapi import FastAPI

        from app import api, guarding

        settings = service.settings
        keys = guarding.keys(settings, settings.host)
        limits = guarding.Limits(
            settings.body_limit * guarding.MEGABYTE, settings.upload_limit * guarding.MEGABYTE
        )
        self._service, self._is_api, self._active = service, guarding.is_api, 0
        self._api = api.build(service, keys, settings.host, limits)
        outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=self._lifespan)
        self._held = ExitStack()  # what goes with the server
        inner = self._held.enter_context(_page(outer, service)) if page else outer
        self._page = guarding.Guard(inner, keys, settings.host, limits)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request by the one that it is for."""
        if scope["type"] != "http" or not self._is_api(scope["path"]):
            await self._page(scope, receive, send)
            return
        self._active += 1
        try:
            await self._api(scope, receive, send)
        finally:
            self._active -= 1

    @property
    def idle(self) -> bool:
        """Whether nothing is being answered."""
        return not self._active and self._service.idle

    def close(self) -> None:
        """Take no more questions and refuse those that wait."""
        self._service.close()

    def abandon(self) -> None:
        """End the answers under way in an error."""
        self._service.abandon()

    @asynccontextmanager
    async def _lifespan(self, _: "FastAPI") -> AsyncIterator[None]:
        yield
        self._service.end()
        self._held.close()


def _page(app: "FastAPI", service: "Service") -> "AbstractContextManager[Application]":
    from app import page

    return page.mounted(app, service)


def _service(settings: "Settings") -> "Service":
    from app.service import Service

    if settings.replicas == 1:
        return Service(settings)
    from app.replicas import ReplicatedService

    return ReplicatedService(settings)


def _installed(replicas: int) -> None:
    try:
        import fastapi  # noqa: F401
        import gradio  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"serve needs {error.name}; run: {EXTRA}") from error
    if replicas > 1:
        try:
            import ray.serve  # noqa: F401
        except ImportError as error:
            raise InputError(f"replicas need {error.name}; run: {MORE}") from error
