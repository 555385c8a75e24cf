"""`Idempotency-Key`: a request that is repeated with the same key is executed once, and answered alike for a day.

Source: IETF draft-ietf-httpapi-idempotency-key-header-07, and what Stripe's API does where the draft leaves it open.
Answers of success are kept. After an error the request had no effect, and is executed again.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4, uuid5

from aiohttp import web

from schemas.errors import ConcordError, InvalidInput, NotFound, Unavailable
from schemas.ids import EVERY_TENANT, NAMESPACE
from sinks.ports.api.idempotency import Answer
from web.problems import FieldProblem, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sinks.ports.api.idempotency import IdempotencyKeys, KnownKey
    from sinks.ports.tenants import PerTenant
    from web.auth.caller import Caller

#: The request's header, and the one of an answer that is sent again.
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"

#: Characters of a key at most.
MAX_KEY: Final = 255

#: Seconds for which a claim holds, and between two renewals while the request is executed.
CLAIM_S, RENEW_S = 15.0, 5.0

#: Headers of an answer that are kept.
_KEPT: Final = ("Content-Type", "Location", "ETag")


@dataclass
class Once:
    """One request, which is executed once if it has a key."""

    keys: IdempotencyKeys | None
    #: Whose keys: a tenant, or `*`.
    tenant: str
    key: str | None
    #: Method, path and query.
    about: str
    _claim: UUID = field(init=False)
    _known: KnownKey | None = None
    _ids: int = 0

    def new_id(self) -> UUID:
        """An id for what the request creates: the same whenever a request with this key is executed, so that one which
        was interrupted does not create it twice.
        """
        if self._known is None:
            return uuid4()
        self._ids += 1
        parts = (HEADER, self.tenant, self.key or "", self._known.created_at.isoformat(), str(self._ids))
        return uuid5(NAMESPACE, "\x1f".join(parts))

    async def run(self, content: bytes, work: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """The answer of `work`, or the one that an earlier request with this key and the same content got.

        Raises:
            HTTPConflict: that request is being executed.
            HTTPUnprocessableEntity: the key was used for another request.
        """
        if self.keys is None or self.key is None:
            return await work()
        self._claim = uuid4()
        fingerprint = sha256(self.about.encode() + b"\0" + content).hexdigest()
        self._known = await self.keys.claim_key(self.tenant, self.key, fingerprint, self._claim, CLAIM_S)
        if self._known.fingerprint != fingerprint:
            raise web.HTTPUnprocessableEntity(text=f"this {HEADER} was used for another request; choose a new one")
        if self._known.answer is not None:
            return _replayed(self._known.answer)
        if self._known.claim != self._claim:
            detail = f"the first request with this {HEADER} is not answered yet; ask again"
            raise web.HTTPConflict(text=detail, headers={"Retry-After": "2"})
        return await self._execute(self.keys, self.key, fingerprint, work)

    async def _execute(
        self, keys: IdempotencyKeys, key: str, fingerprint: str, work: Callable[[], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        async with self._renewed(keys, key, fingerprint):
            try:
                response = await work()
            except BaseException as exc:
                await self._release(keys, key, exc)
                raise
            if 200 <= response.status < 300 and isinstance(response, web.Response):
                await keys.answer_key(self.tenant, key, self._claim, _answer(response))
            else:
                await keys.release_key(self.tenant, key, self._claim, forget=True)
            return response

    async def _release(self, keys: IdempotencyKeys, key: str, exc: BaseException) -> None:
        """After an error. Where the database does not answer, or the client has left, the claim lapses by itself: the
        request may have had its effect.
        """
        refused = isinstance(exc, InvalidInput | NotFound | web.HTTPException)
        if refused or not isinstance(exc, asyncio.CancelledError):
            with contextlib.suppress(ConcordError):
                await keys.release_key(self.tenant, key, self._claim, forget=refused)

    @contextlib.asynccontextmanager
    async def _renewed(self, keys: IdempotencyKeys, key: str, fingerprint: str) -> AsyncIterator[None]:
        async def renew() -> None:
            while True:
                await asyncio.sleep(RENEW_S)
                with contextlib.suppress(Unavailable):
                    await keys.claim_key(self.tenant, key, fingerprint, self._claim, CLAIM_S)

        renewing = asyncio.create_task(renew(), name="idempotency key")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)


def once(database: PerTenant[IdempotencyKeys] | None, request: web.Request, caller: Caller) -> Once:
    """How this request is executed; `database` is None for a route that takes no keys.

    Raises:
        InvalidRequest: the key is too long, or not of printable ASCII characters.
    """
    tenant = "*" if caller.whose is EVERY_TENANT else caller.whose
    key = _key(request.headers.get(HEADER, "")) if database is not None else None
    if database is None or key is None:
        return Once(None, tenant, None, "")
    return Once(database.acting_as(tenant), tenant, key, f"{request.method} {request.path_qs}")


def _key(text: str) -> str | None:
    """The key; a quoted string, as the draft has it, or plain, as people send it."""
    key = text.strip()
    key = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if len(key) > MAX_KEY or not (key.isascii() and key.isprintable()):
        detail = f"use 1 to {MAX_KEY} printable ASCII characters, such as a UUID"
        raise InvalidRequest([FieldProblem(parameter=HEADER, detail=detail)])
    return key or None


def _answer(response: web.Response) -> Answer:
    headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
    body = response.body if isinstance(response.body, bytes | bytearray) else b""
    return Answer(response.status, headers, bytes(body))


def _replayed(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers) | {REPLAYED: "true"})
