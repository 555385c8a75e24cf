"""The worker's part of schedules: carrying them out, in the role that looks after the fleet."""

from __future__ import annotations

import contextlib

from agents.fleet.fleet import Fleet
from agents.reports.delivery import Delivery
from agents.reports.overview_mail import OverviewMails
from agents.reports.rendering import Renderer
from agents.runtime.failpoints import passing
from agents.upkeep.scheduler import Scheduler
from sinks.postgres.reading.overviews import PostgresOverviews


def scheduler(fleet: Fleet, stack: contextlib.AsyncExitStack) -> Scheduler:
    """What carries schedules out."""
    return Scheduler(fleet.database, fleet.reader, fleet.settings.kinds, _overviews(fleet, stack), passing)


def _overviews(fleet: Fleet, stack: contextlib.AsyncExitStack) -> OverviewMails | None:
    service = fleet.settings.mail_service(fleet.settings.public_url)
    if service is None:
        return None
    renderer = Renderer()
    stack.push_async_callback(renderer.close)
    return OverviewMails(
        fleet.database,
        fleet.reader,
        PostgresOverviews(fleet.reader),
        fleet.store,
        renderer,
        Delivery(fleet.database, service.server, service.sender, service.domains),
        service.public_url,
    )
