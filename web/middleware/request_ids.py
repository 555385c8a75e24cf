"""The id of a request, which its answer repeats."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import web

HEADER: Final = "X-Request-Id"

#: An id that a client or proxy may bring along: safe in headers, logs and pages.
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")


def request_id(request: web.Request) -> str:
    """The id that the request brings along, or a new one. It is no secret, and need not cost a system call."""
    brought = request.headers.get(HEADER)
    if brought and _SANE.fullmatch(brought):
        return brought
    return f"{random.getrandbits(128):032x}"
