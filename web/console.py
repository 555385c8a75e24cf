"""Serves the console and the page about the HTTP interface: HTML, ES modules, style sheets and an icon, and no build
step.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from web.middleware.compression import LEAST, takes_gzip, zipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

FOLDER: Final = Path(__file__).with_name("static")

#: Scripts and styles come from this origin only, and none are inline.
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGES: Final = {"console.html": "/", "docs/docs.html": "/docs"}
_MEDIA_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def add_console(router: web.UrlDispatcher) -> None:
    """Serve the console at `/`, the page about the HTTP interface at `/docs`, and their files at `/static/...`: no path
    is resolved in a file system when a request comes.
    """
    for path, handler in _handlers().items():
        router.add_get(path, handler)


@cache
def _handlers() -> Mapping[str, Handler]:
    """By path, each file as it is now, kept in memory."""
    files = {file.relative_to(FOLDER).as_posix(): file for file in sorted(FOLDER.rglob("*"))}
    return {
        _PAGES.get(name, f"/static/{name}"): _serve(file.read_bytes(), _MEDIA_TYPES[file.suffix])
        for name, file in files.items()
        if file.suffix in _MEDIA_TYPES
    }


def _serve(body: bytes, media_type: str) -> Handler:
    tag, packed = sha256(body).hexdigest()[:32], zipped(body) if len(body) >= LEAST else None
    # "no-cache": kept by browsers, and asked for each time, which costs an answer without a body.
    headers = {"Cache-Control": "no-cache", "ETag": f'W/"{tag}"', "Content-Security-Policy": _CSP}

    async def handle(request: web.Request) -> web.StreamResponse:
        if any(known.value in (tag, "*") for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        if packed is not None and takes_gzip(request):
            coding = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            return web.Response(body=packed, content_type=media_type, charset="utf-8", headers=headers | coding)
        return web.Response(body=body, content_type=media_type, charset="utf-8", headers=headers)

    return handle
