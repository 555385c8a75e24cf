"""What a Retry-After header asks for (RFC 9110, 10.2.3), however strange it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: Longest pause, in seconds, that is taken from one.
LONGEST_S: Final = 3600.0


def seconds_of(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or a date; None if it does not say.

    A date is meant by the clock that wrote the answer's own Date, which need not be ours.
    """
    text = headers.get("Retry-After")
    try:
        seconds = float(text or "")
    except ValueError:
        then = _moment(text)
        if then is None:
            return None
        seconds = (then - (_moment(headers.get("Date")) or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_S) if math.isfinite(seconds) else None


def _moment(text: str | None) -> datetime | None:
    try:
        then = parsedate_to_datetime(text or "")
    except (ValueError, TypeError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)
