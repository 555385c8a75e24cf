"""`/metrics`: what Prometheus collects from a worker."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from aiohttp import web

from web.auth.access import OPERATOR_ONCE_THERE_ARE_KEYS
from web.parameters import Parameters
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from web.auth.access import Access


class Metrics:
    """The worker's metrics, which need an operator's key once there are keys, unless they have a port of their own."""

    def __init__(
        self, collect: Callable[[], bytes | Awaitable[bytes]], access: Access = OPERATOR_ONCE_THERE_ARE_KEYS
    ) -> None:
        self._collect, self._access = collect, access

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/metrics",
                operation_id="metrics",
                summary="The worker's metrics, for Prometheus",
                handler=self.metrics,
                parameters=Parameters,
                responses={200: ResponseSpec("Prometheus' text format", media_type="text/plain")},
                access=self._access,
            )
        ]

    async def metrics(self, _: ApiRequest[Parameters, None]) -> web.StreamResponse:
        """Prometheus' text format."""
        text = self._collect()
        body = await text if inspect.isawaitable(text) else text
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
