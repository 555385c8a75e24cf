"""Serves the console and the page about the HTTP interface: HTML, ES modules, style sheets and an icon, and no build
step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

FOLDER: Final = Path(__file__).with_name("static")

#: Scripts and styles come from this origin only, and none are inline.
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def add_console(router: web.UrlDispatcher) -> None:
    """Serve the console at `/`, the page about the HTTP interface at `/docs`, and their files at `/static/...`, each
    read now and kept in memory: no path is resolved in a file system when a request comes.
    """
    for path, page in (("/", "console.html"), ("/docs", "docs/docs.html")):
        content = (FOLDER / page).read_bytes()
        router.add_get(path, _serve(content, "text/html", {"Content-Security-Policy": _CSP}))
    for file in sorted(file for file in FOLDER.rglob("*") if file.suffix in _MEDIA_TYPES):
        path = f"/static/{file.relative_to(FOLDER).as_posix()}"
        router.add_get(path, _serve(file.read_bytes(), _MEDIA_TYPES[file.suffix], {}))


def _serve(body: bytes, media_type: str, headers: dict[str, str]) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body=body, content_type=media_type, charset="utf-8", headers=headers | {"Cache-Control": "no-cache"}
        )

    return handle
