"""The result of one check of `concord doctor`, and the limits that its checks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Timeout of one connection, in seconds.
CONNECT_S = 5.0

#: Seconds by which this machine's clock may differ from a server's without a warning.
CLOCK_S = 2.0

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    level: Level
    result: str
    #: What to do about it; empty where nothing is to be done.
    advice: str = ""


def stale(finding: Finding) -> Finding:
    """The finding about an embedded server that has ended: only a warning, because the next start brings it back."""
    result = f"{finding.result} (an earlier `concord up` left this address)"
    return Finding(finding.subject, "warn", result, "start `concord up` again")
