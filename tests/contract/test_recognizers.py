"""What a recognizer behind a network must do: one suite for all implementations of `RemoteRecognizer`.

A new one joins by a line in `REMOTE`: a function that opens a `Bench` with the recognizer and with a server whose
faults the tests can switch on. One that bills is a line of `BILLED`, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import wave
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer, unused_port

from agents.asr.assemblyai import AssemblyAI
from agents.asr.google.batch_recognize import GoogleBatch
from agents.asr.google.speech import Speech
from agents.asr.google.storage import Bucket
from agents.asr.protocols import LocalRecognizer, Pending, RemoteRecognizer, UploadingRecognizer
from agents.asr.scripted import Scripted
from schemas.errors import NotAccepted, ProviderError, RateLimited, Transient
from schemas.words import Hypothesis
from tests.servers import assemblyai, gcs, google_speech
from tests.servers.scripted import Server
from tests.transcripts import is_a_transcript, request

ROOT = Path(__file__).parents[2]

#: Seconds that any single call of a remote recognizer may take.
CALL_S = 15.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def nothing(**_: Any) -> None:
    """A server that cannot misbehave."""


@dataclass
class Bench:
    """A recognizer under test."""

    recognizer: Any
    #: For remote ones with a server: misbehave as `tests.servers.scripted` describes; without arguments, be good again.
    switch: Callable[..., Awaitable[None]] = nothing
    #: What each charge was for.
    charges: Callable[[], list[str]] | None = None
    #: The switch that makes the provider fail what it accepted, and a change that makes it refuse a request.
    failing: dict[str, Any] = field(default_factory=lambda: {"fail_jobs": ["job-1"]})
    refused: dict[str, Any] = field(default_factory=lambda: {"job_id": ""})


class Sound:
    """`asr.protocols.Audio` over bytes."""

    def __init__(self, content: bytes = b"") -> None:
        self._content = content

    async def stream(self):
        yield self._content

    async def url(self) -> None:
        return None


def spoken(job_id):
    """Two tones in a WAV file, for each job of another pitch."""
    times = np.arange(3200) / 16_000
    tone = 9000 * np.sin(2 * np.pi * (300 + 10 * (zlib.crc32(job_id.encode()) % 50)) * times)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.tile(np.concatenate([np.zeros(1600), tone]), 2).astype(np.int16).tobytes())
    return content.getvalue()


@contextlib.asynccontextmanager
async def in_process(_folder):
    yield Bench(Scripted("scripted-a"))


@contextlib.asynccontextmanager
async def over_http(folder):
    server = Server(folder / "ledger.jsonl")
    async with TestServer(server.app()) as running, aiohttp.ClientSession() as session:

        async def switch(**switches):
            async with session.put(running.make_url("/switches"), json=switches) as answer:
                assert answer.status == 200, await answer.text()

        recognizer = Scripted("scripted-b", str(running.make_url("/")), timeout_s=1.0)
        yield Bench(recognizer, switch, lambda: [charge["marker"] for charge in server.ledger.charges])
        await recognizer.close()
        server.ledger.close()


@contextlib.asynccontextmanager
async def assemblyai_sdk(folder):
    server = assemblyai.Server(folder / "ledger.jsonl", key="a-key")
    async with TestServer(server.app()) as running, aiohttp.ClientSession() as session:

        async def switch(**switches):
            async with session.put(running.make_url("/switches"), json=switches) as answer:
                assert answer.status == 200, await answer.text()

        recognizer = AssemblyAI("assemblyai", "a-key", str(running.make_url("/")), timeout_s=1.0)
        recognizer._list.apart_s = 0.0
        charged = lambda: [charge["audio_url"] for charge in server.ledger.charges]  # noqa: E731
        yield Bench(recognizer, switch, charged, {"fail": True}, {"language": "tlh"})
        await recognizer.close()
        await switch()


@contextlib.asynccontextmanager
async def google_batch(folder):
    storage = gcs.Server(folder)
    async with TestServer(storage.app()) as lent:
        endpoint = str(lent.make_url("")).rstrip("/")
        server = google_speech.Server(folder / "ledger.jsonl", storage=endpoint)
        async with google_speech.serving(server) as asked:

            async def switch(*, error_5xx=False, **switches):
                server.switches = google_speech.Switches(unavailable=error_5xx, **switches)
                both = {name: switches[name] for name in ("refuse_429", "retry_after_s", "stall") if name in switches}
                storage.switches = gcs.Switches(error_5xx=error_5xx, **both)
                storage.changed()

            recognizer = batch(asked, endpoint)
            charged = lambda: [charge["uri"] for charge in server.ledger.charges]  # noqa: E731
            yield Bench(recognizer, switch, charged, {"file_error": True}, {"language": "no language"})
            await recognizer.close()
            await switch()


def batch(endpoint, storage, **options):
    """A recognizer of Google's by batches."""
    speech = Speech("google", project="our-project", endpoint=endpoint.rstrip("/"))
    bucket = Bucket("google", gcs.BUCKET, endpoint=storage, timeout_s=1.0)
    recognizer = GoogleBatch(speech, bucket, **{"timeout_s": 1.0} | options)
    recognizer._list.apart_s = 0.0
    return recognizer


