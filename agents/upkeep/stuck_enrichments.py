"""What becomes of an enrichment that no event is on its way for: its event is made again; in vain, it fails.

That happens when Kafka lost a topic, or when an operator moved a group's offsets past unread events. (While a kind has
no worker, its events wait in Kafka.) The event is idempotent, so one too many changes nothing.
"""

from __future__ import annotations

from agents.upkeep.stuck_jobs import NAME, TRIES
from schemas import ids, topics
from schemas.events.enrichment import EnrichmentRequested
from schemas.jobs.outcome import Failure, Later, Outcome, Step, failed_enrichment
from schemas.jobs.rows import OfRun, run_fields
from sinks.ports.upkeep.stuck_jobs import StuckEnrichment


def revived_enrichment(stuck: StuckEnrichment) -> Step:
    """The step that asks for the enrichment again, or that fails it when that was done `TRIES` times in vain."""
    row = stuck.enrichment
    changed_ms = int(row.updated_at.timestamp() * 1000)
    about = f"{row.job_id}/{row.run}/{row.kind}/{changed_ms}/{stuck.times}"
    outcome = _ended(stuck) if stuck.times >= TRIES else _requested(stuck)
    return Step(NAME, ids.ingress_id(row.tenant_id, NAME, about), outcome)


def _requested(stuck: StuckEnrichment) -> Outcome:
    row = stuck.enrichment
    reason = f"no event was on its way for the enrichment `{row.kind}`; it is asked for again"
    later = requested(row, row.kind, row.transcript_version, row.generation)
    return Outcome(tenant_id=row.tenant_id, job_id=row.job_id, later=(later,), audit="retried", error=reason)


def _ended(stuck: StuckEnrichment) -> Outcome:
    row = stuck.enrichment
    reason = f"nothing has made this enrichment, although it was asked for {TRIES} times more: does a worker have it?"
    failure = Failure(reason, "stuck", max(row.attempts, TRIES))
    return failed_enrichment(
        row,
        row.kind,
        failure,
        version=row.version,
        transcript_version=row.transcript_version,
        generation=row.generation,
    )


def requested(run: OfRun, kind: str, transcript_version: int, generation: int) -> Later:
    """What has an enrichment made."""
    request = EnrichmentRequested(
        **run_fields(run), kind=kind, transcript_version=transcript_version, generation=generation
    )
    return Later(topics.due_name(kind), request, kind="enrichment.requested")
