"""Does what is due, a claim at a time, for as long as a worker runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from schemas.errors import Unavailable


async def poll_claims(
    claim: Callable[[], Awaitable[bool]], interval_s: float, log: logging.Logger, what: str
) -> NoReturn:
    """Call `claim` until it finds nothing due, again after `interval_s` seconds, and so on until cancelled.

    While the database is away (`claim` raises Unavailable), `what` waits, which is logged for debugging only.
    """
    while True:
        try:
            while await claim():
                pass
        except Unavailable as exc:
            log.debug("%s: %s", what, exc)
        await asyncio.sleep(interval_s)
