"""Who may call a route: anybody, holders of an API key, or operators only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from aiohttp import web

from schemas.errors import Unavailable
from web.auth.caller import ANONYMOUS, Caller
from web.middleware.request_state import CALLER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.accounts.keys import Scope
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

    async def authenticate(self, request: web.Request, keys: ApiKeys) -> Caller:
        """The caller of this request.

        Raises:
            HTTPUnauthorized: the request carries no valid credentials.
            HTTPForbidden: the credentials are valid and do not permit this route.
        """


class Public:
    """Anybody may call the route; nothing secret may be in its answers."""

    security: tuple[Any, ...] = ()
    errors: Mapping[int, str] = {}

    async def authenticate(self, _: web.Request, _keys: ApiKeys) -> Caller:
        """The anonymous caller, who sees no tenant's data."""
        return ANONYMOUS


@dataclass(frozen=True)
class WithScope:
    """Holders of an API key with this scope may call the route; a tenant's key shows that tenant's data only."""

    scope: Scope
    security: ClassVar[Sequence[Mapping[str, Sequence[str]]]] = ({BEARER: []}, {API_KEY_HEADER: []})

    @property
    def errors(self) -> Mapping[int, str]:
        """Without a key, and with one that does not permit it."""
        return {401: "no API key, or an unknown one", 403: f"the API key has no scope that permits `{self.scope}`"}

    async def authenticate(self, request: web.Request, keys: ApiKeys) -> Caller:
        """The owner of the key."""
        caller = request[CALLER] = await keys.caller(request)
        if not caller.may(self.scope):
            raise web.HTTPForbidden(text=f"this needs an API key with the scope `{self.scope}`")
        return caller


class OperatorOnceThereAreKeys(WithScope):
    """Anybody may call the route while the installation has no keys, operators only from then on."""

    def __init__(self) -> None:
        super().__init__("operator")

    async def authenticate(self, request: web.Request, keys: ApiKeys) -> Caller:
        """The operator; without any keys, the anonymous caller. A worker that has never seen a key, and cannot ask for
        them now, tells how it is: that is when people need to know.
        """
        try:
            needs_key = await keys.exist()
        except Unavailable:
            needs_key = False
        return await super().authenticate(request, keys) if needs_key else ANONYMOUS


PUBLIC: Final[Access] = Public()
READ: Final[Access] = WithScope("read")
WRITE: Final[Access] = WithScope("write")
REVIEW: Final[Access] = WithScope("review")
ADMIN: Final[Access] = WithScope("admin")
OPERATOR: Final[Access] = WithScope("operator")
OPERATOR_ONCE_THERE_ARE_KEYS: Final[Access] = OperatorOnceThereAreKeys()
