"""`/jobs/{id}/metrics`: where the time of a job's run went, how good its recognizers were, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from schemas.events.base import Data
from web.live.job_lookup import find_job
from web.resources.jobs.selector import AMBIGUOUS, JobSelector
from web.resources.reports.costs import UsageRow, total, usage_row
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.events.job import StepState
    from schemas.jobs.rows import Job, ProviderRequest
    from sinks.ports.reading.reports import Measures, Reports, StepWork
    from sinks.ports.reads import Reads


class StepMetrics(Data):
    """One step of the run. Seconds: `elapsed` from its first event to its end, of which it worked `working` in all."""

    state: str
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_seconds: float | None
    working_seconds: float
    waiting_seconds: float | None = Field(description="for its events, other servers and its turn; at least 0")
    events: int
    retries: int


class RecognizerMetrics(Data):
    """One recognizer's request. Seconds: `queued` for a slot, `answering` from its submission to its result."""

    state: str
    queued_seconds: float | None
    answering_seconds: float | None
    words: int | None
    confidence: float | None
    coverage: float | None = Field(None, description="share of the transcript's words that it has, 0 to 1")
    agreement: float | None = Field(None, description="share of its words that are the transcript's, 0 to 1")
    error: str | None


class QualityMetrics(Data):
    """Estimates of the transcript's quality, made without a reference."""

    confidence: float | None = None
    agreement: float | None = None
    disputed_spans_per_1000_words: float | None = None
    expected_word_errors: float | None = None


class JobMetricsView(Data):
    """What is measured of a job's current run."""

    tenant_id: str
    job_id: str
    run: int
    status: str
    audio_seconds: float | None
    elapsed_seconds: float | None = Field(description="from its beginning to its end; null while it runs")
    real_time_factor: float | None = Field(description="elapsed seconds for each second of audio")
    steps: dict[str, StepMetrics]
    recognizers: dict[str, RecognizerMetrics]
    quality: QualityMetrics | None = Field(description="null without a transcript")
    usage: list[UsageRow]
    cost: float | None = Field(
        description="of what has a price, in the currency of CONCORD_PRICES; null if nothing has"
    )


_EXAMPLE: Final = {
    "tenant_id": "acme",
    "job_id": "4711ca11-0000-4000-8000-00000000000a",
    "run": 1,
    "status": "completed",
    "audio_seconds": 600.0,
    "elapsed_seconds": 66.0,
    "real_time_factor": 0.11,
    "steps": {
        "intake": {
            "state": "done",
            "attempts": 1,
            "started_at": "2026-05-01T12:00:00Z",
            "finished_at": "2026-05-01T12:00:01Z",
            "elapsed_seconds": 1.0,
            "working_seconds": 0.4,
            "waiting_seconds": 0.6,
            "events": 1,
            "retries": 0,
        }
    },
    "recognizers": {
        "assemblyai": {
            "state": "done",
            "queued_seconds": 0.1,
            "answering_seconds": 40.0,
            "words": 1500,
            "confidence": 0.94,
            "coverage": 0.98,
            "agreement": 0.97,
            "error": None,
        }
    },
    "quality": {
        "confidence": 0.95,
        "agreement": 0.92,
        "disputed_spans_per_1000_words": 21.0,
        "expected_word_errors": 70.0,
    },
    "usage": [{"provider": "assemblyai", "unit": "audio_seconds", "quantity": 600.0, "cost": 0.035}],
    "cost": 0.035,
}


class JobMetrics:
    """The metrics of a job. `prices` are by `provider:unit`."""

    def __init__(self, reads: Reads, reports: Reports, prices: Mapping[str, float]) -> None:
        self._reads, self._reports, self._prices = reads, reports, prices

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/metrics",
                operation_id="jobs_id_metrics",
                summary="Where the time of a job's run went, its quality, and its cost",
                handler=self.metrics,
                parameters=JobSelector,
                responses={
                    200: ResponseSpec("of the current run", JobMetricsView, _EXAMPLE),
                    409: ResponseSpec(AMBIGUOUS),
                },
            )
        ]

    async def metrics(self, request: ApiRequest[JobSelector, None]) -> JobMetricsView:
        """The metrics of the current run."""
        job = await find_job(self._reads, *request.parameters.scope(request.caller))
        return job_metrics(job, await self._reports.measures(*job.key, job.run), self._prices)


def job_metrics(job: Job, measures: Measures, prices: Mapping[str, float]) -> JobMetricsView:
    """The metrics of a job's current run."""
    work = {step.step: step for step in measures.work}
    usage = [usage_row(row, prices) for row in measures.usage]
    audio_s = job.duration_ms / 1000 if job.duration_ms else None
    elapsed_s = _seconds(_beginning(job), job.completed_at)
    recognizers: Mapping[str, Mapping[str, Any]] = measures.quality.get("recognizers") or {}
    return JobMetricsView(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        run=job.run,
        status=job.status,
        audio_seconds=audio_s,
        elapsed_seconds=elapsed_s,
        real_time_factor=round(elapsed_s / audio_s, 4) if elapsed_s is not None and audio_s else None,
        steps={name: _step(state, work.get(name)) for name, state in sorted(job.steps.items())},
        recognizers={
            row.provider: _recognizer(row, recognizers.get(row.provider, {})) for row in measures.provider_requests
        },
        quality=QualityMetrics(**_known(QualityMetrics, measures.quality)) if measures.quality else None,
        usage=usage,
        cost=total(usage),
    )


def _beginning(job: Job) -> datetime | None:
    """A later run begins with its first step, the first with the upload."""
    started = [state.started_at for state in job.steps.values() if state.started_at]
    return job.created_at if job.run == 1 else min(started, default=None)


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return round((until - since).total_seconds(), 3) if since and until else None


def _step(state: StepState, work: StepWork | None) -> StepMetrics:
    elapsed_s = _seconds(state.started_at, state.finished_at)
    working_s = round(work.working_ms / 1000, 3) if work else 0.0
    return StepMetrics(
        state=state.state,
        attempts=state.attempts,
        started_at=state.started_at,
        finished_at=state.finished_at,
        elapsed_seconds=elapsed_s,
        working_seconds=working_s,
        waiting_seconds=round(max(elapsed_s - working_s, 0.0), 3) if elapsed_s is not None else None,
        events=work.events if work else 0,
        retries=work.retries if work else 0,
    )


def _recognizer(row: ProviderRequest, quality: Mapping[str, Any]) -> RecognizerMetrics:
    return RecognizerMetrics(
        state=row.state,
        queued_seconds=_seconds(row.queued_at, row.admitted_at),
        answering_seconds=_seconds(row.submitted_at, row.finished_at),
        words=row.word_count,
        confidence=row.confidence,
        coverage=quality.get("coverage"),
        agreement=quality.get("agreement"),
        error=row.error,
    )


def _known(model: type[Data], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in model.model_fields if name in values}
