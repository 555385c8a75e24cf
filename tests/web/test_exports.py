"""Transcripts as files for people: formats, negotiation, options."""

from __future__ import annotations

import io
from dataclasses import replace

import orjson
import pytest

from schemas.words import Decision, Quality, Reading, Reconciliation, adapter
from tests.web.service import ACME, Worker, problem, transcript
from web.resources.exports import export

DECIDED = Reconciliation(
    (
        Decision(Reading("Hello,", ("a", "b"), 0.9, 0, 400), (), "unanimous", "A"),
        Decision(Reading("Bob.", ("a",), 0.6, 400, 900), (Reading("Rob.", ("b",), 0.4),), "calibrated", "A"),
        Decision(Reading(None, ("a",), 0.6), (Reading("uh", ("b",), 0.4),), "calibrated"),
        Decision(Reading("<Hi> & bye!", ("a", "b"), 0.9, 65_000, 66_500), (), "unanimous", "B"),
    ),
    "calibrated",
    Quality(0.9, 0.5, 1.0, 0.1),
    ("a", "b"),
)
OPTIMIZED = {
    "reference": None,
    "transcript": {
        "speakers": ["A", "B"],
        "segments": [{"start_ms": 0, "speaker": "A", "text": "Hello, Bob."}],
    },
    "metadata": {
        "filename": "Zoë's call.wav",
        "duration": 70,
        "language": "en",
        "confidence": 0.9,
        "recognizers": ["a", "b"],
        "reconciliation_notes": [],
    },
}


@pytest.fixture
async def finished(worker):
    await worker.created()
    raw = await worker.store.put("acme/j/raw.json", adapter(Reconciliation).dump_json(DECIDED), "application/json")
    other = await worker.store.put("acme/j/agent_optimized.json", orjson.dumps(OPTIMIZED), "application/json")
    segments = OPTIMIZED["transcript"]["segments"]
    row = replace(transcript("j", "acme", raw.uri), agent_optimized_uri=other.uri, segments=segments)
    await worker.moved("completed", transcript=row)
    return worker


async def text(worker, query, **headers):
    response = await worker.get(f"/jobs/j/transcript?{query}", ACME | headers)
    assert response.status == 200, await response.text()
    return await response.text()


async def test_a_transcript_is_plain_text_with_what_is_asked_for(finished):
    assert await text(finished, "format=txt") == "A: Hello, Bob.\n\nB: <Hi> & bye!\n"
    assert await text(finished, "format=txt&speakers=false") == "Hello, Bob.\n\n<Hi> & bye!\n"
    marked = await text(finished, "format=txt&timestamps=true&mark_disputed=true")
    assert marked == "[0:00] A: Hello, [Bob.?]\n\n[1:05] B: <Hi> & bye!\n"


async def test_a_transcript_is_captions(finished):
    srt = await text(finished, "format=srt&mark_disputed=true")
    vtt = await text(finished, "format=vtt")

    assert srt == (
        "1\n00:00:00,000 --> 00:00:01,000\nA: Hello, [Bob.?]\n\n2\n00:01:05,000 --> 00:01:06,500\nB: <Hi> & bye!\n"
    )
    assert vtt == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n<v A>Hello, Bob.\n"
        "\n00:01:05.000 --> 00:01:06.500\n<v B>&lt;Hi&gt; &amp; bye!\n"
    )


async def test_a_transcript_is_the_document_of_the_enrichment_in_markdown(finished):
    plain = await text(finished, "format=md")
    marked = await text(finished, "format=md&mark_disputed=true&speakers=false")

    assert plain.startswith("# Zoë's call\n")
    assert "**A** `0:00` Hello, Bob." in plain
    assert "\n`0:00` Hello, \\[Bob.?\\]\n" in marked
    assert "\n`1:05` \\<Hi\\> \\& bye!\n" in marked


async def test_a_transcript_is_a_word_document_that_highlights_disputed_words(finished):
    from docx import Document

    response = await finished.get("/jobs/j/transcript?format=docx&mark_disputed=true&timestamps=true")
    document = Document(io.BytesIO(await response.read()))

    assert [p.text for p in document.paragraphs] == ["Zoë's call", "0:00  A: Hello, Bob.", "1:05  B: <Hi> & bye!"]
    highlighted = [r.text for p in document.paragraphs for r in p.runs if r.font.highlight_color]
    assert highlighted == [" Bob."]
    assert "filename*=UTF-8''Zo%C3%AB%27s%20call.docx" in response.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/plain"),
        ("text/vtt, text/plain;q=0.5", "text/vtt"),
        ("text/html, application/x-subrip;q=0.1", "application/x-subrip"),
        ("*/*;q=0.1, text/markdown; q = x", "text/markdown"),
        ("application/json;q=0, text/*;q=0.2", "text/plain"),
    ],
)
async def test_accept_chooses_the_format_that_it_prefers(finished, accept, media_type):
    response = await finished.get("/jobs/j/transcript", ACME | {"Accept": accept})

    assert (response.status, response.content_type) == (200, media_type)
    assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/*", ";,;q=1,"])
async def test_where_no_format_is_accepted_the_answer_lists_them(finished, accept):
    detail = (await problem(await finished.get("/jobs/j/transcript", ACME | {"Accept": accept}), 406))["detail"]

    assert all(name in detail for name in ("json", "txt", "md", "vtt", "srt", "docx", "text/markdown"))
    assert (await finished.get("/jobs/j/transcript?format=vtt", ACME | {"Accept": accept})).status == 200


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("format=pdf", "format: use one of 'json'"),
        ("format=srt&timestamps=false", "srt has no option timestamps; it has mark_disputed, speakers"),
        ("mark_disputed=true", "json has no option mark_disputed"),
        ("format=txt&speakers=yes", "speakers: use true or false"),
    ],
)
async def test_an_option_that_a_format_does_not_have_is_refused(finished, query, says):
    assert says in (await problem(await finished.get(f"/jobs/j/transcript?{query}"), 400))["detail"]


async def test_a_transcript_that_is_too_long_to_be_written_is_refused(finished, monkeypatch):
    monkeypatch.setattr(export, "MAX_RAW_BYTES", 10)

    assert "too long" in (await problem(await finished.get("/jobs/j/transcript?format=srt"), 400))["detail"]


async def test_the_agent_optimized_transcript_is_what_is_stored(finished):
    assert await finished.json("/jobs/j/transcript/agent-optimized") == OPTIMIZED
    await problem(await finished.get("/jobs/j/transcript/agent-optimized?run=2"), 404)


async def test_a_transcript_whose_words_are_lost_is_answered_with_404():
    async with Worker() as worker:
        await worker.created()
        await worker.moved("completed", transcript=transcript("j", "acme", "memory://acme/j/nothing.json"))

        for format in ("txt", "md"):
            lost = await problem(await worker.get(f"/jobs/j/transcript?format={format}"), 404)
            assert lost["detail"] == "the transcript is not in the storage of this installation any more"
