"""What `concord doctor` finds out about the fleet's parts: which of them fail again and again, where and of what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.commands import reach
from agents.commands.checks.finding import Finding
from schemas.errors import ConcordError

if TYPE_CHECKING:
    from agents.fleet.settings import Settings
    from schemas.operations import AppFailure

#: Seconds after which what a worker said of itself is of no interest any more.
OLD_S = 600.0


async def apps(settings: Settings) -> list[Finding]:
    if settings.database_url is None:
        return []
    try:
        async with reach.operations(settings) as operations:
            failures = [failure for failure in await operations.failures() if failure.seen_s < OLD_S]
    except ConcordError:  # another check says what is wrong with the database
        return []
    if not failures:
        return [Finding("parts of workers", "ok", "none says that it fails again and again")]
    return [_finding(failure) for failure in failures]


def _finding(failure: AppFailure) -> Finding:
    where = f" at {', '.join(failure.places)}" if failure.places else ""
    said = f"failed {failure.failures} times{where}: {failure.error} (said {failure.seen_s:.0f} s ago)"
    advice = "look at the worker's log"
    if failure.places:
        place = " ".join(failure.places[0].rsplit("/", 2))
        advice += f"; if it is that record, `concord skip {place}` leads past it"
    return Finding(f"{failure.app} of {failure.worker}", "fail", said, advice)
