"""Turns a declared route into an aiohttp handler: authenticates, validates, calls the route's handler, answers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from pydantic import ValidationError

from schemas.errors import NotFound
from web.conditions.idempotency import once as execution
from web.limits.deadlines import Deadlines
from web.limits.rate_limits import RateLimits
from web.middleware.request_state import CALLER, OPERATION, SAYS_SUCCESS
from web.parameters import read_parameters, tenant_name
from web.problems import NO_TENANT, InvalidRequest
from web.route import ApiRequest

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from sinks.ports.api.idempotency import IdempotencyKeys
    from sinks.ports.tenants import PerTenant
    from web.auth.api_keys import ApiKeys
    from web.auth.caller import Caller
    from web.conditions.idempotency import Once
    from web.route import AnyRoute, RequestBody, Result

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Gate:
    """What lets requests in: who sends them, how many that may be, and which of them have been answered already."""

    keys: ApiKeys
    limits: RateLimits = field(default_factory=lambda: RateLimits(None))
    #: Where the answers to requests with an `Idempotency-Key` are kept.
    idempotency: PerTenant[IdempotencyKeys] | None = None
    deadlines: Deadlines = field(default_factory=Deadlines)

    async def admit(self, route: AnyRoute, request: web.Request) -> Caller:
        """The caller of a request, who may call the route, and has not called too often."""
        request[OPERATION] = route.operation_id
        if route.says_success:
            request[SAYS_SUCCESS] = True
        caller = await route.access.authenticate(request, self.keys)
        request[CALLER] = caller
        await self.limits.admit(request, caller)
        return caller

    def once(self, route: AnyRoute, request: web.Request, caller: Caller) -> Once:
        """How a request is carried out: once for each `Idempotency-Key`, where the route takes one."""
        return execution(self.idempotency if route.accepts_idempotency_key else None, request, caller)


def endpoint(route: AnyRoute, gate: Gate) -> Handler:
    """The aiohttp handler of a route.

    Raises:
        ValueError: the route takes an `Idempotency-Key`, and there is no database of these.
    """
    if route.accepts_idempotency_key and gate.idempotency is None:
        raise ValueError(f"{route.operation_id} takes an Idempotency-Key, and nothing here keeps them")

    async def handle(request: web.Request) -> web.StreamResponse:
        if route.is_streamed:
            caller = await gate.deadlines.keep(gate.admit(route, request))
            return await _answer(route, request, caller, gate)
        return await gate.deadlines.keep(_admit_and_answer(route, request, gate))

    return handle


async def _admit_and_answer(route: AnyRoute, request: web.Request, gate: Gate) -> web.StreamResponse:
    return await _answer(route, request, await gate.admit(route, request), gate)


async def _answer(route: AnyRoute, request: web.Request, caller: Caller, gate: Gate) -> web.StreamResponse:
    _check_tenant(request, caller)
    parameters = read_parameters(route.parameters, request)
    once = gate.once(route, request, caller)
    body = await read_body(request, route.body) if route.body else None

    call = ApiRequest(request, caller, parameters, body, once)
    if route.streamed_body or once.key is None:
        return _response(route, await route.handler(call))

    async def work() -> web.StreamResponse:
        return _response(route, await route.handler(call))

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
            # Strict: false is no number, and 0 no flag, as the published schema says.
            return expected.adapter.validate_json(content, strict=expected.is_strict)
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
