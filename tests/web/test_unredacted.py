"""What is redacted for others is read with a scope of its own."""

from __future__ import annotations

import pytest

from schemas import blob_names
from schemas.jobs.outcome import Outcome
from schemas.jobs.rows import File
from schemas.words import Decision, Quality, Reading, Reconciliation, adapter
from tests.web.service import ACME, AUDIO, ROOT, of_blob, problem

SECRET = Reconciliation(
    (Decision(Reading("4111111111111111", ("a",), 0.9, 0, 400)),), "single", Quality(0.9, None, 0.0, 0.1), ("a",), "en"
)


@pytest.fixture
async def redacted(worker):
    """A worker with a job whose personal data are hidden, and are kept."""
    await worker.created(options={"redact_pii": True})
    await worker.stored_audio()
    await worker.finished()
    name = blob_names.raw_transcript("acme", "j", 1, restricted=True)
    await worker.store.put(name, adapter(Reconciliation).dump_json(SECRET), "application/json")
    return worker


async def mute(worker):
    blob = await worker.store.put(blob_names.redacted_audio("acme", "j", 1), AUDIO[::-1], "audio/flac")
    file = File(tenant_id="acme", job_id="j", run=1, kind="redacted_audio", **of_blob(blob))
    await worker.commit("reconcile", Outcome(tenant_id="acme", job_id="j", files=(file,)))


async def test_readers_hear_the_muted_recording_only(redacted):
    early = await problem(await redacted.get("/jobs/j/audio"), 404)
    await mute(redacted)
    heard = await redacted.get("/jobs/j/audio")
    original = await redacted.get("/jobs/j/audio?unredacted=true", ROOT)

    assert "not silent yet" in early["detail"]
    assert await heard.read() == AUDIO[::-1]
    assert await original.read() == AUDIO


@pytest.mark.parametrize("path", ["audio", "transcript", "transcript?format=txt", "transcript/raw"])
async def test_a_key_without_the_scope_is_refused(redacted, path):
    await mute(redacted)
    asked = path + ("&" if "?" in path else "?") + "unredacted=true"
    refused = await problem(await redacted.get(f"/jobs/j/{asked}", ACME), 403)

    assert "`unredacted`" in refused["detail"]
    assert (await redacted.get(f"/jobs/j/{path}")).status == 200


async def test_with_the_scope_the_words_are_read_in_every_form(redacted):
    shown = await redacted.json("/jobs/j/transcript?unredacted=true", ROOT)
    text = await (await redacted.get("/jobs/j/transcript?unredacted=true&format=txt", ROOT)).text()
    raw = await (await redacted.get("/jobs/j/transcript/raw?unredacted=true", ROOT)).read()

    assert shown["text"] == "4111111111111111" == shown["segments"][0]["text"]
    assert "4111111111111111" in text
    assert adapter(Reconciliation).validate_json(raw) == SECRET
    assert (await redacted.json("/jobs/j/transcript"))["text"] == "hello"


async def test_what_is_forgotten_is_nowhere(redacted):
    await redacted.store.delete(redacted.store.uri(blob_names.raw_transcript("acme", "j", 1, restricted=True)))

    for path in ("transcript", "transcript/raw"):
        await problem(await redacted.get(f"/jobs/j/{path}?unredacted=true", ROOT), 404)
