"""Recordings that are uploaded over HTTP: each becomes a stored recording, a job and its events in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

from agents.media.decoding.formats import TYPES
from agents.media.source.audio_source import AudioSource, Fetched
from agents.runtime.failpoints import passing
from agents.stages.uploads import jobs
from agents.stages.uploads.of_tenant import with_defaults
from agents.stages.uploads.runs import Runs
from agents.stages.uploads.waiting import begun, check_not_before
from agents.upkeep.cancelling import cancelled
from agents.upkeep.stuck_jobs import fetching
from schemas import ids, topics
from schemas.errors import Conflict, Contended, InvalidInput, Unavailable
from schemas.events.audio import AudioFetch, AudioUploaded
from schemas.events.job import JobReprocess
from schemas.ids import Key
from schemas.jobs.deletion import Deletion
from schemas.jobs.outcome import Later, Outcome, Step
from schemas.jobs.rows import Job
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.providers.requests import Requests
from sinks.ports.slots import Slots
from sinks.ports.steps import Steps
from sinks.ports.tenants import PerTenant
from sinks.ports.upkeep.blob_intents import BlobIntents

log = logging.getLogger(__name__)

#: Stage names of these steps, in the inbox and the audit log.
UPLOAD, REPROCESS = "upload", "reprocess"

#: Seconds for which a recording is held that is being stored, and between two renewals. What a killed worker leaves
#: behind is swept after that.
HOLD_S, RENEW_S = 20.0, 5.0

#: Recordings that are probed and stored at the same time. The prober takes three; each of the others is in memory with
#: a part of up to 8 MB on its way to S3.
AT_ONCE: Final = 6


class Database(Clock, Steps, Jobs, Requests, BlobIntents, Protocol):
    """The database for one tenant."""

    async def deletion(self, tenant_id: str, job_id: str) -> Deletion | None:
        """The newest deletion of a job with this id; None if none was deleted."""


@dataclass(frozen=True)
class ReceivedUploads:
    """What people do with jobs over HTTP: upload, cancel, reprocess. `author` is who does it."""

    databases: PerTenant[Database]
    audio_source: AudioSource
    #: Those of the installation; a tenant may have chosen others.
    runs: Runs
    accounts: EffectiveSettings
    #: Of recordings that are probed and stored, `AT_ONCE` of them.
    slots: Slots
    #: Formats that can be uploaded, for error texts.
    formats: tuple[str, ...] = tuple(sorted(TYPES))

    async def known(self, upload: AudioUploaded) -> Job | None:
        """The job that exists already for an upload with this id or reference; its options are checked.

        Raises:
            UnsupportedOption: An option would be ignored.
            InvalidInput: It is to wait for too long.
            Conflict: The id and the reference belong to two jobs.
        """
        upload = await with_defaults(upload, self.accounts, self.runs.enrichments)
        (await self._runs(upload.tenant_id)).check_options(upload.options, upload.language)
        if upload.not_before is not None:
            check_not_before(upload, await self._of(upload).now())
        job_id = _id_of(upload)
        candidates = await self._of(upload).named(upload.tenant_id, job_id, upload.reference)
        if upload.reference is not None and job_id == ids.job_of_reference(upload.tenant_id, upload.reference):
            upload = upload.model_copy(update={"job_id": None})  # derived: the job may have been given another
        try:
            return jobs.repeated_job(upload, job_id, candidates)
        except InvalidInput as exc:
            raise Conflict(str(exc)) from exc

    async def create(self, upload: AudioUploaded, recording: Path, author: str) -> tuple[Job, bool]:
        """Probe and store a recording and create its job, which is then on its way; and whether the job is new.

        Raises:
            RefusedMedia: The file cannot be transcribed.
            Conflict: Another recording is being uploaded for the same job.
            Unavailable: The database, the store or our own disk does not accept it now. Nothing is created.
        """
        try:
            return await self._create(upload, recording, author)
        except Contended:
            # The note of its blob is another's: of an upload that has become the job, or of one that is swept.
            job = await self.known(upload)
            if job is None:
                raise
            return job, False

    async def _create(self, upload: AudioUploaded, recording: Path, author: str) -> tuple[Job, bool]:
        upload = await with_defaults(upload, self.accounts, self.runs.enrichments)
        key = (upload.tenant_id, _id_of(upload))
        fetch = AudioFetch(
            tenant_id=key[0],
            job_id=key[1],
            run=await self._first_run(key),
            audio_uri=upload.audio_uri,
            filename=upload.filename,
            content_type=upload.content_type,
            restricted=bool(upload.options.redact_pii),
        )
        async with self.slots.held(upload.tenant_id), _held(self._of(upload), key) as held:
            try:
                fetched = await self.audio_source.keep(fetch, recording, held.begin)
            except OSError as exc:
                raise Unavailable(f"the recording cannot be kept now: {exc}") from exc
            passing("upload.stored")
            if fetched is None:
                return await self._other_upload(upload), False
            upload = upload.model_copy(update={"audio_uri": fetched.blob.uri, "job_id": key[1]})
            return await self._commit(upload, await self._first(upload, fetched, fetch.run), fetched.blob.uri, author)

    async def create_from_store(self, upload: AudioUploaded, author: str) -> tuple[Job, bool]:
        """Create the job of a recording that lies at `upload.audio_uri` in the store, where it is held; and whether the
        job is new. The recording is probed when the job's turn comes.

        Raises:
            Contended: The recording is held no more.
            Unavailable: The database does not answer.
        """
        job_id = _id_of(upload)
        run = await self._first_run((upload.tenant_id, job_id))
        job = jobs.new_job(await with_defaults(upload, self.accounts, self.runs.enrichments), job_id, None, run)
        outcome = Outcome(tenant_id=job.tenant_id, job_id=job.job_id, create=job, later=(fetching(job),))
        outcome = await self._begun(outcome)
        return await self._commit(upload.model_copy(update={"job_id": job.job_id}), outcome, upload.audio_uri, author)

    async def reprocess(self, job: Job, wanted: JobReprocess, author: str) -> Job:
        """Begin the next run of a job.

        Raises:
            Conflict: The job's run has not ended, or there is nothing to begin from.
            InvalidInput: A recognizer is not configured, or an option is not supported by those that are.
        """
        database = self.databases.acting_as(job.tenant_id)
        if not job.ended:
            raise Conflict(f"the job is {job.status}: wait for the end of its run, or cancel it")
        runs = await self._runs(job.tenant_id)
        outcome = runs.next(job, wanted, await jobs.earlier_requests(database, job))
        outcome = replace(await self._begun(outcome, wanted), remembered=False, author=author)
        [written] = await database.commit([Step(REPROCESS, uuid4(), outcome)])
        passing("reprocess.committed")
        if written is None or not written.applied:
            raise Conflict("another run of this job has begun at the same moment")
        return await self._existing(*job.key)

    async def cancel(self, job: Job, reason: str, author: str) -> Job:
        """End a job's run.

        Raises:
            Conflict: The run has ended already.
        """
        step = cancelled(job, reason)
        step = replace(step, outcome=replace(step.outcome, author=author))
        [written] = [None] if job.ended else await self.databases.acting_as(job.tenant_id).commit([step])
        passing("cancel.committed")
        job = await self._existing(*job.key)
        if written is None or not written.applied:
            raise Conflict(f"there is nothing to cancel: the job is {job.status}")
        return job

    def _of(self, upload: AudioUploaded) -> Database:
        return self.databases.acting_as(upload.tenant_id)

    async def _runs(self, tenant_id: str) -> Runs:
        return self.runs.of_tenant(await self.accounts.settings_of(tenant_id))

    async def _first_run(self, key: Key) -> int:
        return jobs.first_run(await self.databases.acting_as(key[0]).deletion(*key))

    async def _first(self, upload: AudioUploaded, fetched: Fetched, run: int) -> Outcome:
        runs = await self._runs(upload.tenant_id)
        return await self._begun(runs.first(upload, _id_of(upload), fetched, run))

    async def _begun(self, run: Outcome, wanted: JobReprocess | None = None) -> Outcome:
        tenant = run.tenant_id or ""
        is_limited = (await self._runs(tenant)).is_limited
        return await begun(run, self.databases.acting_as(tenant), is_limited=is_limited, wanted=wanted)

    async def _commit(self, upload: AudioUploaded, outcome: Outcome, uri: str, author: str) -> tuple[Job, bool]:
        """Create the job, and announce its upload to whoever listens."""
        announcement = Later(topics.UPLOADED.name, upload)
        outcome = replace(outcome, later=(announcement, *outcome.later), remembered=False, author=author)
        [written] = await self._of(upload).commit([Step(UPLOAD, uuid4(), outcome)], held=uri)
        passing("upload.committed")
        if written is not None and written.applied:
            return await self._existing(upload.tenant_id, _id_of(upload)), True
        return await self._other_upload(upload), False

    async def _other_upload(self, upload: AudioUploaded) -> Job:
        """The job that another upload with the same id or reference has created meanwhile."""
        job = await self.known(upload)
        if job is None:
            raise Conflict("another recording was being uploaded for the same job; if it was not yours, send it again")
        return job

    async def _existing(self, tenant_id: str, job_id: str) -> Job:
        return await jobs.existing_job(self.databases.acting_as(tenant_id), tenant_id, job_id)


def _id_of(upload: AudioUploaded) -> str:
    """The id of the upload's job, which was chosen when the request began.

    Raises:
        ValueError: It has none.
    """
    if upload.job_id is None:
        raise ValueError("an upload over HTTP has an id")
    return upload.job_id


@dataclass
class _Holding:
    """The blobs that one upload holds while it is stored."""

    database: Database
    key: Key
    uris: set[str] = field(default_factory=set)

    async def begin(self, _: Key, uri: str) -> None:
        """Hold a blob that is about to be written."""
        await self.database.hold_blob(self.key, uri, HOLD_S)
        self.uris.add(uri)
        passing("upload.held")

    async def renew(self) -> None:
        """Hold them for as long as this runs."""
        while True:
            await asyncio.sleep(RENEW_S)
            for uri in self.uris:
                with contextlib.suppress(Unavailable):  # the commit tells whether it is held
                    await self.database.hold_blob(self.key, uri, HOLD_S)


@contextlib.asynccontextmanager
async def _held(database: Database, key: Key) -> AsyncIterator[_Holding]:
    holding = _Holding(database, key)
    renewing = asyncio.create_task(holding.renew(), name="holding an upload")
    try:
        yield holding
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
