"""Parses the Retry-After header of HTTP (RFC 9110, 10.2.3), including malformed values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: Longest pause that is taken from a header, in seconds.
LONGEST_S: Final = 3600.0


def seconds_of(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or a date; None if the header is missing or malformed.

    A date is compared with the response's own Date header, because the server's clock may differ from ours.
    """
    text = headers.get("Retry-After")
    try:
        seconds = float(text or "")
    except ValueError:
        until = _moment(text)
        if until is None:
            return None
        seconds = (until - (_moment(headers.get("Date")) or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_S) if math.isfinite(seconds) else None


def _moment(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
