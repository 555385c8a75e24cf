"""Checks which stages and other tasks of the fleet's workers fail repeatedly, at which positions, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.commands import reach
from agents.commands.checks.finding import Finding
from schemas.errors import ConcordError

if TYPE_CHECKING:
    from agents.fleet.settings import Settings
    from schemas.operations import AppFailure

#: Seconds after which a worker's report about itself is ignored.
OLD_S = 600.0


async def apps(settings: Settings) -> list[Finding]:
    """A finding for each task that some worker reports as failing repeatedly. Raises nothing."""
    if settings.database_url is None:
        return []
    try:
        async with reach.operations(settings) as operations:
            failures = [failure for failure in await operations.failures() if failure.seen_s < OLD_S]
    except ConcordError:  # the check of PostgreSQL reports what is wrong with the database
        return []
    if not failures:
        return [Finding("parts of workers", "ok", "none reports that it fails repeatedly")]
    return [_finding(failure) for failure in failures]


def _finding(failure: AppFailure) -> Finding:
    where = f" at {', '.join(failure.places)}" if failure.places else ""
    result = f"failed {failure.failures} times{where}: {failure.error} (reported {failure.seen_s:.0f} s ago)"
    advice = "look at the worker's log"
    if failure.places:
        position = " ".join(failure.places[0].rsplit("/", 2))
        advice += f"; if that record is the cause, `concord skip {position}` leads past it"
    return Finding(f"{failure.app} of {failure.worker}", "fail", result, advice)
