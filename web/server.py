"""Builds the aiohttp application that serves a list of resources, their OpenAPI document and the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from web.console import add_console
from web.endpoint import Gate, endpoint
from web.limits.rate_limits import add_quota_headers
from web.middleware import cross_origin
from web.middleware.compression import compress
from web.middleware.request_ids import HEADER, request_ids
from web.middleware.request_state import REQUEST_ID
from web.problems import problem_middleware
from web.resources.documentation import Documentation
from web.route import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from aiohttp.typedefs import Handler, Middleware

    from web.limits.usage import UsageCounter
    from web.route import AnyRoute, Resource


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What an operator chooses about the service as a whole."""

    #: Origins whose pages may read answers, or `*`.
    origins: frozenset[str] = frozenset()
    #: Gets an entry for each request.
    access_log: Callable[[dict[str, object]], None] | None = None


def build_application(
    resources: Iterable[Resource],
    gate: Gate,
    options: ServerOptions = ServerOptions(),
    usage: UsageCounter | None = None,
    *,
    console: bool = True,
) -> web.Application:
    """The application, to be run by an aiohttp runner; with the console, or the resources alone.

    Raises:
        ValueError: two routes have the same method and path, or the same operation id; or a route takes an
            `Idempotency-Key`, and there is no database of these.
    """
    declared = [route for resource in resources for route in resource.routes()]
    routes = [*declared, *Documentation(declared).routes()]
    middlewares = [
        request_ids(options.access_log),
        compress,
        problem_middleware,
        cross_origin.options(options.origins),
        web.normalize_path_middleware(
            append_slash=False, remove_slash=True, merge_slashes=False, redirect_class=web.HTTPPermanentRedirect
        ),
        _limit_bodies(routes),
    ]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY)
    for route in routes:
        _add(app.router, route, endpoint(route, gate))
    if console:
        add_console(app.router)
    app.on_response_prepare.append(_finish(options, usage))
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


def _finish(
    options: ServerOptions, usage: UsageCounter | None
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """What every response gets, of whatever kind it is, when its status is known and its headers are not sent yet."""

    async def finish(request: web.Request, response: web.StreamResponse) -> None:
        _add_security_headers(response)
        add_quota_headers(request, response)
        cross_origin.add_origin_headers(request, response, options.origins)
        if REQUEST_ID in request:
            response.headers[HEADER] = request[REQUEST_ID]
        if usage is not None:
            usage.count(request, response.status)

    return finish


def _add_security_headers(response: web.StreamResponse) -> None:
    """Browsers take a response's type as declared, send no referrer, run nothing in it, show it in no frame, and do not
    store it by default.
    """
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    response.headers.setdefault("Cache-Control", "no-store")
