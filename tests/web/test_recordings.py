"""Transcripts and recordings: whole, in part, and where the store fails."""

from __future__ import annotations

import json

import pytest

from schemas.errors import Unavailable
from schemas.words import Reconciliation, adapter
from sinks.blobs.memory import MemoryStore
from tests.web.service import (
    ACME,
    AUDIO,
    BOLT,
    DECIDED,
    Worker,
    problem,
)


async def test_a_transcript_links_to_what_each_recognizer_heard(worker):
    await worker.created()
    await worker.finished()
    shown = await worker.json("/jobs/j/transcript")
    raw = await worker.get(shown["links"]["raw"])

    assert shown["text"] == "hello"
    assert shown["segments"][0]["speaker"] == "A"
    assert "memory://" not in json.dumps(shown)
    assert adapter(Reconciliation).validate_json(await raw.read()) == DECIDED
    assert raw.content_type == "application/json"


async def test_a_missing_transcript_is_answered_with_the_status_of_the_job(worker):
    await worker.created()
    early = await problem(await worker.get("/jobs/j/transcript"), 404)
    await worker.moved("failed")
    late = await problem(await worker.get("/jobs/j/transcript/raw"), 404)
    beyond = await problem(await worker.get("/jobs/j/transcript?run=2"), 404)

    assert "the job is uploaded" in early["detail"]
    assert "failed" in late["detail"]
    assert "1 runs" in beyond["detail"]
    await problem(await worker.get("/jobs/j/transcript?run=0"), 400)


async def test_a_blob_that_the_store_has_lost_is_answered_with_404_without_its_uri(worker):
    await worker.created()
    await worker.stored_audio()
    await worker.finished()
    for uri in [uri async for uri in worker.store.list("")]:
        await worker.store.delete(uri)

    await problem(await worker.get("/jobs/j/transcript/raw"), 404)
    assert "not in the storage" in (await problem(await worker.get("/jobs/j/audio"), 404))["detail"]


async def test_a_recording_is_sent_whole_or_in_part(worker):
    await worker.created()
    await worker.stored_audio()
    whole = await worker.get("/jobs/j/audio")
    part = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=100-299"})
    end = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=-5"})

    assert await whole.read() == AUDIO
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert "filename*=UTF-8''Zo%C3%AB%27s%20call.wav" in whole.headers["Content-Disposition"]
    assert (part.status, await part.read()) == (206, AUDIO[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(AUDIO)}"
    assert (end.status, await end.read()) == (206, AUDIO[-5:])


async def test_a_report_is_sent_of_the_newest_version_that_has_one_or_why_there_is_none(worker):
    await worker.created()
    assert "none is made" in (await problem(await worker.get("/jobs/j/report"), 404))["detail"]
    await worker.moved("completed", new_enrichments=("report",))
    assert "it is pending" in (await problem(await worker.get("/jobs/j/report"), 404))["detail"]
    await worker.stored_report(1)
    first = await worker.get("/jobs/j/report?redirect=false")
    await worker.stored_report(2)
    unchanged = await worker.get("/jobs/j/report", ACME | {"If-None-Match": first.headers["ETag"]})

    assert (await first.read(), first.content_type) == (b"%PDF 1", "application/pdf")
    assert 'filename="j.pdf"' in first.headers["Content-Disposition"]
    assert unchanged.status == 304, "the transcript has one version"
    await problem(await worker.get("/jobs/j/report", BOLT), 404)


async def test_a_range_behind_the_end_is_refused_with_the_length(worker):
    await worker.created()
    await worker.stored_audio()
    response = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=999999-"})

    await problem(response, 416)
    assert response.headers["Content-Range"] == f"bytes */{len(AUDIO)}"


async def test_a_recording_the_client_has_already_is_not_sent_again(worker):
    await worker.created()
    await worker.stored_audio()
    head = await worker.client.head("/jobs/j/audio", headers=ACME)
    same = await worker.get("/jobs/j/audio", ACME | {"If-None-Match": head.headers["ETag"]})
    changed = await worker.get("/jobs/j/audio", ACME | {"Range": "bytes=0-1", "If-Range": '"other"'})

    assert head.headers["Content-Length"] == str(len(AUDIO))
    assert await head.read() == b""
    assert same.status == 304
    assert await changed.read() == AUDIO


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/javascript", "application/xhtml+xml"])
async def test_a_recording_is_never_sent_with_a_media_type_that_browsers_execute(worker, kind):
    await worker.created()
    await worker.stored_audio(kind=kind)
    response = await worker.get("/jobs/j/audio")

    assert response.content_type == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]


class Signing(MemoryStore):
    """Object storage that gives links."""

    async def presigned_url(self, uri, expires_s):
        return f"https://bucket.example/{uri.removeprefix('memory://')}?signed={expires_s}"


async def test_a_recording_in_object_storage_is_answered_with_a_link_unless_direct_is_no():
    async with Worker(store=Signing()) as worker:
        await worker.created()
        await worker.stored_audio()
        response = await worker.get("/jobs/j/audio", allow_redirects=False)

        assert response.status == 302
        assert response.headers["Location"] == "https://bucket.example/acme/j/original.wav?signed=900"
        assert response.headers["Cache-Control"] == "no-store"
        for query in ("direct=no", "redirect=false"):
            assert await (await worker.get(f"/jobs/j/audio?{query}")).read() == AUDIO
        head = await worker.client.head("/jobs/j/audio?redirect=false", headers=ACME | {"Range": "bytes=-5"})
        assert (head.status, head.headers["Content-Length"]) == (206, "5")
        assert (await worker.get("/jobs/j/audio?redirect=true", allow_redirects=False)).status == 302
        await problem(await worker.get("/jobs/j/audio?redirect=no"), 400)


async def test_a_recording_that_is_not_stored_yet_is_answered_with_404_that_explains_it(worker):
    await worker.created()

    assert "not stored yet" in (await problem(await worker.get("/jobs/j/audio"), 404))["detail"]


class Breaking(MemoryStore):
    """A store that goes away after the first piece."""

    async def stream(self, uri, start=0, end=None):
        yield (await self.get(uri))[:100]
        raise Unavailable(f"{uri} is out of reach")


async def test_a_recording_that_breaks_off_breaks_the_connection():
    async with Worker(store=Breaking()) as worker:
        await worker.created()
        await worker.stored_audio()
        response = await worker.get("/jobs/j/audio")

        with pytest.raises(Exception, match=r"payload|closed|reset") as broken:
            await response.read()
        assert type(broken.value).__module__.startswith("aiohttp")
