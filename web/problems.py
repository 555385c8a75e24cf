"""Errors over HTTP: problem+json (RFC 9457) that says what to do, never with a traceback, a path or a secret."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import orjson
from aiohttp import web

from schemas.errors import Ambiguous, InvalidInput, NotFound, Transient, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

#: Seconds after which asking again makes sense when one of our own servers is away.
RETRY_S: Final = 2

#: Headers of aiohttp's own errors that the answer keeps.
_KEPT: Final = ("Allow", "WWW-Authenticate", "Retry-After", "Content-Range")


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> web.Response:
    """An error as a response; `more` is added to the document."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail} | more
    return web.Response(
        status=status, body=orjson.dumps(document), headers=headers, content_type="application/problem+json"
    )


@web.middleware
async def as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error a handler raises, as a problem. Errors after a response has begun are the handler's own matter."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        if exc.status < HTTPStatus.BAD_REQUEST:
            raise
        return _of_http(request, exc)
    except NotFound as exc:
        return problem(404, str(exc))
    except Ambiguous as exc:
        return problem(409, str(exc), tenants=exc.tenants)
    except InvalidInput as exc:
        return problem(400, str(exc))
    except (Unavailable, Transient) as exc:
        return _away(request, exc)
    except Exception as exc:  # noqa: BLE001 -- the edge of the process; aiohttp itself may answer with a traceback
        return _bug(request, exc)


def _of_http(request: web.Request, exc: web.HTTPException) -> web.Response:
    """What aiohttp found: no such route, another method, too large a body; or what we raised ourselves, with a text."""
    ours = exc.text if exc.text and not exc.text.startswith(f"{exc.status}:") else None
    match exc.status:
        case 404:
            detail = f"there is nothing at {request.path[:200]}; /openapi.json lists what there is"
        case 405:
            detail = f"{request.method[:20]} does not go here; /openapi.json lists what does"
        case _:
            detail = HTTPStatus(exc.status).description
    return problem(exc.status, ours or detail, headers={k: exc.headers[k] for k in _KEPT if k in exc.headers})


def _away(request: web.Request, exc: Unavailable | Transient) -> web.Response:
    """Who is away, and why, is for the log: the message may name hosts and paths."""
    log.warning("%s could not be answered: %s", request.path, exc)
    wait = exc.retry_after if isinstance(exc, Transient) and exc.retry_after else RETRY_S
    detail = "a server that this answer needs is away at the moment; nothing is lost, ask again"
    return problem(503, detail, headers={"Retry-After": str(math.ceil(wait))})


def _bug(request: web.Request, exc: Exception) -> web.Response:
    incident = uuid4().hex[:12]
    log.error("incident %s at %s", incident, request.path, exc_info=exc)
    return problem(500, f"this is a fault of ours, in the log as incident {incident}", incident=incident)