REMOTE = {
    "scripted": in_process,
    "scripted over HTTP": over_http,
    "assemblyai": assemblyai_sdk,
    "google by batches": google_batch,
}
BILLED = ["scripted over HTTP", "assemblyai", "google by batches"]


@pytest_asyncio.fixture(params=REMOTE, loop_scope="module")
async def remote(request, tmp_path):
    async with REMOTE[request.param](tmp_path) as bench:
        yield bench


@pytest_asyncio.fixture(params=BILLED, loop_scope="module")
async def billed(request, tmp_path):
    """Those whose server bills, and can be made to misbehave."""
    async with REMOTE[request.param](tmp_path) as bench:
        yield bench


async def uploaded(recognizer, asked):
    """The request, with the URL of its audio if the recognizer knows it by that."""
    if not isinstance(recognizer, UploadingRecognizer):
        return asked
    url = await recognizer.upload(asked, Sound(spoken(asked.job_id)))
    return replace(asked, audio_url=url, since=datetime.now(UTC))


async def answered(recognizer, asked):
    """Submit, and poll until it is done."""
    asked = await uploaded(recognizer, asked)
    found = provider_id = await recognizer.submit(asked, Sound())
    while not isinstance(found, Hypothesis):
        found = await recognizer.poll(provider_id)
        if isinstance(found, Pending):
            await asyncio.sleep(found.seconds)
    return found


async def test_it_is_remote_and_not_local(remote):
    assert isinstance(remote.recognizer, RemoteRecognizer)
    assert not isinstance(remote.recognizer, LocalRecognizer)


async def test_a_recording_is_submitted_and_its_transcript_polled(remote):
    is_a_transcript(await answered(remote.recognizer, request(duration_ms=60_000)), remote.recognizer)


async def test_the_same_recording_gives_the_same_transcript(remote):
    one = await answered(remote.recognizer, request(marker="one"))
    two = await answered(remote.recognizer, request(marker="two"))

    assert one == two


async def test_the_language_asked_for_is_the_language_of_the_transcript(remote):
    assert (await answered(remote.recognizer, request(language="en-GB"))).language == "en-GB"


async def test_an_unknown_request_is_not_found_and_polling_it_is_a_final_no(remote):
    never = await uploaded(remote.recognizer, request("never-submitted"))

    assert await remote.recognizer.find(never) is None
    with pytest.raises(ProviderError):
        await remote.recognizer.poll("no-such-id")


async def test_closing_twice_is_safe(remote):
    await remote.recognizer.close()
    await remote.recognizer.close()


async def test_a_request_is_pending_until_it_is_done(billed):
    await billed.switch(delay_s=0.3)
    asked = await uploaded(billed.recognizer, request())
    provider_id = await billed.recognizer.submit(asked, Sound())

    waiting = await billed.recognizer.poll(provider_id)
    await asyncio.sleep(0.3)

    assert isinstance(waiting, Pending)
    assert 0 < waiting.seconds <= 60
    is_a_transcript(await billed.recognizer.poll(provider_id), billed.recognizer)


async def test_a_submission_is_charged_once_and_looking_is_free(billed):
    asked = await uploaded(billed.recognizer, request())
    provider_id = await billed.recognizer.submit(asked, Sound())
    await billed.recognizer.find(asked)
    await billed.recognizer.poll(provider_id)

    assert len(billed.charges()) == 1


async def test_a_request_whose_answer_was_lost_is_found_by_its_marker(billed):
    asked, other = [await uploaded(billed.recognizer, request(job)) for job in ("job-1", "job-2")]
    await billed.switch(lose_answer=1)
    with pytest.raises(Transient):
        await billed.recognizer.submit(asked, Sound())
    await billed.recognizer.submit(other, Sound())

    found = await billed.recognizer.find(asked)

    assert found is not None
    assert found != await billed.recognizer.find(other)
    is_a_transcript(await billed.recognizer.poll(found), billed.recognizer)
    assert len(billed.charges()) == len(set(billed.charges())) == 2


