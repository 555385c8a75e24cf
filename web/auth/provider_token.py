"""Tokens with which recognizers' servers authenticate their callbacks."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import web

from web.auth.caller import ANONYMOUS, Caller

if TYPE_CHECKING:
    from collections.abc import Mapping

    from web.auth.api_keys import ApiKeys

#: The header that carries a provider's token.
HEADER: Final = "X-Concord-Callback"


def token_of(secret: str, provider: str) -> str:
    """The token of one provider, valid for its own callbacks only. The secret cannot be derived from it."""
    return hmac.new(secret.encode(), f"callback/{provider}".encode(), sha256).hexdigest()


@dataclass(frozen=True)
class ProviderToken:
    """Only the provider that the path names may call the route, with its token."""

    #: By name of the provider.
    tokens: Mapping[str, str] = field(repr=False)
    security: ClassVar[tuple[Any, ...]] = ()
    errors: ClassVar[Mapping[int, str]] = {401: "without the provider's token"}

    async def authenticate(self, request: web.Request, _: ApiKeys) -> Caller:
        """The anonymous caller: a provider sees no tenant's data.

        Raises:
            HTTPUnauthorized: the token is missing or wrong, or there is no such provider.
        """
        provider = request.match_info["provider"]
        token = request.headers.get(HEADER, "").encode("utf-8", "surrogateescape")
        # An unknown provider is answered like a wrong token, and as fast.
        is_right = hmac.compare_digest(self.tokens.get(provider, HEADER).encode(), token)
        if not is_right or provider not in self.tokens:
            raise web.HTTPUnauthorized(text=f"send the token of this provider in {HEADER}")
        return ANONYMOUS
