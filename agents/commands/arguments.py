"""What commands share of the command line: types, whose errors argparse turns into usage messages, and a question."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime


def positive(text: str) -> int:
    """An integer of at least 1. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def moment(text: str) -> datetime:
    """An ISO 8601 date, or date and time; in UTC unless it has an offset. Raises ArgumentTypeError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write it as 2026-11-01 or 2026-11-01T12:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def confirmed(question: str) -> bool:
    """Whether somebody at the terminal answers yes; False where nobody is there."""
    return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
