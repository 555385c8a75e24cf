"""One event about a request to a recognizer, and the outcomes that its handling can have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from agents.asr.protocols import Request, audio_used
from agents.media.stored_audio import FLAC
from agents.runtime.stage import backoff_s, belonging
from schemas import ids, topics
from schemas.envelope import Envelope
from schemas.errors import NotAccepted, Transient
from schemas.events.asr import AsrRequest
from schemas.events.job import StepState
from schemas.jobs.outcome import Later, Outcome, Progress, RequestChange
from schemas.jobs.rows import ProviderRequest, answer_columns, used
from schemas.words import Hypothesis
from sinks.ports.providers.requests import Requests

#: Seconds for which an event waits for local work or an upload, and until the next event about it.
WAIT_S, POLL_S = 2.0, 1.0

#: Seconds after which the event of a queued request is delivered even if no slot was granted.
QUEUED_S = 3600.0


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """An event about one request: it starts the request, or continues it."""

    envelope: Envelope
    data: AsrRequest

    @property
    def run(self) -> tuple[str, str, int]:
        """Tenant, job and run of the request."""
        return self.data.tenant_id, self.data.job_id, self.data.run

    @property
    def attempt(self) -> int:
        """How many attempts have failed before this event."""
        return self.envelope.attempt

    def task_key(self, kind: str) -> str:
        """The key of the request's task of this kind, among leased tasks."""
        return ids.task_key(kind, *self.run, self.data.provider)

    async def row(self, requests: Requests) -> ProviderRequest | None:
        """The request's row, or None if its run does not have it. Raises `Unavailable`."""
        rows = await requests.requests(*self.run)
        return next((row for row in rows if row.provider == self.data.provider), None)

    def at(self, moment: datetime | None) -> RequestEvent:
        """The event, with the time that is reserved for its call."""
        return replace(self, data=self.data.model_copy(update={"moment": moment}))

    def request(self, row: ProviderRequest) -> Request:
        """The request as its recognizer takes it."""
        return Request(
            tenant_id=self.data.tenant_id,
            job_id=self.data.job_id,
            run=self.data.run,
            marker=row.marker,
            language=self.data.language,
            diarize=self.data.options.diarize,
            speakers=self.data.options.speakers,
            redact_pii=bool(self.data.options.redact_pii),
            content_type=FLAC if self.data.transcode else self.data.content_type,
            duration_ms=self.data.duration_ms,
            audio_url=row.audio_url,
            since=row.audio_at,
        )

    def change(self, token: int | None, **columns: object) -> RequestChange:
        """A change of the request's row by the claim with this token."""
        return RequestChange(run=self.data.run, provider=self.data.provider, token=token, columns=columns)

    def progress(self, state: StepState) -> Progress:
        """A change of the step that the job's status shows for this recognizer."""
        return Progress(run=self.data.run, stage=f"transcribe.{self.data.provider}", step=state)

    def continues(
        self, seconds: float, *, attempt: int = 0, share: float | None = None, change: RequestChange | None = None
    ) -> Outcome:
        """The request continues with an event after so many seconds. `share` is its progress, 0 to 1, to be shown;
        `change` is made to its row.
        """
        topic = topics.requests(self.data.provider).name
        poll = Later(topic, self.data, seconds=seconds, kind=topics.REQUEST_TYPE, index="poll", attempt=attempt)
        progress = None
        if share is not None:
            progress = self.progress(StepState(state="running", progress=round(share, 2)))
        return Outcome(**belonging(self.envelope), progress=progress, request=change, later=(poll,), audit="")

    def queued(self, seconds: float, *, attempt: int = 0) -> Outcome:
        """The request waits until a slot, or the recognizer's model, is free; it is looked at again by then."""
        later = self.continues(seconds, attempt=attempt)
        return replace(later, progress=self.progress(StepState(state="queued", attempts=attempt)))

    def retries(self, exc: Transient, *, shown: bool = True) -> Outcome:
        """The provider is away or asks for a pause. Only the run's deadline limits such attempts, however long the
        outage, because the request may be billed already. `shown`: in the job's status and the audit log.
        """
        attempt = self.attempt + 1
        later = self.continues(backoff_s(self.attempt, exc.retry_after), attempt=attempt)
        return self._retrying(later, exc, attempt) if shown else later

    def put_off(self, exc: NotAccepted) -> Outcome:
        """Work that ended because of a pause or without a connection. It is not counted as an attempt: what was refused
        or not sent is not billed.
        """
        later = self.continues(backoff_s(0, exc.retry_after), attempt=self.attempt)
        return self._retrying(later, exc, self.attempt + 1)

    def _retrying(self, later: Outcome, exc: Transient, attempts: int) -> Outcome:
        state = StepState(state="retrying", attempts=attempts, error=str(exc))
        return replace(later, progress=self.progress(state), audit="retried", error=str(exc))

    def held(self, seconds: float, *, counted: bool) -> Outcome:
        """The request waits for the recording's language, which another recognizer is to tell; `counted` if the seconds
        count towards the longest wait.
        """
        data = self.data.model_copy(update={"held_s": self.data.held_s + seconds * counted})
        later = replace(self, data=data).continues(seconds)
        if self.data.held_s:
            return later
        note = "it hears one language only, and waits until another recognizer has told the recording's"
        return replace(later, progress=self.progress(StepState(state="waiting", notes=(note,))))

    def submitted(self, token: int, provider_id: str) -> Outcome:
        """The provider has the request under this id. Needs no query: if PostgreSQL is away, the outcome waits for it,
        and the id is not lost.
        """
        return Outcome(
            **belonging(self.envelope),
            request=self.change(token, state="submitted", provider_id=provider_id, error=None),
            progress=self.progress(StepState(state="running", attempts=self.attempt + 1)),
            later=self.continues(POLL_S).later,
            audit="started",
        )

    def parked(self, row: ProviderRequest, reason: str, seconds: float) -> Outcome:
        """The request is not made again, because it may have been accepted. Its search is repeated after so many
        seconds, in case the provider's list allows an answer then.
        """
        error = f"may have been accepted, and is not asked again (see `concord requests`): {reason}"
        return replace(
            self.continues(seconds, attempt=self.attempt + 1),
            request=self.change(row.token, state="parked", error=error),
            progress=self.progress(StepState(state="waiting", error=error)),
            audit="" if row.state == "parked" else "retried",
            error=error,
        )

    def answered(self, token: int, hypothesis: Hypothesis, uri: str) -> Outcome:
        """The recognizer has transcribed the recording; the hypothesis is stored at `uri`."""
        length_ms = hypothesis.duration_ms or self.data.duration_ms or 0
        return Outcome(
            tenant_id=self.data.tenant_id,
            job_id=self.data.job_id,
            request=self.change(token, **answer_columns(hypothesis, uri)),
            usage=used(self.data, self.data.provider, "whole", audio_used(hypothesis, length_ms / 1000)),
        )
