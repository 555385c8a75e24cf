"""Rules, without I/O, for the URLs that tenants name and the addresses that may be connected to.

A URL is parsed only once, by yarl, whose parser aiohttp uses, too: a second parser might find another host in it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from yarl import URL

from schemas.errors import RefusedLocation

#: Ports of other protocols, which browsers refuse, too (Fetch standard, "bad port"): an HTTP request may be executed as
#: commands there.
_OTHER_PROTOCOLS: Final = frozenset(
    {
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
        *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526),
        *(530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659),
        *(4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    }
)

#: IPv4 networks without public servers: IANA's special-purpose registry, multicast, and Azure's metadata server. Listed
#: here, because the lists in `ipaddress` differ between patch releases of Python.
_SPECIAL_4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
        "192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 "
        "198.51.100.0/24 203.0.113.0/24 224.0.0.0/3"
    ).split()
)

#: The IPv6 network that is allocated for the Internet, and networks in it without public servers: protocol assignments
#: (with Teredo, which embeds IPv4 addresses), documentation, 6to4 (which embeds IPv4 addresses, too).
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_SPECIAL_6: Final = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

#: IPv6 networks whose addresses stand for the IPv4 address in their last 32 bits: mapped addresses, and NAT64, through
#: which IPv6-only networks reach all of IPv4.
_STAND_FOR_4: Final = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))

#: The third quarter of an ISATAP address. The last quarter is an IPv4 address.
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
#: A host whose last label looks like this is an IPv4 address for some systems, in one of the old notations.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Bytes of a host name.
_NAME_LIMIT: Final = 253
_ENTRY = re.compile(r"(?P<host>\[[^\[\]@/]+\]|[^\[\]@/:?#\s]+)(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Hosts that the operator allows although they are not public or use plain HTTP."""

    #: Hosts as `host_of` returns them, each with a port, or None for every port.
    entries: frozenset[tuple[str, int | None]]

    @classmethod
    def of(cls, entries: Iterable[str]) -> AllowedHosts:
        """From texts `host` or `host:port`. Raises ValueError for other texts."""
        return cls(frozenset(map(_entry, entries)))

    def allow(self, url: URL) -> bool:
        """Whether the URL's host is allowed, with every port or with the URL's."""
        host = host_of(url)
        return (host, None) in self.entries or (host, url.port) in self.entries


def _entry(text: str) -> tuple[str, int | None]:
    match = _ENTRY.fullmatch(text)
    try:
        url = URL(f"https://{text}/") if match else None
        if url is None or url.port == 0:
            raise ValueError
        return _checked_host(url), url.explicit_port
    except (ValueError, RefusedLocation):
        raise ValueError(f"{text!r} is no host: write host or host:port, an IPv6 address as [address]:port") from None


def web_url(text: str, base: URL | None = None, *, field: str = "audio_uri") -> URL:
    """A valid HTTP or HTTPS URL, from the field that errors name. With `base`, the target of a redirect, which may be
    relative.

    Raises:
        RefusedLocation: Another scheme, no host, a host that is neither a name nor an address in its standard notation,
            or a user name.
    """
    try:
        text.encode()  # yarl leaves lone surrogates out
        if any(character < " " or character == "\x7f" for character in text):
            raise ValueError("it contains control characters")
        url = URL(text.strip(" "))
        url = base.join(url) if base is not None else url
        if url.scheme not in ("http", "https"):
            raise ValueError("it must begin with https://")
        if url.raw_user is not None or url.raw_password is not None:
            raise ValueError("it contains a user name or a password, and URLs are kept and shown; use a signed URL")
        _checked_host(url)
    except ValueError as exc:
        raise RefusedLocation(f"{field}: this URL cannot be used: {_printable(str(exc))}") from None
    return url


def check_reachable(url: URL, allowed: AllowedHosts, *, field: str) -> None:
    """Check that requests may be sent to this URL, from the field that errors name: over HTTPS, to a port that is not
    another protocol's, or to an allowed host. Its addresses are checked where a socket is made.

    Raises:
        RefusedLocation: They may not.
    """
    if allowed.allow(url):
        return
    if url.scheme != "https":
        raise RefusedLocation(f"{field}: it must begin with https://, unless an operator allows its host")
    if url.port in _OTHER_PROTOCOLS:
        raise RefusedLocation(f"{field}: no request is sent to port {url.port}, which is another protocol's")


def host_of(url: URL) -> str:
    """The host in a normal form for comparisons: IDNA, lower case, no dot at its end."""
    return (url.raw_host or "").rstrip(".").lower()


def _checked_host(url: URL) -> str:
    """The host, as `host_of` returns it. Raises ValueError if it is no valid host.

    `url.raw_host` is the text that will be resolved. IPv4 addresses must be in dotted decimal notation: some systems
    take `0177.0.0.1`, `127.1` and `2130706433` for this machine.
    """
    raw, host = url.raw_host or "", host_of(url)
    if not host:
        raise ValueError("it names no host")
    if ":" in raw:
        if not raw.isascii() or "%" in raw:
            raise ValueError("an IPv6 address in it has a zone, or is none")
        return str(ipaddress.IPv6Address(raw))
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return str(ipaddress.IPv4Address(raw))
    if len(host) > _NAME_LIMIT or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("its host is no host name")
    return host


def is_public(address: str) -> bool:
    """Whether this address, in its standard notation, is one of the public Internet: not private, local, multicast,
    reserved, or a tunnel's. An IPv4 address that is embedded in an IPv6 address must be public, too.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return _is_public_4(ip) if isinstance(ip, ipaddress.IPv4Address) else _is_public_6(ip)


def _is_public_4(ip: ipaddress.IPv4Address) -> bool:
    return not any(ip in network for network in _SPECIAL_4)


def _is_public_6(ip: ipaddress.IPv6Address) -> bool:
    embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if any(ip in network for network in _STAND_FOR_4):
        return _is_public_4(embedded)
    if ip.scope_id is not None or ip not in _PUBLIC_6 or any(ip in network for network in _SPECIAL_6):
        return False
    return int(ip) >> 32 & 0xFFFFFFFF not in _ISATAP or _is_public_4(embedded)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:200]
