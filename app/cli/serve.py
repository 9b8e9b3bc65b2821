"""`fulcrum serve`: the page and the API."""

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from app import factory
from app import settings as settings_module
from app.cli.console import err, example, install_hint, out, plain, require_packages
from app.server.environment import wipe_environment
from app.server.sockets import bind_socket, url
from foundation import cores
from foundation.errors import InputError
from foundation.files import OTHERS, remove_abandoned
from foundation.threads import BackgroundThread

if TYPE_CHECKING:
    import uvicorn

    from app.server.service import Service
    from app.settings import Settings

RETRY_SECONDS = 10.0  # between two tries to reach a model's server
POLL_SECONDS = 0.2  # between two looks whether the server stops
PACKAGES = ("fastapi", "gradio", "prometheus_client", "uvicorn")  # of the extra "serve"


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
    factory.check(settings, local=settings.replicas > 1)
    wipe_environment()
    require_packages("serve needs", "serve", *PACKAGES)
    if settings.replicas > 1:
        try:
            import ray.serve  # noqa: F401
        except ImportError as error:  # ray itself, or what its extra "serve" brings
            raise InputError(f"replicas need {error.name}; {install_hint('replicas')}") from error
    listening = bind_socket(settings.host, settings.port)
    if settings.threads is not None or settings.replicas == 1:  # Ray shares the cores out itself
        cores.limit(settings.threads, alone=True)
    try:
        run(settings, listening)
    finally:
        listening.close()


def run(settings: "Settings", listening: socket.socket) -> None:
    """Serve at a bound socket until a signal comes."""
    from app.page_tools import TOOLS
    from app.server.http import server
    from app.server.site import Site

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    os.umask(OTHERS)  # also for what libraries write
    remove_abandoned()
    service = _service(settings)
    running = server(Site(service, tools=TOOLS))
    address = url(settings.host, listening)
    out.print(
        f"Fulcrum: page at {address}/, API at {address}/v1; stop it by Ctrl+C",
        highlight=False,
        soft_wrap=True,
    )
    BackgroundThread(lambda: load(service, running), "fulcrum-load")
    with suppress(KeyboardInterrupt):  # as the server mostly passes Ctrl+C on, once it has stopped
        running.run(sockets=[listening])
    out.print("Fulcrum: stopped")


def load(service: "Service", running: "uvicorn.Server") -> None:
    """Load what answers, and say whether it does, unless the server stops meanwhile.

    While a model's server is away, that is said once, and it is tried again.
    """
    service.load()
    if service.state.passing and not running.should_exit:
        message = plain(service.state.message)
        again = f"Fulcrum: not ready, tried again every {RETRY_SECONDS:g} seconds: {message}"
        err.print(again, markup=False, soft_wrap=True)
    while service.state.passing and not running.should_exit:
        _wait(running, RETRY_SECONDS)
        service.load()
    if running.should_exit:
        return
    if service.state.name == "ready":
        out.print("Fulcrum: ready")
        for notice in service.model_notices:
            err.print(f"Fulcrum: {plain(notice)}", markup=False, soft_wrap=True)
    else:
        message = plain(service.state.message)
        err.print(f"Fulcrum: not ready: {message}", markup=False, soft_wrap=True)


def _wait(running: "uvicorn.Server", seconds: float) -> None:
    """Wait so long, or until the server stops."""
    end = time.monotonic() + seconds
    while not running.should_exit and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def _service(settings: "Settings") -> "Service":
    from app.server.service import Service

    if settings.replicas == 1:
        return Service(settings)
    from app.server.replicas import ReplicatedService

    return ReplicatedService(settings)
