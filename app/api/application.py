"""The OpenAI-compatible API, with documents, corrections, forgetting and metrics."""

import base64
import logging
import time
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from app.api import completions, errors
from app.api import corrections as api_corrections
from app.api import documents as api_documents
from app.api import forgetting as api_forgetting
from app.api.access import Reader
from app.api.completions import ignored_header, resolve_model
from app.api.schema import EmbeddingRequest
from app.server.metrics import CONTENT_TYPE, Metrics
from app.server.security import (
    Application,
    Keys,
    Message,
    Receive,
    RequestGuard,
    RequestLimits,
    Scope,
    Send,
    is_administrator,
)
from foundation.errors import InputError

if TYPE_CHECKING:
    from app.server.service import Service

log = logging.getLogger(__name__)

NOT_ALLOWED, UNAVAILABLE = 405, 503

general = APIRouter()
embedding = CapacityLimiter(2)  # requests at once; each uses all cores


def build(
    service: "Service", keys: Keys, host: str, limits: RequestLimits | None = None
) -> RequestGuard:
    """Build the API over a service, which may still be loading.

    Args:
        service: The assistant.
        keys: The access keys.
        host: What the server binds to.
        limits: Of each request.
    """
    app = FastAPI(
        title="Fulcrum",
        description="Answers from documents and a model's memory, with a dial between the two.",
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses=errors.RESPONSES,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.metrics = counts = Metrics(service)
    errors.add_handlers(app)
    for each in (completions, api_documents, api_corrections, api_forgetting):
        app.include_router(each.router)
    app.include_router(general)
    return RequestGuard(_counted(app, counts), keys, host, limits or RequestLimits())


@general.get("/health", tags=["server"], response_class=Response)
def health(request: Request) -> Response:
    """Whether questions are answered: 200, or 503 with the reason. Needs no key."""
    state = request.app.state.service.state
    body = {"status": state.name}
    if is_administrator(request):  # the reason may name files and addresses
        body["message"] = state.message
    return JSONResponse(body, 200 if state.name == "ready" else UNAVAILABLE)


@general.get("/metrics", tags=["server"], response_class=PlainTextResponse)
def prometheus(caller: Reader) -> Response:
    """Counts and times in Prometheus's text format."""
    return Response(caller.metrics.render(), media_type=CONTENT_TYPE)


@general.get("/v1/models", tags=["models"], response_class=Response)
def list_models(caller: Reader) -> Response:
    """List the language model and the embedding model."""
    models = [_model(name) for name in _model_names(caller.service)]
    return JSONResponse({"object": "list", "data": models})


@general.get("/v1/models/{name:path}", tags=["models"], response_class=Response)
def show_model(name: str, caller: Reader) -> Response:
    """Show one of them."""
    return JSONResponse(_model(resolve_model(name, _model_names(caller.service))))


@general.post("/v1/embeddings", tags=["models"], response_class=Response)
async def embeddings(request: EmbeddingRequest, caller: Reader) -> Response:
    """Embed texts as vectors of length 1; this does not wait for answers."""
    service = caller.service
    named = await to_thread.run_sync(lambda: service.embedding_name)  # may ask its server
    name = resolve_model(request.model, [named])
    texts = request.texts
    used = sum(map(service.tokens, texts))
    vectors = await to_thread.run_sync(service.embed, texts, limiter=embedding)
    if request.dimensions not in (None, vectors.shape[1]):
        raise InputError(f"dimensions is {request.dimensions}; the model has {vectors.shape[1]}")
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, request)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": used, "total_tokens": used}
    body = {"object": "list", "data": data, "model": name, "usage": usage}
    return JSONResponse(body, headers=ignored_header(request, service))


def _model_names(service: "Service") -> list[str]:
    return [service.model_name, service.embedding_name]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fulcrum"}


def _encoded(vector: Any, request: EmbeddingRequest) -> Any:
    if request.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


def _counted(app: FastAPI, counts: Metrics) -> Application:
    """Count each request of an application by its route, never by what was sent."""

    async def count_request(scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, sent)
        except Exception as error:  # was answered; the server would log its text
            log.debug("%s", type(error).__name__)
        finally:
            if scope["type"] == "http":
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if status != NOT_ALLOWED else "other"
                counts.requests.labels(method, route, status).inc()
                counts.seconds.labels(route).observe(time.perf_counter() - started)

    return count_request
