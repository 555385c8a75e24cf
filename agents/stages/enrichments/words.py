"""The words of which enrichments are made: those of the transcript's newest version, with ids that can be cited."""

from __future__ import annotations

import asyncio

from schemas.corrections.rows import FIRST
from schemas.errors import InvalidInput, NotFound
from schemas.jobs.rows import Job
from schemas.transcript_words import TranscriptWord, words_of
from schemas.words import Reconciliation, adapter
from sinks.ports.blobs import Store
from sinks.ports.jobs import Jobs


async def transcript_words(database: Jobs, store: Store, job: Job) -> tuple[list[TranscriptWord], str | None]:
    """The words of the version that the job's row names, and their language, if it is known.

    Raises:
        InvalidInput: The run has no transcript with this version, or its words are not in the store any more.
        Unavailable: The database or the store is away.
    """
    source = await database.words_of_version(job.tenant_id, job.job_id, job.run, job.transcript_version)
    if source is None:
        raise InvalidInput(f"run {job.run} has no transcript")
    if source.edited is not None:
        return source.edited, source.language
    if job.transcript_version != FIRST:
        raise InvalidInput(f"the transcript has no version {job.transcript_version}")
    try:
        raw = await store.get(source.raw_transcript_uri)
    except NotFound as exc:
        raise InvalidInput("the words of this transcript are not in the store any more") from exc
    # In a thread: the readings of a long call take a third of a second.
    words = await asyncio.to_thread(lambda: words_of(adapter(Reconciliation).validate_json(raw)))
    return words, source.language
