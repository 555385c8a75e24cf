"""What becomes of a recognizer's request when a service outside of Concord answers it, over HTTP or Kafka."""

from __future__ import annotations

from typing import Any

from schemas.ids import Key
from schemas.jobs.outcome import Outcome, RequestChange
from schemas.jobs.rows import Job, answer_columns, used
from schemas.words import Hypothesis


def failed(key: Key, run: int, recognizer: str, error: str) -> Outcome:
    """The outcome that ends a request because the service has no transcript."""
    columns: dict[str, Any] = {"state": "failed", "error": error}
    change = RequestChange(run=run, provider=recognizer, token=None, columns=columns)
    return Outcome(tenant_id=key[0], job_id=key[1], request=change, audit="failed", error=error)


def answered(job: Job, recognizer: str, hypothesis: Hypothesis, uri: str) -> Outcome:
    """The outcome that ends a request with a transcript, which is stored at `uri`."""
    columns = answer_columns(hypothesis, uri)
    seconds = (hypothesis.duration_ms or job.duration_ms or 0) / 1000
    usage = used(job, recognizer, "whole", {"audio_seconds": seconds, "requests": 1})
    change = RequestChange(run=job.run, provider=recognizer, token=None, columns=columns)
    return Outcome(tenant_id=job.tenant_id, job_id=job.job_id, request=change, usage=usage)
