"""Writes a transcript in a format for people, a few at a time."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
from aiohttp import web

from schemas.errors import InvalidInput
from schemas.rendering.captions import srt, vtt
from schemas.rendering.markdown import markdown
from schemas.rendering.plain_text import plain_text, written
from schemas.rendering.segments import groups, segments
from schemas.rendering.word_document import docx
from web.resources.jobs.blob_response import disposition, hide_storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.jobs.rows import Transcript
    from schemas.transcript_words import TranscriptWord
    from sinks.ports.blobs import Store
    from sinks.ports.reads import Reads
    from web.resources.exports.formats import Format, Options


class WordsOf(Protocol):
    """Reads the words of a transcript."""

    async def __call__(self, transcript: Transcript, /) -> list[TranscriptWord]:
        """The words of the version that this is, in order. Raises `NotFound` and `InvalidInput`."""


#: Bytes of a raw transcript of which words are read: those of some ten hours of speech. In memory they take five times
#: as much.
MAX_RAW_BYTES: Final = 128 << 20

#: Transcripts that a worker writes at once. One of an hour takes a second and 100 MB.
AT_ONCE: Final = 2


class Exports:
    """Transcripts in formats for people."""

    def __init__(self, reads: Reads, store: Store, words: WordsOf) -> None:
        self._reads, self._store, self._words = reads, store, words
        self._writing = asyncio.Semaphore(AT_ONCE)

    async def response(
        self, transcript: Transcript, format: Format, options: Options, headers: Mapping[str, str]
    ) -> web.Response:
        """The transcript as a file that has the recording's name.

        Raises:
            NotFound: the store does not have it any more.
            InvalidInput: it is too long for this.
        """
        job = await self._reads.job(transcript.tenant_id, transcript.job_id)
        stem = PurePosixPath(job.filename).stem if job else transcript.job_id
        async with self._writing:
            body = await self._body(transcript, format, options, stem)
        return web.Response(
            body=body,
            content_type=format.media_type,
            charset=None if format.name == "docx" else "utf-8",
            headers={"Content-Disposition": disposition(f"{stem}.{format.name}"), **headers},
        )

    async def _body(self, transcript: Transcript, format: Format, options: Options, title: str) -> bytes:
        if format.name == "md":
            return await self._markdown(transcript, options)
        words = await self._words_of(transcript)
        return await asyncio.to_thread(_rendered, format, words, options, title)

    async def _words_of(self, transcript: Transcript) -> list[TranscriptWord]:
        if transcript.version == 1:  # its words are in the raw transcript only
            with hide_storage("the transcript"):
                blob = await self._store.stat(transcript.raw_transcript_uri)
            if blob is not None and blob.size_bytes > MAX_RAW_BYTES:
                text = "this transcript is too long for this format; read it as JSON, or from /transcript/raw"
                raise InvalidInput(text)
        with hide_storage("the transcript"):
            return await self._words(transcript)

    async def _markdown(self, transcript: Transcript, options: Options) -> bytes:
        """As the enrichment `document` writes it, unless the options say otherwise."""
        with hide_storage("the transcript"):
            content = await self._store.get(transcript.agent_optimized_uri)
        words = await self._words_of(transcript) if options.mark_disputed else None
        return await asyncio.to_thread(_marked_down, content, transcript.segments, words, options)


def _rendered(format: Format, words: Sequence[TranscriptWord], options: Options, title: str) -> bytes:
    how = {"speakers": options.speakers is not False, "mark_disputed": options.mark_disputed is True}
    match format.name:
        case "srt":
            return srt(words, **how).encode()
        case "vtt":
            return vtt(words, **how).encode()
        case "docx":
            return docx(title, words, timestamps=options.timestamps is True, **how)
        case _:
            return plain_text(words, timestamps=options.timestamps is True, **how).encode()


def _marked_down(
    content: bytes, shown: list[dict[str, Any]], words: Sequence[TranscriptWord] | None, options: Options
) -> bytes:
    transcript: dict[str, Any] = orjson.loads(content)
    if words is not None:
        texts = [written(group, mark_disputed=True) for group in groups(words)]
        shown = [segment | {"text": text} for segment, text in zip(segments(words), texts, strict=True)]
    if options.speakers is False:
        shown = [segment | {"speaker": None} for segment in shown]
    transcript["transcript"]["segments"] = shown
    return markdown(transcript).encode()
