"""`/healthz` and `/readyz`: the probes of Kubernetes and load balancers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from schemas.events.base import Data
from sinks.coalesce import Coalesce
from web.auth.access import PUBLIC
from web.parameters import Parameters
from web.ports import Health
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

#: Seconds after which a probe is answered although the check has not finished.
PROBE_S: Final = 3.0


class HealthView(Data):
    """Whether the worker is alive and ready, and the state of each of its parts."""

    alive: bool
    ready: bool
    details: dict[str, str]


_EXAMPLE: Final = {"alive": True, "ready": True, "details": {"database": "ok", "kafka": "ok"}}

Request = ApiRequest[Parameters, None]


class HealthProbes:
    """The probes, which need no API key."""

    def __init__(self, health: Callable[[], Awaitable[Health]]) -> None:
        async def check(_: Sequence[None]) -> list[Health]:
            return [await health()]

        # Anybody may send probes, and a check queries PostgreSQL over the stages' connections: probes of the same
        # moment share one.
        self._health: Coalesce[None, Health] = Coalesce(check)

    def routes(self) -> list[AnyRoute]:
        """Liveness and readiness."""
        responses = {
            200: ResponseSpec("it is", HealthView, _EXAMPLE),
            503: ResponseSpec("it is not", HealthView, _EXAMPLE | {"ready": False}),
        }
        return [
            Route(
                method="GET",
                path="/healthz",
                operation_id="healthz",
                summary="Whether this worker is alive",
                handler=self.alive,
                parameters=Parameters,
                responses=responses,
                access=PUBLIC,
            ),
            Route(
                method="GET",
                path="/readyz",
                operation_id="readyz",
                summary="Whether this worker takes requests",
                handler=self.ready,
                parameters=Parameters,
                responses=responses,
                access=PUBLIC,
            ),
        ]

    async def alive(self, _: Request) -> web.StreamResponse:
        """The liveness probe."""
        health = await self._check()
        return _response(health, is_well=health.alive)

    async def ready(self, _: Request) -> web.StreamResponse:
        """The readiness probe."""
        health = await self._check()
        return _response(health, is_well=health.ready)

    async def _check(self) -> Health:
        """A check that hangs does not fail the liveness probe: the event loop answers, a restart would not help."""
        try:
            async with asyncio.timeout(PROBE_S):
                return await self._health(None)
        except TimeoutError:
            details = {"health": f"the check did not finish within {PROBE_S:.0f} s"}
            return Health(alive=True, ready=False, details=details)


def _response(health: Health, *, is_well: bool) -> web.Response:
    view = HealthView(alive=health.alive, ready=health.ready, details=health.details)
    return web.json_response(text=view.model_dump_json(), status=200 if is_well else 503)
