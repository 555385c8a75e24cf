"""Builds the aiohttp application that serves a list of resources, their OpenAPI document and the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from web.console import add_console
from web.endpoint import endpoint
from web.problems import problem_middleware
from web.resources.documentation import Documentation
from web.route import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiohttp.typedefs import Handler, Middleware

    from sinks.ports.api.idempotency import IdempotencyDatabase
    from web.auth.api_keys import ApiKeys
    from web.route import AnyRoute, Resource


def build_application(
    resources: Iterable[Resource], keys: ApiKeys, idempotency: IdempotencyDatabase | None = None
) -> web.Application:
    """The application, to be run by an aiohttp runner.

    Raises:
        ValueError: two routes have the same method and path, or the same operation id; or a route takes an
            `Idempotency-Key`, and there is no database of these.
    """
    declared = [route for resource in resources for route in resource.routes()]
    routes = [*declared, *Documentation(declared).routes()]
    app = web.Application(middlewares=[problem_middleware, _limit_bodies(routes)], client_max_size=MAX_BODY)
    for route in routes:
        _add(app.router, route, endpoint(route, keys, idempotency))
    add_console(app.router)
    app.on_response_prepare.append(_add_security_headers)
    return app


def _add(router: web.UrlDispatcher, route: AnyRoute, handler: Handler) -> None:
    if route.method == "GET":
        router.add_get(route.path, handler, allow_head=route.allow_head)
    else:
        router.add_route(route.method, route.path, handler)


def _limit_bodies(routes: Sequence[AnyRoute]) -> Middleware:
    """Refuses a body whose Content-Length is above `MAX_BODY` and above its route's limit, before any of it is read.
    Bodies without a length, and routes with a lower limit, are checked where they are read.
    """
    limits: dict[tuple[str, str], int] = {(route.method, route.path): max(route.max_body, MAX_BODY) for route in routes}

    @web.middleware
    async def limit_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        limit = limits.get((request.method, resource.canonical), MAX_BODY) if resource else MAX_BODY
        if (request.content_length or 0) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, request.content_length or 0)
        return await handler(request)

    return limit_bodies


async def _add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """On every response: browsers take its type as declared, send no referrer, and do not store it by default."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-store")
