"""Named places between two durable steps at which a test may kill the process, the way a power cut would.

Armed by `CONCORD_FAILPOINT=name[:n]` (the n-th time it is passed, 1 by default); `concord worker --help` does not
mention it.
"""

from __future__ import annotations

import os

#: Every failpoint there is, so that a test can go through all of them.
POINTS = (
    "intake.stored",
    "intake.before-commit",
    "intake.after-commit",
    "transcribe.uploaded",
    "transcribe.claimed",
    "transcribe.submitted",
    "transcribe.stored",
    "transcribe.before-commit",
    "transcribe.after-commit",
    "reconcile.judged",
    "reconcile.stored",
    "reconcile.before-commit",
    "reconcile.after-commit",
    "persist.half-stored",
    "persist.stored",
    "persist.before-commit",
    "persist.after-commit",
    "relay.claimed",
    "relay.sent",
    "relay.published",
    "relay.refused",
    "relay.job-ended",
    "relay.set-aside",
)

_armed: dict[str, int] = {}


def arm(text: str) -> None:
    """Arm one failpoint; an empty text arms none. Raises ValueError for a name that is not in `POINTS`."""
    if not text:
        return
    name, _, times = text.partition(":")
    if name not in POINTS:
        raise ValueError(f"no failpoint {name!r}; there are {', '.join(POINTS)}")
    _armed[name] = int(times or 1)


def passing(name: str) -> None:
    """Die here, without any clean-up, if armed."""
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0:
        os._exit(137)
