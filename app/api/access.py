"""What a route of the API works with, and who may call it."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from app.server.security import ROLE

if TYPE_CHECKING:
    from app.server.metrics import Metrics
    from app.server.service import Service

Result = TypeVar("Result")

GONE = 499  # as nginx says that the client closed the connection; nobody reads it
# Checked by the guard before a request comes here; it stands here to be described.
DESCRIBED = HTTPBearer(auto_error=False, description="The reading or the administration key.")


@dataclass(frozen=True)
class Caller:
    """A request's way to the service.

    Attributes:
        request: The request.
        service: The assistant.
        metrics: What is counted.
        client: Who asks, to whom turns are given.
    """

    request: Request
    service: "Service"
    metrics: "Metrics"
    client: str

    async def while_here(self, work: Awaitable[Result]) -> Result:
        """Wait for work as long as the client is connected; it is cancelled when it leaves."""
        doing = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise HTTPException(GONE, "the client has left")
            return await doing
        finally:
            leaving.cancel()
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing})

    async def _left(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


def reader(
    request: Request,
    _described: Annotated[HTTPAuthorizationCredentials | None, Depends(DESCRIBED)] = None,
) -> Caller:
    """Whoever may ask."""
    role = request.scope.get(ROLE)
    if role is None:
        raise HTTPException(401, "no key, or a wrong one; send it as: Authorization: Bearer KEY")
    state = request.app.state
    address = request.client.host if request.client else ""
    return Caller(request, state.service, state.metrics, f"{role}@{address}")


def administrator(caller: Annotated[Caller, Depends(reader)]) -> Caller:
    """Whoever may add documents and forget."""
    if caller.request.scope.get(ROLE) != "administrator":
        raise HTTPException(403, "this needs the administration key, and not the reading one")
    return caller


Reader = Annotated[Caller, Depends(reader)]
Administrator = Annotated[Caller, Depends(administrator)]
