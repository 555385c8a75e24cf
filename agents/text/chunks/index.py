"""Makes the search index of a transcript: its chunks, with times, ids of words, and every reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from agents.text.chunks.chunking import SIZES, ChunkSizes, Span, chunked
from agents.text.chunks.readings import Alternative, alternatives
from agents.text.chunks.tokens import spaced
from schemas.jobs.rows import OfRun, run_fields
from schemas.rendering.segments import groups, span_ms, speakers
from schemas.search.chunks import Chunk, TranscriptIndex, Utterance, dictionary, pace_of, packed, text_hash
from schemas.texts import joined
from schemas.transcript_words import TranscriptWord
from schemas.words import Reconciliation

#: Characters of what else was heard that a chunk keeps: several times a chunk's own.
MAX_HEARD = 8000


def transcript_index(
    owner: OfRun,
    created_at: datetime,
    version: int,
    reconciliation: Reconciliation,
    words: Sequence[TranscriptWord],
    sizes: ChunkSizes = SIZES,
) -> TranscriptIndex:
    """The index of a version of a run's transcript that has these words."""
    heard = alternatives(reconciliation, words)
    common = {
        **run_fields(owner),
        "transcript_version": version,
        "dictionary": dictionary(reconciliation.language),
        "recognizers": list(reconciliation.providers),
        "created_at": created_at,
    }
    chunks = tuple(
        Chunk(**common, number=number, **_content(words[slice(*span)], [_within(a, span) for a in _of(heard, span)]))  # type: ignore[arg-type]
        for number, span in enumerate(chunked(words, sizes))
    )
    return TranscriptIndex(**run_fields(owner), transcript_version=version, chunks=chunks)


def _of(heard: Sequence[Alternative], span: Span) -> list[Alternative]:
    """Those that begin in this chunk, or behind the last word."""
    return [alternative for alternative in heard if span[0] <= alternative.at <= span[1]]


def _within(alternative: Alternative, span: Span) -> tuple[int, Alternative]:
    """An alternative, with the place in the chunk of its first word."""
    return min(alternative.at, span[1] - 1) - span[0], alternative


def _content(words: Sequence[TranscriptWord], heard: Sequence[tuple[int, Alternative]]) -> dict[str, object]:
    """The fields of a chunk that tell what it says."""
    spoken = list(groups(words))
    utterances = [_utterance(group) for group in spoken]
    text = "\n".join(utterance.text for utterance in utterances)
    start_ms, end_ms = span_ms(utterances)
    place = [n for n, group in enumerate(spoken) for _ in group]
    return {
        "text": text,
        "content": spaced(text),
        "heard": spaced("\n".join(dict.fromkeys(alternative.text for _, alternative in heard))[:MAX_HEARD]),
        "hash": text_hash(text),
        "start_ms": start_ms,
        "end_ms": end_ms,
        "speakers": speakers(words),
        "utterances": [asdict(utterance) for utterance in utterances],
        "alternatives": [[place[at], id, reading] for at, alternative in heard for id, reading in alternative.heard],
    }


def _utterance(group: Sequence[TranscriptWord]) -> Utterance:
    start_ms, end_ms = span_ms(group)
    return Utterance(
        text=joined(word.text for word in group),
        speaker=group[0].speaker,
        start_ms=start_ms,
        end_ms=end_ms,
        words=packed([word.id for word in group]),
        pace=pace_of([word.start_ms for word in group]),
    )
