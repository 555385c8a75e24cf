"""The words of a transcript."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from schemas.errors import InvalidInput, NotFound
from schemas.transcript_words import words_of
from schemas.words import Reconciliation, adapter
from web.resources.jobs.blob_response import hide_storage

if TYPE_CHECKING:
    from schemas.jobs.rows import Transcript
    from schemas.transcript_words import TranscriptWord
    from sinks.ports.blobs import Store

#: Bytes of a raw transcript of which words are read: those of some ten hours of speech. In memory they take five times
#: as much.
MAX_RAW_BYTES = 128 << 20


async def transcript_words(store: Store, transcript: Transcript) -> list[TranscriptWord]:
    """The words of this transcript, in order: those that the run has decided.

    Raises:
        NotFound: the store does not have them.
        InvalidInput: they are too many to be read at once.
    """
    with hide_storage("the raw transcript"):
        blob = await store.stat(transcript.raw_transcript_uri)
        if blob is None:
            raise NotFound(transcript.raw_transcript_uri)
    if blob.size_bytes > MAX_RAW_BYTES:
        raise InvalidInput("this transcript is too long for this format; read it as JSON, or from /transcript/raw")
    with hide_storage("the raw transcript"):
        content = await store.get(blob.uri)
    # In a thread, as megabytes are parsed.
    return await asyncio.to_thread(lambda: words_of(adapter(Reconciliation).validate_json(content)))
