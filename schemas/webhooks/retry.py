"""When a delivery is tried again, and when its endpoint is paused. No I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.webhooks.rows import Attempt, DeliveryState, Endpoint

#: Seconds after each failed attempt until the next; after one more failure the delivery has failed. Together a day, so
#: that the last one of an endpoint that never answers also pauses it.
DELAYS_S: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 25_200.0, 34_200.0)

#: The largest share of a delay that is added to it, so that deliveries which failed together do not come together.
JITTER: Final = 0.1

#: For how long all attempts must have failed until the endpoint is paused.
PAUSE_AFTER: Final = timedelta(days=1)

GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an attempt."""

    state: DeliveryState
    #: Seconds until the next attempt.
    delay_s: float = 0.0
    #: Why the endpoint is paused; None if it is not.
    pause: str | None = None


def verdict(attempt: Attempt, failures: int, endpoint: Endpoint, now: datetime, retry_after: float | None) -> Verdict:
    """What follows from an attempt after so many failures, at an endpoint as it was before."""
    if attempt.is_success:
        return Verdict("delivered")
    pause = _pause(attempt, endpoint, now)
    if attempt.status == GONE:
        return Verdict("pending", 0.0, pause)  # it waits until the endpoint is switched on again
    if failures >= len(DELAYS_S):
        return Verdict("failed", 0.0, pause)
    delay = DELAYS_S[failures] * random.uniform(1.0, 1.0 + JITTER)  # noqa: S311 - jitter, not a secret
    return Verdict("pending", max(delay, retry_after or 0.0), pause)


def _pause(attempt: Attempt, endpoint: Endpoint, now: datetime) -> str | None:
    if endpoint.paused_at is not None:
        return None  # by another delivery that was under way; told once
    if attempt.status == GONE:
        return "it answered 410 Gone"
    if endpoint.failing_since is not None and now - endpoint.failing_since >= PAUSE_AFTER:
        return f"every attempt since {endpoint.failing_since:%Y-%m-%d %H:%M} UTC failed; the last time, {attempt.error}"
    return None
