"""API keys: each belongs to a tenant or to an operator; only their hashes are kept in memory."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from schemas.errors import SettingsError
from schemas.ids import Name
from web.auth.caller import Caller, operator
from web.auth.local_client import is_local_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SEND_A_KEY: Final = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
_NO_KEYS: Final = (
    "this installation has no API keys, so it answers only requests from its own machine, by address or as localhost; "
    "set CONCORD_API_KEYS (tenant=key,... with *=key for an operator) and " + _SEND_A_KEY
)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class ApiKeys:
    """The installation's keys. Without any, requests from this machine are an operator's, all others are refused."""

    def __init__(self, keys: Iterable[tuple[str | None, str]] = ()) -> None:
        self._tenants: dict[bytes, list[tuple[bytes, str | None]]] = {}
        for tenant, key in keys:
            digest = sha256(key.encode()).digest()
            self._tenants.setdefault(digest[:8], []).append((digest, tenant))

    @classmethod
    def parse(cls, text: str | None) -> Self:
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
        return cls(keys)

    def __repr__(self) -> str:
        return f"ApiKeys({sum(map(len, self._tenants.values()))})"

    def caller(self, request: web.Request) -> Caller:
        """The caller that the request's key belongs to.

        Raises:
            HTTPUnauthorized: the request has no key or an unknown one; its text says which headers to send.
        """
        if not self._tenants:
            if not is_local_client(request):
                raise _unauthorized(_NO_KEYS)
            return operator("local")
        key = _key_in(request.headers)
        if key is None:
            raise _unauthorized(_SEND_A_KEY)
        return self._owner(key)

    def _owner(self, key: str) -> Caller:
        """Looks the key up by the first bytes of its hash and compares the rest in constant time, so that the duration
        says nothing about any key.
        """
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        for stored, tenant in self._tenants.get(digest[:8], ()):
            if hmac.compare_digest(stored, digest):
                return _environment_caller(tenant)
        raise _unauthorized("this API key is not known here; " + _SEND_A_KEY)


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
