"""Whether a request comes from a program on the same machine, which an installation without API keys trusts."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from yarl import URL

if TYPE_CHECKING:
    from aiohttp import web

#: Headers that a reverse proxy adds. A proxy on this machine makes every remote client look local.
_PROXY_HEADERS: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")


def is_local_client(request: web.Request) -> bool:
    """Whether the peer has a loopback address, no proxy forwarded the request, and its Host header is localhost or an
    address: any other host may be a web page's own name that was rebound to this machine. A page of another origin in
    a browser on this machine is no local program either: browsers send its uploads without asking first.
    """
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(peer, tuple) or not _is_loopback(str(peer[0])):
        return False
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("Host"):
        return False
    return "Host" not in request.headers or _is_own_name(request.host)


@lru_cache(maxsize=256)  # to read the two addresses of each request anew took a tenth of its CPU time
def _is_loopback(address: str) -> bool:
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_loopback


@lru_cache(maxsize=256)
def _is_own_name(authority: str) -> bool:
    try:
        host = URL.build(scheme="http", authority=authority).host or ""
        if host != "localhost":
            ip_address(host)
    except ValueError:
        return False
    return True
