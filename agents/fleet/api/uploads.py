"""What the HTTP service of a worker needs to take in recordings, and to begin and end runs."""

from __future__ import annotations

import contextlib

from agents.fleet.fleet import Fleet
from agents.fleet.resources import StageResources
from agents.fleet.settings import Settings
from agents.runtime.backpressure import Backpressure
from agents.runtime.failpoints import passing
from agents.stages.uploads.received import AT_ONCE, ReceivedUploads
from agents.stages.uploads.runs import Runs
from sinks.fair_slots import FairSlots
from web.connections.bounds import Bounds
from web.connections.caller_limit import CallerLimit
from web.resources.jobs.details import JobControl
from web.resources.uploads.direct import DirectAudio
from web.resources.uploads.process import ProcessAudio
from web.resources.uploads.storage_info import StorageInfo, StorageInformation
from web.route import Resource


def upload_resources(fleet: Fleet, bounds: Bounds, stack: contextlib.AsyncExitStack) -> list[Resource]:
    """The resources of uploads and of jobs' runs. `stack` closes what they need."""
    settings = fleet.settings
    resources = StageResources("http", fleet, Backpressure(), stack)
    slots: FairSlots[str] = FairSlots(AT_ONCE, AT_ONCE - 1)
    runs = Runs.installed(resources)
    received = ReceivedUploads(fleet.database, resources.audio_source(), runs, fleet.accounts, slots)

    async def limit(tenant: str) -> int:
        own = await fleet.accounts.settings_of(tenant)
        return (own.max_upload_mb or settings.max_upload_mb) << 20

    at_once = CallerLimit("uploads", bounds.uploads)
    return [
        ProcessAudio(received, fleet.store, limit, at_once, passing),
        DirectAudio(fleet.database, received, fleet.store, at_once, settings.max_audio_mb << 20, settings.public_url),
        StorageInformation(_storage_info(settings, received), limit),
        JobControl(fleet.reader, fleet.database, received),
    ]


def _storage_info(settings: Settings, received: ReceivedUploads) -> StorageInfo:
    retention = {
        "files": settings.retention_files_days,
        "completed": settings.retention_completed_days,
        "failed": settings.retention_failed_days,
        "audit": settings.audit_days,
    }
    return StorageInfo(
        backend="s3" if settings.s3_bucket else "local",
        fallback=settings.storage_fallback is not None,
        max_upload_bytes=settings.max_upload_mb << 20,
        max_direct_upload_bytes=settings.max_audio_mb << 20,
        max_duration_s=int(settings.max_audio_hours * 3600),
        formats=received.formats,
        retention_days={name: days for name, days in retention.items() if days is not None},
    )
