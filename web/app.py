"""The HTTP service: which requests are answered, by what. Everything it needs is handed to `make_app`."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from schemas.errors import Unavailable
from schemas.words import Reconciliation
from sinks.coalesce import Coalesce
from web import views
from web.connections import Bounds
from web.openapi import Route, document
from web.problems import as_problems
from web.shares import Shares
from web.site import Site
from web.status import Statuses
from web.status_feed import StatusFeeds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.typedefs import Handler

    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.auth import ApiKeys
    from web.callbacks import Callbacks
    from web.ports import Health, LiveJobs

_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: Bytes of a request's body, and seconds that an answer may take that is not streamed.
MAX_BODY: Final = 1 << 20
REQUEST_S = 30.0

_STATIC: Final = {"console.js": "text/javascript", "console.css": "text/css", "icon.svg": "image/svg+xml"}


def make_app(
    *,
    live: LiveJobs,
    reader: Reads,
    store: Store,
    metrics: Callable[[], bytes | Awaitable[bytes]],
    health: Callable[[], Awaitable[Health]],
    keys: ApiKeys,
    feeds: StatusFeeds | None = None,
    callbacks: Callbacks | None = None,
    bounds: Bounds | None = None,
) -> web.Application:
    """The service, to be run by an aiohttp runner.

    `feeds` is where the owner of `live` publishes every newer status, in the service's event loop; without it,
    watchers look often. With `callbacks`, providers may call. `health` and `metrics` are open to all: nothing
    secret may be in them. `bounds` are those of the connections over which the service is asked.
    """
    bounds = bounds or Bounds()

    async def check(_: Sequence[None]) -> list[Health]:
        return [await health()]

    # Probes need no key, and a check asks PostgreSQL over the stages' connections: one for all who ask at a moment.
    checked: Coalesce[None, Health] = Coalesce(check)
    site = Site(
        Statuses(live, reader),
        reader,
        store,
        metrics,
        lambda: checked(None),
        feeds or StatusFeeds(told=False),
        Shares("watches", bounds.watchers),
        Shares("recordings on their way", bounds.streams),
    )
    app = web.Application(middlewares=[as_problems, _without_large_bodies], client_max_size=MAX_BODY)
    table = [*_routes(site), Route("/openapi.json", "This interface, as OpenAPI 3.1", opened=_openapi)]
    table += [_called(callbacks)] if callbacks is not None else []
    app[_DOCUMENT] = orjson.dumps(document(table))
    for route in table:
        if route.method == "GET":
            app.router.add_get(route.path, _guarded(route, keys), allow_head=not route.path.endswith("/events"))
        else:
            app.router.add_route(route.method, route.path, _guarded(route, keys))
    _add_console(app)
    app.on_response_prepare.append(_harden)
    app.on_shutdown.append(_end_watches(site.feeds))
    return app


_DOCUMENT: Final = web.AppKey("openapi", bytes)


def _routes(site: Site) -> list[Route]:
    """The table of everything but the console."""
    run: dict[str, dict[str, object]] = {
        "run": {"type": "integer", "minimum": 1, "maximum": views.RUNS, "description": "default: the newest"}
    }
    page: dict[str, dict[str, object]] = {
        "status": {"enum": list(views.STATUSES)},
        "limit": {"type": "integer", "minimum": 1, "maximum": views.MAX_PAGE, "default": views.PAGE},
        "cursor": {"type": "string", "description": "`next` of the page before"},
    }
    partly = {
        "206": "the range asked for",
        "302": "where it is, for some minutes",
        "304": "you have it",
        "416": "no such range",
    }
    whose: dict[str, dict[str, object]] = {
        "tenant": {"type": "string", "maxLength": 128, "description": "whose job it is, where an operator asks"}
    }
    several = {"409": "several tenants have a job of this name; `tenants` lists them, `?tenant=` chooses"}
    direct: dict[str, dict[str, object]] = {
        "direct": {"enum": ["no"], "description": "`no`: from here, even where object storage could be asked"}
    }
    return [
        Route("/jobs/{id}/status", "Where a job stands", site.status, answer=views.JobView, query=whose, also=several),
        Route(
            "/jobs/{id}/events",
            "A job's statuses as they come, until its run ends",
            site.events,
            media="text/event-stream",
            query=whose,
            also=several,
            streams=True,
        ),
        Route(
            "/jobs/{id}/transcript",
            "What was said",
            site.transcript,
            answer=views.TranscriptView,
            query=run | whose,
            also=several,
        ),
        Route(
            "/jobs/{id}/transcript/raw",
            "What each recognizer heard",
            site.raw,
            answer=Reconciliation,
            query=run | whose,
            also=several,
            streams=True,
        ),
        Route(
            "/jobs/{id}/audio",
            "The recording",
            site.audio,
            media="audio/*",
            query=direct | whose,
            also=partly | several,
            streams=True,
        ),
        Route("/tenants", "Whose jobs you may see", site.tenants, answer=views.Tenants),
        Route("/tenants/{tenant}/jobs", "A tenant's jobs, newest first", site.jobs, answer=views.JobPage, query=page),
        Route("/healthz", "Whether this worker is alive", opened=site.alive, answer=views.HealthView),
        Route("/readyz", "Whether this worker takes requests", opened=site.ready, answer=views.HealthView),
        Route("/metrics", "What operators watch, for Prometheus", opened=site.measured, media="text/plain"),
    ]


def _called(callbacks: Callbacks) -> Route:
    answers = {"204": "heard", "400": "not a provider's call", "401": "without the provider's token", "413": "too long"}
    return Route("/webhooks/{provider}", "A provider is done", opened=callbacks.receive, also=answers, method="POST")


def _guarded(route: Route, keys: ApiKeys) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler as the router calls it; one that is not open gets to know who asks, or is not called."""
    if route.handler is None:
        if route.opened is None:
            raise ValueError(f"{route.path} has no handler")
        return route.opened
    handler = route.handler

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = keys.caller(request)
        if route.streams:
            return await handler(request, caller)
        try:
            async with asyncio.timeout(REQUEST_S):
                return await handler(request, caller)
        except TimeoutError as exc:
            raise Unavailable(f"no answer within {REQUEST_S:.0f} s") from exc

    return handle


@web.middleware
async def _without_large_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A body that says it is too large is refused before it is read. Whoever reads one without a length counts."""
    if (request.content_length or 0) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
    return await handler(request)


async def _openapi(request: web.Request) -> web.StreamResponse:
    return web.Response(body=request.app[_DOCUMENT], content_type="application/json")


def _add_console(app: web.Application) -> None:
    folder = files("web").joinpath("static")
    page = folder.joinpath("console.html").read_bytes()
    app.router.add_get("/", _fixed(page, "text/html", {"Content-Security-Policy": _CSP}))
    for name, kind in _STATIC.items():
        app.router.add_get(f"/static/{name}", _fixed(folder.joinpath(name).read_bytes(), kind, {}))


def _fixed(body: bytes, kind: str, headers: dict[str, str]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body=body, content_type=kind, charset="utf-8", headers=headers | {"Cache-Control": "no-cache"}
        )

    return handle


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    """What no answer is without: taken for nothing else, kept nowhere, told to nobody."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-store")


def _end_watches(feeds: StatusFeeds) -> Callable[[web.Application], Awaitable[None]]:
    async def end(_: web.Application) -> None:
        feeds.close()

    return end
