"""The caller of a route, and the roles that routes require."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from app.server.security import NO_KEY, ROLE, is_administrator

if TYPE_CHECKING:
    from app.server.metrics import Metrics
    from app.server.service import Service

Result = TypeVar("Result")

CLIENT_CLOSED = 499  # as nginx says that the client closed the connection; nobody reads it
# The guard checks the key before; this only adds it to the OpenAPI description.
BEARER = HTTPBearer(auto_error=False, description="The reading or the administration key.")


@dataclass(frozen=True)
class Caller:
    """A request, and what its route needs.

    Attributes:
        request: The request.
        service: The assistant.
        metrics: The server's metrics.
        client: Name of the client in the fair queue.
    """

    request: Request
    service: "Service"
    metrics: "Metrics"
    client: str

    @property
    def administers(self) -> bool:
        """Whether the request has the administration key, or the server needs none."""
        return is_administrator(self.request)

    async def while_connected(self, work: Awaitable[Result]) -> Result:
        """Await work, and cancel it if the client disconnects."""
        task = asyncio.ensure_future(work)
        disconnect = asyncio.ensure_future(self._wait_for_disconnect())
        try:
            await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise HTTPException(CLIENT_CLOSED, "the client has left")
            return await task
        finally:
            disconnect.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _wait_for_disconnect(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


def reader(
    request: Request,
    _bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)] = None,
) -> Caller:
    """Require a key for reading."""
    role = request.scope.get(ROLE)
    if role is None:
        raise HTTPException(401, NO_KEY)
    state = request.app.state
    address = request.client.host if request.client else ""
    return Caller(request, state.service, state.metrics, f"{role}@{address}")


def administrator(caller: Annotated[Caller, Depends(reader)]) -> Caller:
    """Require the key for administration."""
    if not caller.administers:
        raise HTTPException(403, "this needs the administration key, and not the reading one")
    return caller


Reader = Annotated[Caller, Depends(reader)]
Administrator = Annotated[Caller, Depends(administrator)]
