"""OPTIONS, and which other origins' pages may read answers (CORS).

Keys go in headers, never in cookies, so that no page of another origin sends them by itself: credentials are not
allowed here, and `*` is safe once an installation has keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Collection

#: Request headers that pages may send, and response headers that they may read, besides those that always are.
_SENT: Final = (
    "Authorization, X-API-Key, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID, Range, "
    "X-Request-Id"
)
_READ: Final = (
    "ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, Content-Range, Content-Disposition, X-Request-Id, "
    "X-Concord-Source, WWW-Authenticate, Idempotent-Replayed"
)

#: Seconds for which a browser remembers what it was allowed.
_REMEMBERED_S: Final = 600


def allowed_origin(request: web.Request, origins: Collection[str]) -> str | None:
    """The request's origin, or `*`, if its pages may read the answer."""
    origin = request.headers.get("Origin")
    if origin is None:
        return None
    return "*" if "*" in origins else origin if origin in origins else None


def add_origin_headers(request: web.Request, response: web.StreamResponse, origins: Collection[str]) -> None:
    """Let the page that asks read the answer, if its origin may."""
    if origins and "*" not in origins:
        response.headers.add("Vary", "Origin")
    if origin := allowed_origin(request, origins):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _READ


def options(request: web.Request, refused: web.HTTPException | None, origins: Collection[str]) -> web.Response | None:
    """The answer to OPTIONS at an address that there is: its methods, and what a browser asks before a request of
    another origin. None for any other request without a route, which is `refused`.
    """
    if request.method != "OPTIONS" or not isinstance(refused, web.HTTPMethodNotAllowed):
        return None
    methods = ", ".join(sorted({*refused.allowed_methods, "OPTIONS"}))
    headers = {"Allow": methods}
    if "Access-Control-Request-Method" in request.headers and allowed_origin(request, origins):
        headers["Access-Control-Allow-Methods"] = methods
        headers["Access-Control-Allow-Headers"] = _SENT
        headers["Access-Control-Max-Age"] = str(_REMEMBERED_S)
    return web.Response(status=204, headers=headers)
