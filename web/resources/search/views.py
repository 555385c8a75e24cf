"""What a search shows."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from schemas.events.base import Data
from web.resources.jobs.links import link_to

if TYPE_CHECKING:
    from schemas.search.chunks import Utterance
    from schemas.search.results import Hit, Searched


class UtteranceView(Data):
    """What one speaker says without a long pause."""

    text: str
    speaker: str | None
    start_ms: int | None
    end_ms: int | None
    word_ids: list[str] = Field(description="ids of its words, as in the transcript")


class HighlightView(Data):
    """Characters of the utterance's text, the last not included."""

    begin: int
    end: int


class ReadingView(Data):
    """What else was heard at a disputed word, and is what was looked for."""

    word_id: str | None = Field(description="null where the transcript has no word")
    heard: str


class HitView(Data):
    """An utterance that was found."""

    job_id: str
    run: int
    transcript_version: int
    created_at: datetime = Field(description="of the job")
    start_ms: int | None = Field(
        description="of the first word that matches; of the utterance, if none of its words does"
    )
    utterance: UtteranceView
    highlights: list[HighlightView]
    other_readings: list[ReadingView] = Field(description="the disputed words that were found by what else was heard")
    before: list[UtteranceView] = Field(description="what was said before")
    after: list[UtteranceView] = Field(description="what was said after")
    score: float = Field(description="rank among the results; of one question only")
    found_by: list[str] = Field(description="`text`, `vectors` or both")
    links: dict[str, str] = Field(description="`audio`: the recording at this moment; `transcript`; `job`")


class SearchedView(Data):
    """How it was looked for."""

    text: bool
    vectors: bool
    model: str | None = Field(description="the embedding model")
    reason: str | None = Field(description="why not by vectors, although they were asked for")
    waiting: int = Field(description="transcripts of which passages have no vector yet, at most 1000")
    is_cut: bool = Field(description="more passages have the words than were ranked: use rarer words, or filters")


class SearchPage(Data):
    """Some of the results, best first."""

    hits: list[HitView]
    next: str | None = Field(description="cursor of the next page; null on the last")
    searched: SearchedView


def hit_view(hit: Hit, *, operator: bool) -> HitView:
    """A hit as it is shown; an operator's links name the tenant."""
    chunk = hit.chunk
    return HitView(
        job_id=chunk.job_id,
        run=chunk.run,
        transcript_version=chunk.transcript_version,
        created_at=chunk.created_at,
        start_ms=hit.start_ms,
        utterance=_utterance(hit.utterance),
        highlights=[HighlightView(begin=begin, end=end) for begin, end in hit.highlights],
        other_readings=[ReadingView(word_id=one.word_id, heard=one.heard) for one in hit.readings],
        before=[_utterance(one) for one in hit.before],
        after=[_utterance(one) for one in hit.after],
        score=round(hit.score, 6),
        found_by=list(hit.found_by),
        links=moment_links(chunk.tenant_id, chunk.job_id, hit.start_ms, operator=operator),
    )


def _utterance(one: Utterance) -> UtteranceView:
    return UtteranceView(
        text=one.text, speaker=one.speaker, start_ms=one.start_ms, end_ms=one.end_ms, word_ids=one.word_ids
    )


def searched_view(searched: Searched) -> SearchedView:
    """How a search was made."""
    return SearchedView(
        text=searched.by_text,
        vectors=searched.by_vectors,
        model=searched.model,
        reason=searched.reason,
        waiting=searched.waiting,
        is_cut=searched.is_cut,
    )


def moment_links(tenant_id: str, job_id: str, start_ms: int | None, *, operator: bool) -> dict[str, str]:
    """Where a moment is heard and read. The moment is a media fragment (W3C), which players and browsers obey."""
    link = partial(link_to, tenant_id, job_id, operator=operator)
    moment = f"#t={start_ms / 1000:g}" if start_ms is not None else ""
    return {"audio": link("audio") + moment, "transcript": link("transcript"), "job": link("status")}


_UTTERANCE: Final[dict[str, Any]] = {
    "text": "We agreed on a discount.",
    "speaker": "A",
    "start_ms": 12_300,
    "end_ms": 14_100,
    "word_ids": ["w31", "w32", "w33", "w34", "w35"],
}

EXAMPLE: Final[dict[str, Any]] = {
    "hits": [
        {
            "job_id": "0e4d5c7a-7b0c-5a53-9d0c-0b8f3f0a9c11",
            "run": 1,
            "transcript_version": 1,
            "created_at": "2026-05-01T12:00:00Z",
            "start_ms": 12_960,
            "utterance": _UTTERANCE,
            "highlights": [{"begin": 15, "end": 23}],
            "other_readings": [],
            "before": [],
            "after": [],
            "score": 0.032787,
            "found_by": ["text", "vectors"],
            "links": moment_links("acme", "0e4d5c7a-7b0c-5a53-9d0c-0b8f3f0a9c11", 12_960, operator=False),
        }
    ],
    "next": None,
    "searched": {
        "text": True,
        "vectors": True,
        "model": "text-embedding-3-small",
        "reason": None,
        "waiting": 0,
        "is_cut": False,
    },
}
