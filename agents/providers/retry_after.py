"""What a Retry-After header asks for (RFC 9110, 10.2.3), however strange it is."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: Longest pause, in seconds, that is taken from one.
LONGEST_S: Final = 3600.0


def seconds_of(text: str | None) -> float | None:
    """Seconds, from a number or a date; None if it does not say."""
    try:
        seconds = float(text or "")
    except ValueError:
        try:
            then = parsedate_to_datetime(text or "")
            seconds = ((then if then.tzinfo else then.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_S) if math.isfinite(seconds) else None
