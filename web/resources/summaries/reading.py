"""Finds the summary that belongs to a transcript."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.jobs.rows import newest_file
from schemas.summaries import Summary
from web.resources.jobs.blob_response import hide_storage

if TYPE_CHECKING:
    from schemas.jobs.rows import Transcript
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads


async def summary_of(reads: Reads, store: Store, transcript: Transcript) -> Summary | None:
    """The newest summary of the run, which may be that of an earlier version; None if there is none.

    Raises:
        NotFound: it is not in the store any more.
    """
    files = await reads.files(transcript.tenant_id, transcript.job_id)
    file = newest_file(files, "summary", transcript.run, transcript.version)
    if file is None:
        return None
    with hide_storage("the summary"):
        return Summary.model_validate_json(await store.get(file.uri))
