"""What enrichments are made of: the newest version of a run's transcript, and its words, with ids that can be cited."""

from __future__ import annotations

import asyncio

from schemas import blob_names
from schemas.corrections.rows import FIRST
from schemas.errors import InvalidInput, NotFound
from schemas.jobs.rows import Job
from schemas.transcript_words import TranscriptWord, words_of
from schemas.words import Reconciliation, adapter
from sinks.ports.blobs import Store
from sinks.ports.jobs import Jobs, WordSource


async def agent_optimized(database: Jobs, store: Store, job: Job) -> bytes:
    """The newest `agent_optimized.json` of the run. Raises `NotFound` and `Unavailable`."""
    names = job.tenant_id, job.job_id, job.run
    uri = await database.transcript_uri(*names)
    return await store.get(uri or store.uri(blob_names.agent_optimized(*names)))


async def transcript_words(database: Jobs, store: Store, job: Job) -> tuple[list[TranscriptWord], str | None]:
    """The words of the version that the job's row names, and their language, if it is known. Raises as `word_source`
    and `raw_transcript` do.
    """
    source = await word_source(database, job)
    if source.edited is not None:
        return source.edited, source.language
    raw = await raw_transcript(store, source)
    # In a thread: the readings of a long call take a third of a second.
    words = await asyncio.to_thread(lambda: words_of(adapter(Reconciliation).validate_json(raw)))
    return words, source.language


async def word_source(database: Jobs, job: Job) -> WordSource:
    """Where the words of the version that the job's row names are.

    Raises:
        InvalidInput: The run has no transcript with this version.
        Unavailable: The database is away.
    """
    source = await database.words_of_version(job.tenant_id, job.job_id, job.run, job.transcript_version)
    if source is None:
        raise InvalidInput(f"run {job.run} has no transcript")
    if source.edited is None and job.transcript_version != FIRST:
        raise InvalidInput(f"the transcript has no version {job.transcript_version}")
    return source


async def raw_transcript(store: Store, source: WordSource) -> bytes:
    """All readings of the run.

    Raises:
        InvalidInput: They are not in the store any more.
        Unavailable: The store is away.
    """
    try:
        return await store.get(source.raw_transcript_uri)
    except NotFound as exc:
        raise InvalidInput("the words of this transcript are not in the store any more") from exc
