"""Who asks: API keys belong to a tenant, an operator's sees all; only hashes of them are kept."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from schemas.errors import SettingsError
from schemas.ids import Name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: A proxy on this machine would make every stranger look like a neighbour; these are what it adds.
_PROXIED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")

_ASK: Final = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
_NO_KEYS: Final = (
    "this installation has no API keys, so it answers only who asks from its own machine, by address or as localhost; "
    "set CONCORD_API_KEYS (tenant=key,... with *=key for an operator) and " + _ASK
)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a tenant, or with None an operator, who sees all."""

    tenant: str | None

    def sees(self, tenant: str) -> bool:
        """Whether something of this tenant exists for the caller."""
        return self.tenant in (None, tenant)


class ApiKeys:
    """Which key is whose. Without any, requests from this machine are an operator's, and all others are refused."""

    def __init__(self, keys: Iterable[tuple[str | None, str]] = ()) -> None:
        self._tenants: dict[bytes, list[tuple[bytes, str | None]]] = {}
        for tenant, key in keys:
            digest = sha256(key.encode()).digest()
            self._tenants.setdefault(digest[:8], []).append((digest, tenant))

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Keys as settings write them: `acme=key1,acme=key2,*=key3`; a tenant may have several, `*` is an operator.

        Raises:
            SettingsError: says which entry is wrong, by its place; never with a key in it.
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
        """Who sent this; else HTTPUnauthorized, saying what to do."""
        if not self._tenants:
            if not _is_neighbour(request):
                raise _unauthorized(_NO_KEYS)
            return Caller(None)
        key = _presented(request.headers)
        if key is None:
            raise _unauthorized(_ASK)
        return self._whose(key)

    def _whose(self, key: str) -> Caller:
        """By the first bytes of its hash, then in constant time: how long it takes tells nothing about any key."""
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        for known, tenant in self._tenants.get(digest[:8], ()):
            if hmac.compare_digest(known, digest):
                return Caller(tenant)
        raise _unauthorized("this API key is not known here; " + _ASK)


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
        said = exc.errors(include_input=False)[0]["msg"]
        raise SettingsError(f"CONCORD_API_KEYS: the tenant of entry {number}: {said}") from None


def _presented(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("X-API-Key", "").strip() or None


def _unauthorized(detail: str) -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(text=detail, headers={"WWW-Authenticate": 'Bearer realm="concord"'})


def _is_neighbour(request: web.Request) -> bool:
    """Whether a program on this machine asks for it: no proxy's guest, no web page whose name was rebound to it."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(peer, tuple) or not _is_loopback(str(peer[0])):
        return False
    if any(name in request.headers for name in _PROXIED):
        return False
    host = request.url.host or ""
    return "Host" not in request.headers or host == "localhost" or _is_address(host)


def _is_loopback(address: str) -> bool:
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_loopback


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
