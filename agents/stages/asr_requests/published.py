"""Requests to recognizers outside of Concord that read Kafka: published through the outbox, and again if need be.

Nothing is sent from here, so that nothing can be lost or sent twice: the request's event is committed with its row. The
stage `hypotheses` ends the request with the answer; without one, the run's deadline does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol, cast

from agents.asr.protocols import PublishedRecognizer
from agents.asr.rate_limit import ProviderLimiter
from agents.media.stored_audio import FLAC, DecodedAudio
from agents.media.transcode import Transcoder
from agents.runtime.leased_tasks import LeasedTasks
from agents.stages.asr_requests.request_event import POLL_S, QUEUED_S, WAIT_S, RequestEvent
from schemas import blob_names, topics
from schemas.events.asr import RecognitionRequested
from schemas.events.job import StepState
from schemas.jobs.outcome import IGNORED, NOTHING, Later, Outcome
from schemas.jobs.rows import ProviderRequest, run_fields
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.providers.requests import Requests

#: Seconds for which a URL of the recording gives access, at least and at most (S3 allows no more).
URL_S, LONGEST_URL_S = 6 * 3600.0, 7 * 86_400.0

#: Seconds between two looks once a request is published as often as it may be: they only keep it alive.
LOOK_S: Final = 3600.0


class Database(Clock, Requests, Protocol):
    """What published requests ask of the database."""


@dataclass(frozen=True, slots=True)
class PublishedRequests:
    """The requests to one recognizer that reads Kafka."""

    recognizer: PublishedRecognizer
    database: Database
    store: Store
    tasks: LeasedTasks
    limiter: ProviderLimiter
    transcoder: Transcoder
    accounts: EffectiveSettings | None = None
    #: Seconds of the run's deadline for a recording without length, where its tenant has set none.
    deadline_s: float = 3600.0

    async def handle(self, event: RequestEvent) -> Outcome:
        """Publish the request, the first time or again. Raises `Unavailable`, `RefusedMedia` and `Transient`."""
        row = await event.row(self.database)
        if row is None or row.ended:
            return NOTHING if row else IGNORED
        if row.state == "waiting" and not await self.limiter.acquire_slot(*event.run):
            return event.queued(QUEUED_S)
        wait_s = await self._deadline_s(event)
        if event.data.published >= self.recognizer.attempts:
            return event.continues(LOOK_S)
        uri = await self._audio_uri(event)
        if uri is None:
            return event.continues(POLL_S, attempt=event.attempt)
        return await self._published(event, row, uri, wait_s)

    async def _deadline_s(self, event: RequestEvent) -> float:
        settings = await self.accounts.settings_of(event.data.tenant_id) if self.accounts else None
        deadline_s = (settings.deadline_s if settings else None) or self.deadline_s
        return deadline_s + (event.data.duration_ms or 0) / 2000

    async def _audio_uri(self, event: RequestEvent) -> str | None:
        """The stored recording; where others would decode it otherwise, a FLAC file of it, or None while it is made."""
        if not event.data.transcode:
            return event.data.audio_uri
        name = blob_names.decoded_audio(*event.run, restricted=bool(event.data.options.redact_pii))
        if await self.store.stat(self.store.uri(name)) is not None:
            return self.store.uri(name)

        async def decode(_: Callable[[float], None]) -> str:
            flac = DecodedAudio(self.store, event.data.audio_uri, self.transcoder).stream()
            return (await self.store.put(name, flac, FLAC)).uri

        return cast("str | None", await self.tasks.run(event.task_key("decode"), decode, WAIT_S, eager=True))

    async def _published(self, event: RequestEvent, row: ProviderRequest, uri: str, wait_s: float) -> Outcome:
        now = await self.database.now()
        answer_by = event.data.answer_by or now + timedelta(seconds=max(0.0, wait_s - event.data.held_s))
        count = event.data.published + 1
        url_s = min(max(URL_S, wait_s), LONGEST_URL_S)
        url = await self.store.presigned_url(uri, int(url_s))
        expires_at = now + timedelta(seconds=url_s) if url else None
        request = self._request(event, row, url or uri, expires_at, answer_by, count)
        data = event.data.model_copy(update={"published": count, "answer_by": answer_by})
        outcome = replace(event, data=data).continues(wait_s / self.recognizer.attempts)
        publish = Later(self.recognizer.topic.name, request, kind=topics.REQUESTED_TYPE)
        outcome = replace(outcome, later=(publish, *outcome.later))
        if row.state == "submitted":
            return outcome
        return replace(
            outcome,
            request=event.change(row.token, state="submitted", provider_id=row.marker, error=None),
            progress=event.progress(StepState(state="running", attempts=event.attempt + 1)),
            audit="started",
        )

    def _request(
        self,
        event: RequestEvent,
        row: ProviderRequest,
        url: str,
        expires_at: datetime | None,
        answer_by: datetime,
        count: int,
    ) -> RecognitionRequested:
        return RecognitionRequested(
            **run_fields(event.data),
            recognizer=self.recognizer.name,
            marker=row.marker,
            audio_url=url,
            audio_expires_at=expires_at,
            content_type=FLAC if event.data.transcode else event.data.content_type,
            duration_ms=event.data.duration_ms,
            language=event.data.language,
            diarize=event.data.options.diarize,
            speakers=event.data.options.speakers,
            redact_pii=bool(event.data.options.redact_pii),
            answer_by=answer_by,
            attempt=count,
            attempts=self.recognizer.attempts,
        )
