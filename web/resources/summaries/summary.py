"""`/jobs/{id}/summary`: what a call is about, each line with the words on which it rests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from schemas.errors import NotFound
from schemas.summaries import Coverage, Statement, Summary
from web.resources.jobs.selector import AMBIGUOUS
from web.resources.jobs.transcripts import TranscriptParameters, find_transcript
from web.resources.summaries.reading import summary_of
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from schemas.jobs.rows import Job, Transcript
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads


class SummaryView(Summary):
    """The summary of a run's transcript."""

    tenant_id: str
    job_id: str
    run: int
    out_of_date: bool = Field(description="The transcript was edited since; it is being made again.")


_EXAMPLE: Final[Any] = SummaryView(
    tenant_id="acme",
    job_id="4711ca11-0000-4000-8000-00000000000a",
    run=1,
    out_of_date=False,
    kind="summary",
    template="default/v1",
    model="openai/gpt-5-mini",
    transcript_version=1,
    topic="A debt of forty dollars",
    sentiment="neutral",
    key_points=(
        Statement(
            text="Acme wants forty dollars.",
            words=("w6", "w7", "w8"),
            quote="You owe us",
            speaker="A",
            start_ms=2400,
            end_ms=3150,
        ),
    ),
    coverage=Coverage(words=34, words_read=34, parts=1),
).model_dump(mode="json")


class JobSummary:
    """The summary of a job."""

    def __init__(self, reads: Reads, store: Store) -> None:
        self._reads, self._store = reads, store

    def routes(self) -> list[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/jobs/{id}/summary",
                operation_id="jobs_id_summary",
                summary="What a call is about: key points, action items, decisions, who and what was named",
                handler=self.summary,
                parameters=TranscriptParameters,
                responses={
                    200: ResponseSpec("each item with the ids of the words on which it rests", SummaryView, _EXAMPLE),
                    409: ResponseSpec(AMBIGUOUS),
                },
            )
        ]

    async def summary(self, request: ApiRequest[TranscriptParameters, None]) -> SummaryView:
        """The newest summary of the run."""
        transcript = await find_transcript(self._reads, request)
        summary = await summary_of(self._reads, self._store, transcript)
        if summary is None:
            job = await self._reads.job(transcript.tenant_id, transcript.job_id)
            raise NotFound(no_summary(job, transcript))
        names = {name: getattr(transcript, name) for name in ("tenant_id", "job_id", "run")}
        is_old = summary.transcript_version < transcript.version
        return SummaryView(**dict(summary), **names, out_of_date=is_old)


def no_summary(job: Job | None, transcript: Transcript) -> str:
    """Why a transcript has no summary."""
    state = job.enrichment.get("summary") if job is not None and job.run == transcript.run else None
    if state is None:
        return "there is no summary: `summary` was not among CONCORD_ENRICHMENTS, or the upload did not want it"
    if state.state == "failed":
        return f"there is no summary: {state.error or 'it failed'}"
    if state.state == "done":
        return "the summary is not in the storage of this installation any more"
    return f"there is no summary yet: it is {state.state}"
