"""Page and API in one ASGI application, and a server of it in a thread."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from app.server.sockets import bind_socket, url
from foundation.errors import ModelError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.page.tools import PageTools
    from app.server.security import Application, Receive, Scope, Send
    from app.server.service import Service
    from app.settings import Settings
    from control.forgetting.clearing import Cleared
    from foundation.errors import FulcrumError


@contextmanager
def run_server(
    settings: "Settings", page: bool = False, tools: "PageTools | None" = None
) -> Iterator[str]:
    """Run a loaded server in a thread of its own; yield its address.

    Raises:
        ModelError: The model does not load.
    """
    from app.server.http import server
    from app.server.service import Service

    service = Service(settings)
    service.load()
    if service.state.name == "failed":
        raise ModelError(service.state.message)
    listening, site = bind_socket("127.0.0.1", 0), Site(service, page, tools)
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

    def __init__(
        self, service: "Service", page: bool = True, tools: "PageTools | None" = None
    ) -> None:
        """Build page and API over a service.

        Args:
            service: The assistant behind both.
            page: Whether there is a page.
            tools: What the page measures with.

        Raises:
            InputError: The keys are missing or too weak.
        """
        from fastapi import FastAPI

        from app.api import application
        from app.server import security

        settings = service.settings
        keys = security.load_keys(settings, settings.host)
        limits = security.RequestLimits(
            settings.body_limit * security.MEGABYTE, settings.upload_limit * security.MEGABYTE
        )
        self._service, self._is_api, self._active = service, security.is_api, 0
        self._api = application.build(service, keys, settings.host, limits)
        outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=self._lifespan)
        self._resources = ExitStack()  # closed with the server
        inner = self._resources.enter_context(_page(outer, service, tools)) if page else outer
        self._page = security.RequestGuard(inner, keys, settings.host, limits)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request to the API or the page."""
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
        """Whether no answer is running."""
        return not self._active and self._service.idle

    def close(self) -> None:
        """Take no more questions and refuse the queued ones."""
        self._service.close()

    def abandon(self) -> None:
        """Stop the running answers with an error."""
        self._service.abandon()

    def error_line(self, error: "FulcrumError") -> "Cleared":
        """What an error says, cleared of forgotten facts."""
        return self._service.error_line(error)

    @asynccontextmanager
    async def _lifespan(self, _: "FastAPI") -> AsyncIterator[None]:
        yield
        self._service.end()
        self._resources.close()


def _page(
    app: "FastAPI", service: "Service", tools: "PageTools | None"
) -> "AbstractContextManager[Application]":
    from app.page import blocks

    return blocks.mount_page(app, service, tools or blocks.NO_TOOLS)
