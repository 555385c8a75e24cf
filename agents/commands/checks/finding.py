"""What one check of `concord doctor` found, and what all of its checks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Seconds that one connection may take.
CONNECT_S = 5.0

#: Seconds by which our clock may differ from a server's before it is worth a word.
CLOCK_S = 2.0

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    level: Level
    said: str
    #: What to do about it.
    advice: str = ""


def stale(finding: Finding) -> Finding:
    """An embedded server that is not there any more is no fault: the next start brings it back."""
    return Finding(
        finding.what, "warn", f"{finding.said} (an earlier `concord up` left this address)", "start `concord up` again"
    )
