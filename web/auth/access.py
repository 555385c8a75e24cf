"""Who may call a route: anybody, holders of an API key, or operators only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from web.auth.caller import ANONYMOUS, Caller

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from web.auth.api_keys import ApiKeys

#: Names of the OpenAPI security schemes for API keys.
BEARER, API_KEY_HEADER = "bearer", "key"


class Access(Protocol):
    """A rule for who may call a route, and how OpenAPI describes it."""

    @property
    def security(self) -> Sequence[Mapping[str, Sequence[str]]]:
        """OpenAPI's security requirements; empty for a route without API keys."""

    @property
    def errors(self) -> Mapping[int, str]:
        """Descriptions of the errors that the rule answers with, by status."""

    def authenticate(self, request: web.Request, keys: ApiKeys) -> Caller:
        """The caller of this request.

        Raises:
            HTTPUnauthorized: the request carries no valid credentials.
            HTTPForbidden: the credentials are valid and do not permit this route.
        """


class Public:
    """Anybody may call the route; nothing secret may be in its answers."""

    security: tuple[Any, ...] = ()
    errors: Mapping[int, str] = {}

    def authenticate(self, _: web.Request, _keys: ApiKeys) -> Caller:
        """The anonymous caller, who sees no tenant's data."""
        return ANONYMOUS


class WithApiKey:
    """Holders of an API key may call the route; a tenant's key gives access to that tenant's data only."""

    security: tuple[Any, ...] = ({BEARER: []}, {API_KEY_HEADER: []})
    errors: Mapping[int, str] = {401: "no API key, or an unknown one"}

    def authenticate(self, request: web.Request, keys: ApiKeys) -> Caller:
        """The owner of the key."""
        return keys.caller(request)


class OperatorsOnly(WithApiKey):
    """Only operators may call the route."""

    errors: Mapping[int, str] = {**WithApiKey.errors, 403: "the API key is not an operator's"}

    def authenticate(self, request: web.Request, keys: ApiKeys) -> Caller:
        """The operator."""
        caller = keys.caller(request)
        if not caller.is_operator:
            raise web.HTTPForbidden(text="this needs an operator's API key")
        return caller


PUBLIC: Final[Access] = Public()
API_KEY: Final[Access] = WithApiKey()
OPERATOR: Final[Access] = OperatorsOnly()
