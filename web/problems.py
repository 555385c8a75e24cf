"""Errors over HTTP as problem documents (RFC 9457): they say what to do, and contain no traceback, path or secret."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import orjson
from aiohttp import web
from pydantic import Field

from schemas.errors import Ambiguous, ConcordError, Conflict, InvalidInput, NotFound, Transient, Unavailable
from schemas.events.base import Data
from web.middleware.request_state import REQUEST_ID, SAYS_SUCCESS
from web.resources.problems.codes import CODES, code_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError

log = logging.getLogger(__name__)

#: `Retry-After` in seconds when one of our own servers is away.
RETRY_S: Final = 2

#: The answer about a job that does not exist, and about another tenant's: both are the same.
NO_JOB: Final = "there is no such job"
NO_TENANT: Final = "there is no such tenant"

#: Headers of aiohttp's own errors that the answer keeps.
_KEPT: Final = ("Accept", "Allow", "WWW-Authenticate", "Retry-After", "Content-Range", "ETag")


class FieldProblem(Data):
    """One field of a request that is wrong."""

    parameter: str | None = Field(None, description="name of a path or query parameter, or of a header")
    pointer: str | None = Field(None, description="JSON pointer to a field of the body, as a URI fragment")
    detail: str


class ProblemView(Data):
    """An error (RFC 9457)."""

    type: str = Field(description="the page that explains this kind of error")
    title: str
    status: int
    code: str = Field(description="the kind of error, for programs; a code keeps its meaning", examples=sorted(CODES))
    detail: str
    request_id: str | None = Field(None, description="by which the request is found in our logs")
    errors: list[FieldProblem] | None = Field(None, description="the fields of the request that are wrong")
    success: bool | None = Field(None, description="false, where the answers of a route have `success`")
    message: str | None = Field(None, description="the same as `detail`, there")


class ApiProblem(ConcordError):
    """An error with one of the `CODES`, which has its status; `more` is added to the document."""

    def __init__(
        self, problem_code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.problem_code, self.headers, self.more = problem_code, headers, more


class InvalidRequest(InvalidInput):
    """Parameters of a request, or fields of its body, that their model refuses."""

    def __init__(self, fields: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(f"{_place(field)}: {field.detail}" for field in fields))
        self.fields = tuple(fields)

    @classmethod
    def of_parameters(cls, exc: ValidationError, headers: Mapping[str, str]) -> InvalidRequest:
        """The parameters that pydantic refuses; `headers` are the names of those that are headers, by field."""
        errors = exc.errors(include_url=False, include_input=False)
        names = [str(error["loc"][0]) for error in errors]
        return cls(
            [
                FieldProblem(parameter=headers.get(name, name), detail=_reason(error))
                for name, error in zip(names, errors, strict=True)
            ]
        )

    @classmethod
    def of_body(cls, exc: ValidationError) -> InvalidRequest:
        """The fields of a JSON body that pydantic refuses; the pointer `#` is the body as a whole."""
        errors = exc.errors(include_url=False, include_input=False)
        return cls([FieldProblem(pointer=_pointer(error["loc"]), detail=_reason(error)) for error in errors])


def _place(field: FieldProblem) -> str:
    return field.parameter or (field.pointer or "").removeprefix("#").removeprefix("/") or "the body"


def _pointer(location: Sequence[str | int]) -> str:
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _reason(error: Mapping[str, Any]) -> str:
    """The message of pydantic; without its prefix where a validator of ours has written it."""
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "literal_error" | "enum":
            return f"use one of {error['ctx']['expected']}"
        case _:
            return str(error["msg"])


def problem(
    status: int, detail: str, *, code: str | None = None, headers: Mapping[str, str] | None = None, **more: Any
) -> web.Response:
    """An error as a response; `more` is added to the document."""
    code = code or code_of(status)
    document = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if "success" in more:
        document["message"] = detail
    return web.Response(
        status=status, body=orjson.dumps(document | more), headers=headers, content_type="application/problem+json"
    )


def problem_of(request: web.Request, exc: Exception) -> web.Response:
    """The answer to a request whose handler raises this."""
    return _of_http(request, exc) if isinstance(exc, web.HTTPException) else _of_error(request, exc)


def _of_error(request: web.Request, exc: Exception) -> web.Response:
    named = _named(request)
    match exc:
        case ApiProblem():
            status = CODES[exc.problem_code].status
            return problem(status, str(exc), code=exc.problem_code, headers=exc.headers, **exc.more, **named)
        case NotFound():
            return problem(404, str(exc), **named)
        case Ambiguous():
            return problem(409, str(exc), code="ambiguous", tenants=exc.tenants, **named)
        case Conflict():
            return problem(409, str(exc), **named)
        case InvalidRequest():
            fields = [field.model_dump(exclude_none=True) for field in exc.fields]
            return problem(400, str(exc), errors=fields, **named)
        case InvalidInput():
            return problem(400, str(exc), **named)
        case Unavailable() | Transient():
            return _unavailable(request, exc, named)
        case _:
            return _internal_error(request, exc, named)


def _named(request: web.Request) -> dict[str, Any]:
    """What the document has besides: the request's id and, where the route's answers have `success`, that one, too."""
    named: dict[str, Any] = {"request_id": request[REQUEST_ID]} if REQUEST_ID in request else {}
    return named | {"success": False} if SAYS_SUCCESS in request else named


def _of_http(request: web.Request, exc: web.HTTPException) -> web.Response:
    """An error of aiohttp's (no such route, another method, too large a body), or one that a handler raised with a text
    of its own.
    """
    own = exc.text if exc.text and not exc.text.startswith(f"{exc.status}:") else None
    match exc.status:
        case 404:
            detail = f"there is nothing at {request.path[:200]}; /openapi.json lists what there is"
        case 405:
            detail = f"{request.method[:20]} does not go here; /openapi.json lists what does"
        case _:
            detail = HTTPStatus(exc.status).description
    headers = {name: exc.headers[name] for name in _KEPT if name in exc.headers}
    return problem(exc.status, own or detail, headers=headers, **_named(request))


def _unavailable(request: web.Request, exc: Unavailable | Transient, named: Mapping[str, Any]) -> web.Response:
    """The reason is only logged: it may name hosts and paths."""
    log.warning("%s could not be answered (%s): %s", request.path, named.get("request_id"), exc)
    wait = exc.retry_after if isinstance(exc, Transient) and exc.retry_after else RETRY_S
    detail = "a server that this answer needs is away at the moment; nothing is lost, ask again"
    return problem(503, detail, headers={"Retry-After": str(math.ceil(wait))}, **named)


def _internal_error(request: web.Request, exc: Exception, named: Mapping[str, Any]) -> web.Response:
    incident = named.get("request_id") or uuid4().hex
    log.error("incident %s at %s", incident, request.path, exc_info=exc)
    return problem(500, f"this is a fault of ours, in the log as incident {incident}", incident=incident, **named)
