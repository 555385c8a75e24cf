"""The outcomes of uploads that fail: a job that is created as failed, and the dead letter."""

from __future__ import annotations

from dataclasses import replace

from agents.stages.uploads.jobs import REFERENCE_IN_USE, new_job
from schemas import ids
from schemas.envelope import Envelope
from schemas.errors import InvalidInput
from schemas.events.audio import AudioUploaded
from schemas.jobs.outcome import Failure, Outcome, failed_upload, id_of_upload
from schemas.messages import dead_letter


def create_failed(envelope: Envelope, upload: AudioUploaded, failure: Failure) -> Outcome:
    """The job is created as failed. If its reference is another job's, which may be the reason, it has none."""
    job_id = id_of_upload(upload, envelope.root)
    taken = _failed(_without_reference(upload), job_id, failure) if upload.job_id else None
    return replace(_failed(upload, job_id, failure), taken=taken)


def reference_in_use(envelope: Envelope, upload: AudioUploaded) -> Outcome | None:
    """The outcome (`Outcome.taken`) if another job has got the reference while this one's recording was fetched: an
    upload with a job id of its own fails; without one, it is a repeat (None).
    """
    if upload.job_id is None:
        return None
    outcome = _failed(_without_reference(upload), upload.job_id, Failure(REFERENCE_IN_USE, InvalidInput.code))
    return with_dead_letter(envelope, outcome, REFERENCE_IN_USE, "taken")


def with_dead_letter(envelope: Envelope, outcome: Outcome, reason: str, index: str) -> Outcome:
    """The outcome, and a dead letter of the upload. `index` is the part of the letter's id that makes it unique."""
    id = ids.event_id(envelope.id, "intake", index)
    letter = dead_letter(envelope.record, id=id, stage="intake", reason=reason, attempts=1, of=outcome)
    return replace(outcome, raw=((letter, 0.0),))


def _failed(upload: AudioUploaded, job_id: str, failure: Failure) -> Outcome:
    return failed_upload(new_job(upload, job_id, None), "intake", failure)


def _without_reference(upload: AudioUploaded) -> AudioUploaded:
    return upload.model_copy(update={"reference": None})
