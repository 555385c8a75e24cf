"""Tells a worker of every change of keys and settings, as PostgreSQL's triggers announce it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from schemas.errors import Unavailable
from sinks.postgres.connection.connect import connect
from sinks.postgres.connection.errors import AWAY

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: The channel of migration 0018.
CHANNEL: Final = "concord_accounts"

#: Seconds between two checks that the connection still lives, for each of them, and until the next try.
CHECK_S, ANSWER_S, AGAIN_S = 2.0, 2.0, 1.0

_GONE: Final[tuple[type[BaseException], ...]] = (Unavailable, *AWAY)


async def listen_for_changes(dsn: str, changed: Callable[[str | None], None]) -> None:
    """Call `changed` with each notice, and with None after each time without a connection, until cancelled."""
    while True:
        try:
            await _listen(dsn, changed)
        except _GONE as exc:
            log.debug("changes of keys and settings are not told at the moment: %s", exc)
        await asyncio.sleep(AGAIN_S)


async def _listen(dsn: str, changed: Callable[[str | None], None]) -> None:
    connection = await connect(dsn, {"role": "concord_worker", "application_name": "concord accounts"})
    try:
        await connection.add_listener(CHANNEL, lambda *event: changed(event[-1]))
        changed(None)
        while True:
            await asyncio.sleep(CHECK_S)
            await connection.execute("SELECT 1", timeout=ANSWER_S)
    finally:
        connection.terminate()
