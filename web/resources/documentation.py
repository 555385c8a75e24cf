"""`/openapi.json`: the interface as an OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from web.auth.access import PUBLIC
from web.openapi import document
from web.parameters import Parameters
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Sequence


class Documentation:
    """The document of the given routes and of its own."""

    def __init__(self, routes: Sequence[AnyRoute]) -> None:
        self._body = orjson.dumps(document([*routes, *self.routes()]))

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/openapi.json",
                operation_id="openapi_json",
                summary="This interface, as OpenAPI 3.1",
                handler=self.openapi,
                parameters=Parameters,
                responses={200: ResponseSpec("an OpenAPI document", media_type="application/json")},
                access=PUBLIC,
            )
        ]

    async def openapi(self, _: ApiRequest[Parameters, None]) -> web.StreamResponse:
        """The document."""
        return web.Response(body=self._body, content_type="application/json")
