"""`/tenants`: the tenants whose jobs a caller may see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.events.base import Data
from schemas.ids import EVERY_TENANT
from web.parameters import Parameters
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from sinks.ports.reads import Reads


class Tenants(Data):
    """The tenants whose jobs the caller may see."""

    tenants: list[str]
    operator: bool


class TenantList:
    """The list of tenants."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/tenants",
                operation_id="tenants",
                summary="The tenants whose jobs you may see",
                handler=self.tenants,
                parameters=Parameters,
                responses={
                    200: ResponseSpec("in order of name", Tenants, {"tenants": ["acme"], "operator": False}),
                },
            )
        ]

    async def tenants(self, request: ApiRequest[Parameters, None]) -> Tenants:
        """The caller's own tenant; for an operator, all that have jobs."""
        caller = request.caller
        names = await self._reads.tenants() if caller.whose is EVERY_TENANT else [caller.whose]
        return Tenants(tenants=names, operator=caller.is_operator)
