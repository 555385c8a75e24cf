"""Turns a declared route into an aiohttp handler: authenticates, validates, calls the route's handler, answers."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from pydantic import ValidationError

from schemas.errors import NotFound, Unavailable
from web.idempotency import once as execution
from web.parameters import read_parameters, tenant_name
from web.problems import NO_TENANT, InvalidRequest
from web.route import ApiRequest

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from sinks.ports.api.idempotency import IdempotencyDatabase
    from web.auth.api_keys import ApiKeys
    from web.auth.caller import Caller
    from web.route import AnyRoute, RequestBody, Result

#: Seconds that an answer may take that is not streamed.
REQUEST_S = 30.0

B = TypeVar("B")


def endpoint(route: AnyRoute, keys: ApiKeys, idempotency: IdempotencyDatabase | None = None) -> Handler:
    """The aiohttp handler of a route.

    Raises:
        ValueError: the route takes an `Idempotency-Key`, and there is no database of these.
    """
    if route.accepts_idempotency_key and idempotency is None:
        raise ValueError(f"{route.operation_id} takes an Idempotency-Key, and nothing here keeps them")
    answer = partial(_answer, route, idempotency if route.accepts_idempotency_key else None)

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = route.access.authenticate(request, keys)
        if route.is_streamed:
            return await answer(request, caller)
        try:
            async with asyncio.timeout(REQUEST_S):
                return await answer(request, caller)
        except TimeoutError as exc:
            raise Unavailable(f"no answer within {REQUEST_S:.0f} s") from exc

    return handle


async def _answer(
    route: AnyRoute, idempotency: IdempotencyDatabase | None, request: web.Request, caller: Caller
) -> web.StreamResponse:
    _check_tenant(request, caller)
    parameters = read_parameters(route.parameters, request)
    once = execution(idempotency, request, caller)
    body = await read_body(request, route.body) if route.body else None

    async def work() -> web.StreamResponse:
        return _response(route, await route.handler(ApiRequest(request, caller, parameters, body, once)))

    if route.streamed_body:
        return await work()
    return await once.run(route.body.adapter.dump_json(body) if route.body else b"", work)


def _check_tenant(request: web.Request, caller: Caller) -> None:
    """A path that names a tenant exists only for callers who see that tenant. Checked before anything is validated, so
    that the answer is the same whatever else is wrong with the request.
    """
    name = request.match_info.get("tenant")
    if name is not None and not caller.sees(tenant_name(name)):
        raise NotFound(NO_TENANT)


def _response(route: AnyRoute, result: Result) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if result is None:
        return web.Response(status=route.success)
    return web.json_response(text=result.model_dump_json(), status=route.success)


async def read_body(request: web.Request, expected: RequestBody[B]) -> B:
    """The request's body as its model.

    Raises:
        HTTPUnsupportedMediaType: it is not sent as one of the media types that the route takes.
        HTTPRequestEntityTooLarge: it is too long.
        HTTPRequestTimeout: it does not arrive in time.
        InvalidRequest: it is no JSON, or some fields are wrong; it names each.
    """
    if expected.empty is not None and not request.can_read_body:
        return expected.empty
    if (request.content_length or 0) > expected.max_bytes:
        raise web.HTTPRequestEntityTooLarge(expected.max_bytes, request.content_length or 0)
    if not expected.any_media_type and request.content_type not in expected.media_types:
        accepted = ", ".join(expected.media_types)
        raise web.HTTPUnsupportedMediaType(text=f"send the body as {accepted}", headers={"Accept": accepted})
    async with expected.slots or contextlib.nullcontext():
        content = await _read(request, expected)
        if expected.verify is not None:
            expected.verify(request, content)
        try:
            return expected.adapter.validate_json(content)
        except ValidationError as exc:
            raise InvalidRequest.of_body(exc) from None


async def _read(request: web.Request, expected: RequestBody[Any]) -> bytes:
    """The bytes of the body. Not by `request.read()`, whose limit is the same for all routes."""
    content = bytearray()
    try:
        async with asyncio.timeout(expected.read_s):
            async for chunk in request.content.iter_any():
                content += chunk
                if len(content) > expected.max_bytes:
                    raise web.HTTPRequestEntityTooLarge(expected.max_bytes, len(content))
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return bytes(content)
