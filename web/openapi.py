"""The OpenAPI 3.1 document of the HTTP interface, made from the declared routes and their models."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import TypeAdapter

from web.auth.access import API_KEY_HEADER, BEARER
from web.conditions.idempotency import HEADER, MAX_KEY
from web.problems import ProblemView
from web.route import ResponseSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from web.parameters import Parameters
    from web.route import AnyRoute, RequestBody

Mode = Literal["validation", "serialization"]
#: Schemas by model and by whether it is read or written.
Schemas = dict[tuple[type[Any], Mode], Any]

_JSON: Final = "application/json"
#: Media types of which a model, or nothing, says the schema; that of event streams would be one event's.
_ANY: Final = (_JSON, "text/event-stream")
#: The paths that are about a worker itself.
_SERVICE: Final = ("/healthz", "/readyz", "/metrics", "/openapi.json")
_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": HEADER,
    "in": "header",
    "description": "A name for this request, such as a UUID: repeated within a day, it is answered as the first time",
    "schema": {"type": "string", "maxLength": MAX_KEY},
}
_REFS: Final = "#/components/schemas/{model}"


def document(routes: Sequence[AnyRoute]) -> dict[str, Any]:
    """The OpenAPI document of these routes.

    Raises:
        ValueError: two routes have the same method and path, or the same operation id.
    """
    schemas, definitions = _schemas(routes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Concord",
            "version": _version(),
            "description": "Status, transcripts and recordings of a fleet's jobs.",
        },
        "paths": _paths(routes, schemas),
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                BEARER: {"type": "http", "scheme": "bearer"},
                API_KEY_HEADER: {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _schemas(routes: Iterable[AnyRoute]) -> tuple[Schemas, dict[str, Any]]:
    answered = {spec.model for route in routes for spec in route.responses.values() if spec.model}
    models: set[tuple[type[Any], Mode]] = {(model, "serialization") for model in answered | {ProblemView}}
    models |= {(route.body.model, "validation") for route in routes if route.body}
    return _model_schemas(frozenset(models))


@cache  # with `_parameters_schema` three quarters of what an application costs, and tests build 190 of them
def _model_schemas(models: frozenset[tuple[type[Any], Mode]]) -> tuple[Schemas, dict[str, Any]]:
    inputs = [((model, mode), mode, TypeAdapter(model)) for model, mode in sorted(models, key=_name_and_mode)]
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REFS)
    return {key: schema for (key, _), schema in schemas.items()}, definitions


def _name_and_mode(key: tuple[type[Any], Mode]) -> tuple[str, str]:
    model, mode = key
    return model.__name__, mode


def _paths(routes: Iterable[AnyRoute], schemas: Schemas) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    operation_ids: set[str] = set()
    for route in routes:
        operations, method = paths.setdefault(route.path, {}), route.method.lower()
        if method in operations or route.operation_id in operation_ids:
            raise ValueError(f"{route.method} {route.path} ({route.operation_id}) is declared twice")
        operation_ids.add(route.operation_id)
        operations[method] = _operation(route, schemas)
    return paths


def _operation(route: AnyRoute, schemas: Schemas) -> dict[str, Any]:
    errors = {status: _response(status, ResponseSpec(text), schemas) for status, text in _errors(route).items()}
    responses = {status: _response(status, spec, schemas) for status, spec in route.responses.items()}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.operation_id,
        "tags": [_tag(route.path)],
        "parameters": _parameters(route),
        "responses": {str(status): response for status, response in (errors | responses).items()},
        "security": list(route.access.security),
    }
    if route.streamed_body:
        content = {kind: {"schema": dict(schema)} for kind, schema in route.streamed_body.content.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation | ({"requestBody": _request_body(route.body, schemas)} if route.body else {})


def _tag(path: str) -> str:
    """What an operation is about: the first word of its path, of a tenant's things the one behind the tenant."""
    if path in _SERVICE:
        return "service"
    words = [word for word in path.split("/") if word and not word.startswith("{")]
    return next((word for word in words if word not in ("tenants", "operator")), words[0])


def _errors(route: AnyRoute) -> dict[int, str]:
    """The errors that every route of this kind may answer with."""
    errors = {
        400: "a parameter or a field of the body is wrong, or unknown; `detail` says which and how",
        503: "a server that the answer needs is away; ask again after `Retry-After` seconds",
        **route.access.errors,
    }
    if route.access.security and (route.path_parameters or "tenant" in route.parameters.model_fields):
        errors[404] = "no such thing, for this caller"
    if route.accepts_idempotency_key:
        errors[409] = "the first request with this `Idempotency-Key` is not answered yet"
        errors[422] = "this `Idempotency-Key` was used for another request"
    if route.streamed_body:
        errors[408] = "the body does not arrive in time"
    if route.body:
        errors[413] = f"the body has more than {route.max_body} bytes"
        if not route.body.any_media_type:
            errors[415] = f"the body is not sent as {', '.join(route.body.media_types)}"
    if route.access.security:
        errors[429] = "this key has sent as many requests as it may; `Retry-After` says when to ask again"
    if route.is_streamed:
        errors[429] = "too many requests, or as many of these at once as one caller may have; see `Retry-After`"
    return errors


def _response(status: int, spec: ResponseSpec, schemas: Schemas) -> dict[str, Any]:
    """Every error may be a problem document, also where it has a model of its own."""
    content: dict[str, Any] = {}
    if spec.model is not None:
        content[_JSON] = _with_example(schemas[spec.model, "serialization"], spec.example)
    elif spec.media_type is not None:
        content[spec.media_type] = {"schema": {} if spec.media_type in _ANY else {"type": "string"}}
    content |= {media_type: {"schema": {"type": "string"}} for media_type in spec.media_types}
    if status >= 400:
        content["application/problem+json"] = {"schema": schemas[ProblemView, "serialization"]}
    return {"description": spec.description} | ({"content": content} if content else {})


def _request_body(body: RequestBody[Any], schemas: Schemas) -> dict[str, Any]:
    content = _with_example(schemas[body.model, "validation"], body.example)
    return {"required": body.empty is None, "content": dict.fromkeys(body.media_types, content)}


def _with_example(schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    return {"schema": schema} | ({"example": example} if example is not None else {})


def _parameters(route: AnyRoute) -> list[dict[str, Any]]:
    schema = _parameters_schema(route.parameters)
    required, in_path, headers = schema.get("required", ()), route.path_parameters, route.parameters.headers()
    idempotency = [_IDEMPOTENCY_KEY] if route.accepts_idempotency_key else []
    return idempotency + [
        {
            "name": headers.get(name, name),
            "in": "path" if name in in_path else "header" if name in headers else "query",
            **({"required": True} if name in required else {}),
            "schema": _parameter_schema(one),
        }
        for name, one in schema.get("properties", {}).items()
    ]


@cache
def _parameters_schema(model: type[Parameters]) -> Mapping[str, Any]:
    return model.model_json_schema()


def _parameter_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Pydantic's schema as it is for a URL, where null cannot be written: a parameter is left out instead."""
    plain = {key: value for key, value in schema.items() if key not in {"title", "anyOf"}}
    if plain.get("default", ...) is None:
        del plain["default"]
    variants = [variant for variant in schema.get("anyOf", ()) if variant != {"type": "null"}]
    return plain | (variants[0] if len(variants) == 1 else {"anyOf": variants} if variants else {})


def _version() -> str:
    try:
        return version("concord")
    except PackageNotFoundError:  # run from a work tree that was not installed
        return "0"
