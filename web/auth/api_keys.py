"""API keys: each belongs to a tenant or to an operator, and stands in the environment or in the database. Only their
hashes are kept.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final, Protocol, Self

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from schemas.accounts.keys import hash_of
from schemas.errors import SettingsError
from schemas.ids import EVERY_TENANT, Name
from web.auth.caller import Caller, operator
from web.auth.local_client import is_local_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas.accounts.keys import ApiKey

_SEND_A_KEY: Final = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
_NO_KEYS: Final = (
    "this installation has no API keys, so it answers only requests from its own machine, by address or as localhost; "
    "make one there (`concord keys create`), or set CONCORD_API_KEYS (tenant=key,... with *=key for an operator), and "
    + _SEND_A_KEY
)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class StoredKeys(Protocol):
    """The keys in the database, as a worker knows them."""

    async def key(self, digest: bytes, /) -> ApiKey | None:
        """The valid key whose text has this hash."""

    async def has_keys(self) -> bool:
        """Whether a key was ever made."""


class NoStoredKeys(StoredKeys):
    """An installation whose keys all stand in the environment."""

    async def key(self, _: bytes, /) -> None:
        """None."""

    async def has_keys(self) -> bool:
        """False."""
        return False


class ApiKeys:
    """The installation's keys: of the environment, and of the database. While there was never one, requests from this
    machine are an operator's, all others are refused. That a key is revoked or expires does not bring this back.
    """

    def __init__(self, keys: Iterable[tuple[str | None, str]] = (), stored: StoredKeys | None = None) -> None:
        self._stored = stored or NoStoredKeys()
        self._tenants: dict[bytes, list[tuple[bytes, str | None]]] = {}
        for tenant, key in keys:
            digest = hash_of(key)
            self._tenants.setdefault(digest[:8], []).append((digest, tenant))

    @classmethod
    def parse(cls, text: str | None, stored: StoredKeys | None = None) -> Self:
        """Keys as settings write them: `acme=key1,acme=key2,*=key3`; a tenant may have several, `*` is an operator.

        Raises:
            SettingsError: an entry is wrong; the message gives its position and never contains a key.
        """
        entries = [part.strip() for part in (text or "").split(",") if part.strip()]
        keys = [_entry(number, entry) for number, entry in enumerate(entries, 1)]
        owners: dict[str, str | None] = {}
        for tenant, key in keys:
            if owners.setdefault(key, tenant) != tenant:
                raise SettingsError(f"CONCORD_API_KEYS: {tenant or '*'} and {owners[key] or '*'} have the same key")
        return cls(keys, stored)

    def __repr__(self) -> str:
        return f"ApiKeys({sum(map(len, self._tenants.values()))})"

    async def exist(self) -> bool:
        """Whether there is, or was, a key.

        Raises:
            Unavailable: only the database knows, and it is away.
        """
        return bool(self._tenants) or await self._stored.has_keys()

    async def caller(self, request: web.Request) -> Caller:
        """The caller that the request's key belongs to.

        Raises:
            HTTPUnauthorized: the request has no key, or one that is not valid; its text says which headers to send.
            Unavailable: only the database knows the key, and it is away.
        """
        if not await self.exist():
            if not is_local_client(request):
                raise _unauthorized(_NO_KEYS)
            return operator("local")
        key = _key_in(request.headers)
        if key is None:
            raise _unauthorized(_SEND_A_KEY)
        return await self._owner(key)

    async def _owner(self, key: str) -> Caller:
        """Looks the key up by the first bytes of its hash and compares the rest in constant time, so that the duration
        says nothing about any key. In the database, keys that are unknown, revoked or expired cost the same: a look-up
        in one index that finds nothing, and is not kept.
        """
        digest = hash_of(key)
        for stored, tenant in self._tenants.get(digest[:8], ()):
            if hmac.compare_digest(stored, digest):
                return _environment_caller(tenant)
        found = await self._stored.key(digest)
        if found is None:
            raise _unauthorized("this API key is not known here; " + _SEND_A_KEY)
        return Caller(found.id, found.tenant_id or EVERY_TENANT, frozenset(found.scopes))


def _environment_caller(tenant: str | None) -> Caller:
    if tenant is None:
        return operator("environment:*")
    return Caller(f"environment:{tenant}", tenant, frozenset({"admin"}))


def _entry(number: int, entry: str) -> tuple[str | None, str]:
    tenant, equals, key = entry.partition("=")
    tenant, key = tenant.strip(), key.strip()
    if not (tenant and equals and key):
        raise SettingsError(f"CONCORD_API_KEYS: entry {number} must read tenant=key, or *=key for an operator")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"CONCORD_API_KEYS: the key of entry {number} must be printable ASCII without spaces")
    try:
        return (None if tenant == "*" else _NAME.validate_python(tenant)), key
    except ValidationError as exc:
        reason = exc.errors(include_input=False)[0]["msg"]
        raise SettingsError(f"CONCORD_API_KEYS: the tenant of entry {number}: {reason}") from None


def _key_in(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("X-API-Key", "").strip() or None


def _unauthorized(detail: str) -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(text=detail, headers={"WWW-Authenticate": 'Bearer realm="concord"'})
