"""Calls from providers that are done: `POST /webhooks/{provider}` makes the next look at that request due now.

A call is a hint and no more: what it says is not believed, the provider is asked. So a lost call costs some time, a
forged or repeated one a look, and whether a request exists is told to nobody.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from aiohttp import web
from pydantic import StringConstraints, ValidationError

from schemas.errors import InvalidInput
from schemas.events.base import Data

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The header that carries a provider's token.
HEADER: Final = "X-Concord-Callback"

#: The longest body, in bytes, and the longest time, in seconds, that one may take.
MAX_BYTES, READ_S = 4096, 5.0


class ExpeditesPolls(Protocol):
    """The part of `sinks.ports.providers.requests.Requests` that this needs."""

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next look at a submitted request due now."""


class Finished(Data):
    """What the provider says."""

    transcript_id: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
    status: Annotated[str, StringConstraints(max_length=64)]


def token_of(secret: str, provider: str) -> str:
    """What this provider has to show: of use for its own calls only, and the secret cannot be told from it."""
    return hmac.new(secret.encode(), f"callback/{provider}".encode(), sha256).hexdigest()


@dataclass(frozen=True)
class Callbacks:
    """The handler, and what it needs."""

    database: ExpeditesPolls
    #: By provider.
    tokens: Mapping[str, str] = field(repr=False)

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """204 for whoever shows the token, 401 for everybody else."""
        provider = request.match_info["provider"]
        shown = request.headers.get(HEADER, "").encode("utf-8", "surrogateescape")
        # A provider that we do not know is answered like a wrong token, and as fast.
        right = hmac.compare_digest(self.tokens.get(provider, HEADER).encode(), shown)
        if not right or provider not in self.tokens:
            raise web.HTTPUnauthorized(text=f"show the token that you were given, in {HEADER}")
        finished = _finished(await _body(request))
        await self.database.expedite_poll(provider, finished.transcript_id)
        return web.Response(status=204)


async def _body(request: web.Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(READ_S):
            async for piece in request.content.iter_chunked(MAX_BYTES):
                body += piece
                if len(body) > MAX_BYTES:
                    raise web.HTTPRequestEntityTooLarge(MAX_BYTES, len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return body


def _finished(body: bytes) -> Finished:
    try:
        return Finished.model_validate_json(body)
    except ValidationError as exc:
        wrong = exc.errors(include_input=False)[0]
        raise InvalidInput(f"the body: {'.'.join(map(str, wrong['loc']))} {wrong['msg']}") from None
