"""The declaration of one HTTP route. Routing, validation and the OpenAPI document are all made from it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter

from web.auth.access import READ, Access
from web.auth.caller import Caller
from web.conditions.idempotency import Once
from web.parameters import Parameters

#: Bytes of a request's body, unless its route says otherwise.
MAX_BODY: Final = 1 << 20

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

P = TypeVar("P", bound=Parameters)
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[P, B]):
    """A request that is authenticated and validated, as a handler gets it."""

    http: web.Request
    caller: Caller
    parameters: P
    #: The body as its route's model; None for a route without one.
    body: B
    #: Executes the request once, where the route takes an `Idempotency-Key`. A handler that reads its body itself calls
    #: `once.run`; what any handler creates gets `once.new_id()`.
    once: Once


#: What a handler returns: a model is sent as JSON with the route's success status, None as that status without a body.
Result = web.StreamResponse | BaseModel | None


@dataclass(frozen=True)
class RequestBody(Generic[B]):
    """The JSON body that a route takes."""

    model: type[B]
    #: A valid body, as JSON.
    example: Any
    max_bytes: int = MAX_BODY
    #: Seconds in which the client must have sent all of it.
    read_s: float = 10.0
    media_types: tuple[str, ...] = ("application/json",)
    #: Whether the Content-Type is ignored, for clients that send a wrong one.
    any_media_type: bool = False
    #: Whether a value of another type is refused, also where it could be converted (`0` for `false`).
    is_strict: bool = True
    #: Checks the bytes before they are parsed, for bodies that are signed. Raises what the client is to be answered.
    verify: Callable[[web.Request, bytes], None] | None = None
    #: Held while the body is read and parsed, for large ones of senders who are not known before.
    slots: asyncio.Semaphore | None = None
    #: What a request without a body means; None if it must have one.
    empty: B | None = None

    @cached_property
    def adapter(self) -> TypeAdapter[B]:
        """Validates bodies. Made once: pydantic compiles the model's schema for each adapter."""
        return TypeAdapter(self.model)


@dataclass(frozen=True, slots=True)
class StreamedBody:
    """A body that the handler reads itself, because it is too long for the memory."""

    #: OpenAPI's schemas by media type.
    content: Mapping[str, Mapping[str, Any]]
    #: Bytes at most; the handler may have a lower limit.
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ResponseSpec:
    """One response of a route, for the OpenAPI document."""

    description: str
    #: Pydantic model or dataclass of a JSON body.
    model: type[Any] | None = None
    #: A body of that model, as JSON.
    example: Any = None
    #: Media type of a body without a model.
    media_type: str | None = None
    #: Other media types of the same, that a client may choose.
    media_types: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyRoute:
    """One method on one path, whatever its parameters and body are.

    Raises:
        ValueError: the path names a parameter that `parameters` does not have, or no response is a success.
    """

    method: Method
    path: str
    operation_id: str
    summary: str
    handler: Callable[[Any], Awaitable[Result]]
    parameters: type[Parameters]
    #: By status. The usual errors are added to the document by `web.openapi`.
    responses: Mapping[int, ResponseSpec]
    body: RequestBody[Any] | None = None
    #: Set instead of `body` if the handler reads the body itself.
    streamed_body: StreamedBody | None = None
    access: Access = READ
    #: Whether the request may have an `Idempotency-Key`. Its answer is then kept for a day, also a secret in it.
    accepts_idempotency_key: bool = False
    #: Whether the response takes as long as its client reads: it has no time limit, and a caller may have only so many.
    is_streamed: bool = False
    #: Whether its answers have `success` and `message`, so that its errors have them, too.
    says_success: bool = False
    #: Whether a GET answers HEAD, too.
    allow_head: bool = True

    def __post_init__(self) -> None:
        unknown = self.path_parameters - set(self.parameters.model_fields)
        if unknown or not any(200 <= status < 400 for status in self.responses):
            raise ValueError(f"{self.method} {self.path}: {unknown or 'no successful response'} is not declared")

    @property
    def path_parameters(self) -> set[str]:
        """Names of the parameters in the path."""
        return set(re.findall(r"{(\w+)}", self.path))

    @property
    def success(self) -> int:
        """The status of a response that the handler returns as a model or as None."""
        return min(status for status in self.responses if status >= 200)

    @property
    def max_body(self) -> int:
        """Bytes of a request's body."""
        body = self.body or self.streamed_body
        return body.max_bytes if body else MAX_BODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(AnyRoute, Generic[P, B]):
    """A route as resources declare it: types are checked, so that its handler takes these parameters and this body.

    Lists of routes are lists of `AnyRoute`: as elements of a `list[Route[Any, Any]]` they would not be checked.
    """

    handler: Callable[[ApiRequest[P, B]], Awaitable[Result]]
    parameters: type[P]
    body: RequestBody[B] | None = None


class Resource(Protocol):
    """A group of routes, with what their handlers need."""

    def routes(self) -> Sequence[AnyRoute]:
        """The routes of this resource."""