async def every_call(recognizer):
    """One coroutine function for each call that goes over the network."""
    asked, other = [await uploaded(recognizer, request(job)) for job in ("job-1", "job-2")]
    provider_id = await recognizer.submit(asked, Sound())
    calls = [
        lambda: recognizer.submit(other, Sound()),
        lambda: recognizer.find(asked),
        lambda: recognizer.poll(provider_id),
    ]
    uploads = isinstance(recognizer, UploadingRecognizer)
    return [*calls, lambda: recognizer.upload(other, Sound(spoken("job-2")))] if uploads else calls


async def test_a_pause_that_is_asked_for_is_passed_on_by_every_call(billed):
    calls = await every_call(billed.recognizer)
    await billed.switch(refuse_429=True, retry_after_s=7)

    for call in calls:
        with pytest.raises(RateLimited) as caught:
            await call()
        assert isinstance(caught.value, NotAccepted)
        assert caught.value.retry_after == 7


async def test_a_failing_server_is_transient_in_every_call(billed):
    calls = await every_call(billed.recognizer)
    await billed.switch(error_5xx=True)

    for call in calls:
        with pytest.raises(Transient):
            await call()
    assert len(billed.charges()) == 1


async def test_the_recognizer_states_how_long_a_lost_request_may_still_arrive(remote):
    assert 10 < remote.recognizer.settles_s < remote.recognizer.remembers_s


@pytest.mark.parametrize("how", [{"error_5xx": True}, {"stall": True}, {"lose_answer": 1}], ids=str)
async def test_a_submission_that_ends_like_this_may_have_been_accepted(billed, how):
    asked = await uploaded(billed.recognizer, request())
    await billed.switch(**how)

    with pytest.raises(Transient) as caught:
        await billed.recognizer.submit(asked, Sound())
    assert not isinstance(caught.value, NotAccepted)


async def test_a_reading_that_leaves_the_request_out_is_not_taken_for_proof(billed):
    asked = await uploaded(billed.recognizer, request())
    provider_id = await billed.recognizer.submit(asked, Sound())
    await billed.switch(gap=1)

    assert await billed.recognizer.find(asked) == provider_id


@pytest.mark.parametrize("page", [1, 2, 3])
async def test_a_request_is_found_however_small_the_pages_of_the_list_are(billed, page):
    asked = [await uploaded(billed.recognizer, request(f"job-{number}")) for number in range(4)]
    ids = [await billed.recognizer.submit(each, Sound()) for each in asked]
    await billed.switch(page=page, repeat=3)

    assert [await billed.recognizer.find(each) for each in asked] == ids
    never = await uploaded(billed.recognizer, request("never"))
    assert await billed.recognizer.find(never) is None


async def test_everything_that_was_asked_for_is_listed_and_known_again_as_far_as_it_can_be(billed):
    since = datetime.now(UTC)
    asked, other = [await uploaded(billed.recognizer, request(job)) for job in ("job-1", "job-2")]
    provider_id = await billed.recognizer.submit(asked, Sound())
    [listed] = await billed.recognizer.listed(since)

    assert listed.id == provider_id
    assert billed.recognizer.recalls(listed, asked)
    assert not billed.recognizer.recalls(listed, other)


async def test_a_server_that_never_answers_is_given_up_in_every_call(billed):
    calls = await every_call(billed.recognizer)
    await billed.switch(stall=True)

    for call in calls[:3]:  # an upload may take longer
        async with asyncio.timeout(CALL_S):
            with pytest.raises(Transient):
                await call()


async def test_a_refused_request_is_a_final_no(billed):
    asked = await uploaded(billed.recognizer, replace(request(), **billed.refused))

    with pytest.raises(ProviderError):
        await billed.recognizer.submit(asked, Sound())
    assert billed.charges() == []


async def test_a_recording_that_the_provider_cannot_transcribe_is_a_final_no(billed):
    await billed.switch(**billed.failing)
    asked = await uploaded(billed.recognizer, request())
    provider_id = await billed.recognizer.submit(asked, Sound())

    with pytest.raises(ProviderError):
        await billed.recognizer.poll(provider_id)


@pytest.mark.parametrize(
    "make",
    [
        lambda url: Scripted("scripted-a", url),
        lambda url: AssemblyAI("assemblyai", "a-key", url),
        lambda url: batch(url, url),
    ],
)
async def test_no_server_at_all_is_transient(make):
    recognizer = make(f"http://127.0.0.1:{unused_port()}")
    asked = replace(request(), audio_url="https://example.com/a.wav", since=datetime.now(UTC))

    with pytest.raises(NotAccepted):
        await recognizer.submit(asked, Sound())
    for call in (lambda: recognizer.find(asked), lambda: recognizer.poll("x"), lambda: recognizer.listed(asked.since)):
        with pytest.raises(Transient):
            await call()
    await recognizer.close()
