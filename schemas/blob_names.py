"""The names of blobs: derived from job, run and content, so that a second write lands on the first."""

from __future__ import annotations


def folder(tenant_id: str, job_id: str, run: int) -> str:
    """Where a run's blobs are; the first run's are the job's own."""
    return f"{tenant_id}/{job_id}" if run == 1 else f"{tenant_id}/{job_id}/runs/{run}"


def original(tenant_id: str, job_id: str, extension: str) -> str:
    """The recording as uploaded; all runs share it."""
    return f"{tenant_id}/{job_id}/original.{extension}"


def hypothesis(tenant_id: str, job_id: str, run: int, provider: str) -> str:
    """One recognizer's transcript."""
    return f"{folder(tenant_id, job_id, run)}/hypotheses/{provider}.json"


def chunk(tenant_id: str, job_id: str, provider: str, key: str) -> str:
    """A recognizer's answer about a chunk of the recording. All runs share it: its key identifies the request."""
    return f"{tenant_id}/{job_id}/pieces/{provider}/{key}.json"


def raw_transcript(tenant_id: str, job_id: str, run: int) -> str:
    """Every word with what each recognizer heard there."""
    return f"{folder(tenant_id, job_id, run)}/raw_transcript.json"


def agent_optimized(tenant_id: str, job_id: str, run: int) -> str:
    """The transcript in the form that downstream services read."""
    return f"{folder(tenant_id, job_id, run)}/agent_optimized.json"


def document(tenant_id: str, job_id: str, run: int) -> str:
    """The transcript as a document for people."""
    return f"{folder(tenant_id, job_id, run)}/document.md"


def metadata(tenant_id: str, job_id: str, run: int) -> str:
    """What is known about the run."""
    return f"{folder(tenant_id, job_id, run)}/metadata.json"
