"""Keys of blobs in object storage, derived from job, run and content, so that a repeated write overwrites the first."""

from __future__ import annotations

from uuid import UUID

#: The folder of a tenant's recordings that are not their jobs' originals yet. It is no job's: no id begins so.
UPLOADS = "_uploads"


#: The folder of a run's blobs, and of a job's, that hold what was redacted elsewhere. Their readers need a scope of
#: their own, and a bucket's policy can name `*/restricted/*`.
RESTRICTED = "restricted"


def folder(tenant_id: str, job_id: str, run: int) -> str:
    """The key prefix of a run's blobs; the first run uses the job's own prefix."""
    return f"{tenant_id}/{job_id}" if run == 1 else f"{tenant_id}/{job_id}/runs/{run}"


def _kept_in(folder: str, *, restricted: bool) -> str:
    return f"{folder}/{RESTRICTED}" if restricted else folder


def is_restricted(name: str) -> bool:
    """Whether the blob of this name may hold what was redacted elsewhere."""
    return f"/{RESTRICTED}/" in name


def job_folder(tenant_id: str, job_id: str) -> str:
    """The key prefix of all blobs of a job, with a slash at its end."""
    return f"{tenant_id}/{job_id}/"


def run_of(name: str) -> int:
    """The run whose blob has this name; 1 for what is shared by all runs."""
    _, _, *inner = name.split("/")
    return int(inner[1]) if len(inner) > 2 and inner[0] == "runs" and inner[1].isdecimal() else 1


def original(tenant_id: str, job_id: str, extension: str, run: int = 1, *, restricted: bool = False) -> str:
    """The recording as it was uploaded, in the folder of the run that fetched it; shared by all later runs. A job that
    has the id of a deleted one begins with a later run, and so stores nothing where the deleted one did.
    """
    return f"{_kept_in(folder(tenant_id, job_id, run), restricted=restricted)}/original.{extension}"


def redacted_audio(tenant_id: str, job_id: str, run: int) -> str:
    """The recording in which is silence what the run has redacted."""
    return f"{folder(tenant_id, job_id, run)}/audio.redacted.flac"


def decoded_audio(tenant_id: str, job_id: str, run: int, *, restricted: bool = False) -> str:
    """The recording as Concord decodes it, for recognizers that fetch it and would decode the original differently."""
    return f"{_kept_in(folder(tenant_id, job_id, run), restricted=restricted)}/audio.decoded.flac"


def direct_upload(tenant_id: str, upload_id: str) -> str:
    """A recording that its client sends into the store itself, until it is its job's original."""
    return f"{tenant_id}/{UPLOADS}/{upload_id}"


def hypothesis(tenant_id: str, job_id: str, run: int, provider: str, *, restricted: bool = False) -> str:
    """One recognizer's transcript."""
    return f"{_kept_in(folder(tenant_id, job_id, run), restricted=restricted)}/hypotheses/{provider}.json"


def chunk(tenant_id: str, job_id: str, provider: str, key: str, *, restricted: bool = False) -> str:
    """A recognizer's response to one chunk of the recording; shared by all runs, since `key` identifies the request."""
    return f"{_kept_in(f'{tenant_id}/{job_id}', restricted=restricted)}/pieces/{provider}/{key}.json"


def raw_transcript(tenant_id: str, job_id: str, run: int, *, restricted: bool = False) -> str:
    """Every word of the transcript with the reading of each recognizer."""
    return f"{_kept_in(folder(tenant_id, job_id, run), restricted=restricted)}/raw_transcript.json"


def agent_optimized(tenant_id: str, job_id: str, run: int) -> str:
    """The transcript in the form that downstream services read."""
    return f"{folder(tenant_id, job_id, run)}/agent_optimized.json"


def edited(tenant_id: str, job_id: str, run: int, edit: UUID) -> str:
    """The same of a version that a person has made. Of two edits of one version only one is committed, so the name is
    that of the edit, not of the version.
    """
    return f"{folder(tenant_id, job_id, run)}/edits/{edit}/agent_optimized.json"


def document(tenant_id: str, job_id: str, run: int, version: int = 1) -> str:
    """A version of the transcript as a document for people."""
    return f"{_version_folder(tenant_id, job_id, run, version)}/document.md"


def summary(tenant_id: str, job_id: str, run: int, version: int = 1) -> str:
    """The summary of a version of the transcript: `schemas.summaries.Summary` as JSON."""
    return f"{_version_folder(tenant_id, job_id, run, version)}/summary.json"


def report(tenant_id: str, job_id: str, run: int, version: int = 1) -> str:
    """The report on a version of the transcript, as PDF."""
    return f"{_version_folder(tenant_id, job_id, run, version)}/report.pdf"


def _version_folder(tenant_id: str, job_id: str, run: int, version: int) -> str:
    return folder(tenant_id, job_id, run) + ("" if version == 1 else f"/versions/{version}")


def metadata(tenant_id: str, job_id: str, run: int) -> str:
    """A JSON summary of the run: recording, recognizers, quality."""
    return f"{folder(tenant_id, job_id, run)}/metadata.json"


def conversation_text(tenant_id: str, conversation_id: str) -> str:
    """What was said in a conversation of a voice agent, as the agent has understood it. No job's folder is called so:
    jobs have UUIDs.
    """
    return f"{tenant_id}/transcripts/{conversation_id}.txt"


def conversation_audio(tenant_id: str, conversation_id: str) -> str:
    """Its recording."""
    return f"{tenant_id}/audio/{conversation_id}.mp3"


def conversation_report(tenant_id: str, conversation_id: str) -> str:
    """The report on it, as PDF."""
    return f"{tenant_id}/reports/{conversation_id}.pdf"


def of_conversation(tenant_id: str, conversation_id: str) -> tuple[str, ...]:
    """Its blobs that are not in its job's folder."""
    names = (conversation_text, conversation_audio, conversation_report)
    return tuple(name(tenant_id, conversation_id) for name in names)
