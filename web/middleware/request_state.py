"""What is known of a request while it is answered, by key of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from web.auth.caller import Caller


@dataclass(frozen=True, slots=True)
class Quota:
    """How many requests a key may send in a minute, how many are left, and the seconds until all are there again."""

    limit: int
    left: int
    reset_s: int


REQUEST_ID: Final = web.RequestKey("request_id", str)
#: Whose key it is, once that is known.
CALLER: Final = web.RequestKey("caller", Caller)
#: The id of the operation that is called.
OPERATION: Final = web.RequestKey("operation", str)
#: What is left of the caller's requests, if they are limited.
QUOTA: Final = web.RequestKey("quota", Quota)
#: Whether errors say `success: false` and `message`, too.
SAYS_SUCCESS: Final = web.RequestKey("says_success", bool)
