"""Finds the summary that belongs to a transcript."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.jobs.rows import newest_file
from schemas.summaries import Summary
from web.resources.jobs.blob_response import hide_storage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.jobs.rows import File, Transcript
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads


async def summary_of(reads: Reads, store: Store, transcript: Transcript) -> Summary | None:
    """The newest summary of the run, which may be that of an earlier version; None if there is none.

    Raises:
        NotFound: it is not in the store any more.
    """
    files = await reads.files(transcript.tenant_id, transcript.job_id)
    return await stored_summary(store, files, transcript.run, transcript.version)


async def stored_summary(store: Store, files: Iterable[File], run: int, version: int) -> Summary | None:
    """The newest summary among these files of a job, of this version of the run's transcript or an earlier one; None if
    there is none. Raises as `summary_of`.
    """
    file = newest_file(files, "summary", run, version)
    if file is None:
        return None
    with hide_storage("the summary"):
        return Summary.model_validate_json(await store.get(file.uri))
