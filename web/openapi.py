"""The HTTP interface as OpenAPI 3.1, made from the table of routes and the models that the routes answer with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import TypeAdapter

from web.views import ProblemView

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiohttp import web

    from web.auth import Caller

_PROBLEM: Final = ProblemView.__name__
_REFS: Final = "#/components/schemas/{model}"

#: What may go wrong where, besides 404 for what has a name in its path.
_ERRORS: Final = {
    "400": "a parameter is wrong; `detail` says which and how",
    "401": "no API key, or an unknown one",
    "404": "no such thing, for this caller",
    "503": "a server that the answer needs is away; ask again after `Retry-After` seconds",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One request that is answered."""

    path: str
    summary: str
    #: Takes the request and who asks; None for a route that is open to all, see `opened`.
    handler: Callable[[web.Request, Caller], Awaitable[web.StreamResponse]] | None = None
    opened: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    #: What the answer's body is: a pydantic model or dataclass, or None when it is no JSON.
    answer: type[Any] | None = None
    media: str = "application/json"
    #: Query parameters, with their JSON Schemas.
    query: Mapping[str, Mapping[str, Any]] | None = None
    #: Statuses besides 200 and the usual errors.
    also: Mapping[str, str] | None = None
    method: Literal["GET", "POST"] = "GET"
    #: Whether the answer takes as long as its reader does: how many a caller may have at once is bounded.
    streams: bool = False


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    routes = list(routes)
    models = {route.answer.__name__: route.answer for route in routes if route.answer} | {_PROBLEM: ProblemView}
    mode: Literal["serialization"] = "serialization"
    keyed = [(name, mode, TypeAdapter(model)) for name, model in sorted(models.items())]
    schemas, definitions = TypeAdapter.json_schemas(keyed, ref_template=_REFS)
    bodies = {name: schema for (name, _), schema in schemas.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Concord",
            "version": _version(),
            "description": "Status, transcripts and recordings of a fleet's jobs.",
        },
        "paths": {route.path: {route.method.lower(): _operation(route, bodies)} for route in routes},
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(route: Route, bodies: Mapping[str, Any]) -> dict[str, Any]:
    schema = bodies[route.answer.__name__] if route.answer else {"type": "string"}
    errors = dict(_ERRORS) if route.handler else {"503": _ERRORS["503"]}
    if route.streams:
        errors["429"] = "you have as many of these at once as one caller may; `Retry-After` says when to ask again"
    if "{" not in route.path:
        errors.pop("404", None)
    problem = {"application/problem+json": {"schema": bodies[_PROBLEM]}}
    return {
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", route.path).strip("_") or "console",
        "parameters": [*_in_path(route.path), *_in_query(route)],
        "responses": {
            "200": {"description": route.summary, "content": {route.media: {"schema": schema}}},
            **{status: {"description": text} for status, text in (route.also or {}).items()},
            **{status: {"description": text, "content": problem} for status, text in errors.items()},
        },
        "security": [{"bearer": []}, {"key": []}] if route.handler else [],
    }


def _in_path(path: str) -> list[dict[str, Any]]:
    lengths = {"id": 255}  # a job's id, or its reference, escaped
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "maxLength": lengths.get(name, 128)},
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _in_query(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": dict(schema)} for name, schema in (route.query or {}).items()]


def _version() -> str:
    try:
        return version("concord")
    except PackageNotFoundError:  # run from a work tree that was not installed
        return "0"
