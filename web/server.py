"""Builds the aiohttp application that serves a list of resources, their OpenAPI document and the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from multidict import CIMultiDict

from web.console import add_console
from web.endpoint import Gate, endpoint
from web.limits.rate_limits import add_quota_headers
from web.middleware import cross_origin
from web.middleware.request_ids import HEADER
from web.middleware.request_state import REQUEST_ID
from web.middleware.surroundings import surroundings
from web.resources.documentation import Documentation
from web.route import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from aiohttp.typedefs import Handler

    from web.limits.usage import UsageCounter
    from web.route import AnyRoute, Resource

_SECURITY: Final = CIMultiDict(
    {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
)


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
    check = _long_body_check(routes)
    around = surroundings(options.access_log, check, _unmatched(options, check, _refusal(routes)))
    app = web.Application(middlewares=[around], client_max_size=MAX_BODY)
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


def _long_body_check(routes: Sequence[AnyRoute]) -> Callable[[web.Request], None]:
    """Refuses a body whose Content-Length is above `MAX_BODY` and above its route's limit, before any of it is read.
    Bodies without a length, and routes with a lower limit, are checked where they are read.
    """
    limits: dict[tuple[str, str], int] = {(route.method, route.path): max(route.max_body, MAX_BODY) for route in routes}

    def check(request: web.Request) -> None:
        length = request.content_length or 0
        if length <= MAX_BODY:
            return
        resource = request.match_info.route.resource
        limit = limits.get((request.method, resource.canonical), MAX_BODY) if resource else MAX_BODY
        if length > limit:
            raise web.HTTPRequestEntityTooLarge(limit, length)

    return check


def _refusal(routes: Sequence[AnyRoute]) -> Callable[[web.Request], web.HTTPException | None]:
    """Why a request has no route. Of a path that is declared as it stands, `Allow` names its own methods: aiohttp adds
    those of the paths with a parameter in its place (`/a/new` beside `/a/{id}`).
    """
    declared: dict[str, set[str]] = {}
    for route in routes:
        if "{" not in route.path:
            methods = declared.setdefault(route.path, set())
            methods |= {route.method} | ({"HEAD"} if route.method == "GET" and route.allow_head else set())

    def refusal(request: web.Request) -> web.HTTPException | None:
        refused = request.match_info.http_exception
        if isinstance(refused, web.HTTPMethodNotAllowed) and (methods := declared.get(request.path)):
            return web.HTTPMethodNotAllowed(request.method, methods)
        return refused

    return refusal


def _unmatched(
    options: ServerOptions,
    check: Callable[[web.Request], None],
    refusal: Callable[[web.Request], web.HTTPException | None],
) -> Callable[[Handler], Handler]:
    """Answers OPTIONS, leads to an address without its last slash, and leaves the rest to the handler that refuses."""
    without_slash = web.normalize_path_middleware(
        append_slash=False, remove_slash=True, merge_slashes=False, redirect_class=web.HTTPPermanentRedirect
    )

    def unmatched(refuse: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            check(request)
            if (refused := refusal(request)) is not None:
                raise refused
            return await refuse(request)

        async def answer(request: web.Request) -> web.StreamResponse:
            allowed = cross_origin.options(request, refusal(request), options.origins)
            return await without_slash(request, checked) if allowed is None else allowed

        return answer

    return unmatched


def _finish(
    options: ServerOptions, usage: UsageCounter | None
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """What every response gets, of whatever kind it is, when its status is known and its headers are not sent yet."""

    async def finish(request: web.Request, response: web.StreamResponse) -> None:
        _add_security_headers(response)
        add_quota_headers(request, response)
        cross_origin.add_origin_headers(request, response, options.origins)
        if id := request.get(REQUEST_ID):
            response.headers[HEADER] = id
        if usage is not None:
            usage.count(request, response.status)

    return finish


def _add_security_headers(response: web.StreamResponse) -> None:
    """Browsers take a response's type as declared, send no referrer, run nothing in it, show it in no frame, and do not
    store it by default.
    """
    response.headers.update(_SECURITY)
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    response.headers.setdefault("Cache-Control", "no-store")
