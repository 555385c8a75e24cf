"""Google's BatchRecognize beyond the contract of recognizers: uploads, requests, results and cleaning up."""

from __future__ import annotations

import asyncio
import io
import logging
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
import pytest
from aiohttp.test_utils import TestServer

from agents.asr.google.batch_recognize import LATEST_S, LONGEST_MS, SOONEST_S, GoogleBatch
from agents.asr.protocols import Checked, ChunkedRecognizer, Pending, Request, UploadingRecognizer
from agents.commands.doctor import _recognizer as examined
from agents.fleet.environment import from_env
from agents.fleet.recognizers import open_recognizer, open_tiebreaker
from agents.media.decoding.decoder import decode
from schemas.errors import InDoubt, ProviderError, RefusedMedia, SettingsError, Transient, Unavailable
from tests.contract.test_google_speech import RATE, heard_all, key, tones
from tests.contract.test_recognizers import batch, is_a_transcript
from tests.servers import gcs
from tests.servers.google_speech import Server, Switches, serving

SECONDS = 20
ASKED = Request("acme", "j", 1, "concord-j-1-google", content_type="audio/mp4", duration_ms=SECONDS * 1000)


class Sound:
    """`asr.protocols.Audio`; `closed` when its bytes were given up or read."""

    def __init__(self, content, error=None):
        self.content, self.error, self.closed = content, error, False

    async def stream(self):
        try:
            for start in range(0, len(self.content), 10_000):
                yield self.content[start : start + 10_000]
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True

    async def url(self):
        return None


def recording(seconds=SECONDS, rate=48_000):
    """Tones in what Google does not detect: ALAC, stereo, 48 kHz."""
    loud = np.repeat(tones(seconds), rate // RATE)
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream = container.add_stream("alac", rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([loud, loud]).astype(np.float32), format="fltp", layout="stereo")
        frame.rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


CALL = recording()


@dataclass
class Bench:
    """The recognizer between its two servers."""

    server: Server
    storage: gcs.Server
    recognizer: GoogleBatch
    #: The environment that leads to the same.
    environ: dict[str, str]

    def switch(self, **switches):
        self.server.switches = Switches(**switches)

    async def submitted(self, asked=ASKED, content=CALL):
        """Upload and submit; the request with its URI, and the operation's name."""
        url = await self.recognizer.upload(asked, Sound(content))
        asked = replace(asked, audio_url=url, since=datetime.now(UTC))
        return asked, await self.recognizer.submit(asked, Sound(b""))

    async def heard(self, **more):
        _, name = await self.submitted(replace(ASKED, **more))
        return await self.recognizer.poll(name)

    @property
    def charges(self):
        return [charge["uri"] for charge in self.server.ledger.charges]

    @property
    def wish(self):
        """The newest request that was charged."""
        from google.cloud.speech_v2 import BatchRecognizeRequest

        return BatchRecognizeRequest.from_json(self.server.ledger.charges[-1]["request"])


@pytest.fixture
async def bench(tmp_path):
    storage = gcs.Server(tmp_path)
    async with TestServer(storage.app()) as lent:
        lending = str(lent.make_url("")).rstrip("/")
        server = Server(tmp_path / "ledger.jsonl", storage=lending)
        async with serving(server) as endpoint:
            recognizer = batch(endpoint, lending, timeout_s=5.0)
            environ = {
                "CONCORD_RECOGNIZERS": "google",
                "GOOGLE_CLOUD_PROJECT": "our-project",
                "GOOGLE_CLOUD_BUCKET": gcs.BUCKET,
                "GOOGLE_SPEECH_ENDPOINT": endpoint,
                "STORAGE_EMULATOR_HOST": lending,
            }
            yield Bench(server, storage, recognizer, environ)
            await recognizer.close()
            storage.changed()


async def test_the_recognizer_uploads_and_can_be_checked(bench):
    assert isinstance(bench.recognizer, UploadingRecognizer)
    assert isinstance(bench.recognizer, Checked)


# -- what goes up --


async def test_whatever_a_recording_is_it_goes_up_as_flac_with_every_word_in_its_place(bench):
    asked, name = await bench.submitted()
    [content] = bench.storage.objects.values()
    found = await bench.recognizer.poll(name)

    assert content[:4] == b"fLaC"
    assert asked.audio_url.startswith(f"gs://{gcs.BUCKET}/concord/concord-j-1-google/")
    is_a_transcript(found, bench.recognizer)
    heard_all(found, SECONDS)
    assert found.details == {"requests": 1, "billed_seconds": bench.server.ledger.charges[0]["billed"]}
    assert (found.language, found.model, found.confidence) == ("en-US", "long", 0.9)


async def test_every_upload_has_its_own_uri_and_costs_nothing(bench):
    one, two = [await bench.recognizer.upload(ASKED, Sound(CALL)) for _ in range(2)]

    assert one != two
    assert len(bench.storage.objects) == 2
    assert bench.server.called == {}


async def test_an_upload_leaves_nothing_on_the_disk_however_it_ends(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    broken = Sound(CALL, error=Unavailable("the store is away"))
    await bench.recognizer.upload(ASKED, Sound(CALL))
    with pytest.raises(Unavailable):
        await bench.recognizer.upload(ASKED, broken)
    with pytest.raises(RefusedMedia, match="HTML"):
        await bench.recognizer.upload(ASKED, Sound(b"<html>"))
    bench.storage.switches = gcs.Switches(stall=True)
    stalled = asyncio.create_task(bench.recognizer.upload(ASKED, Sound(CALL)))
    await asyncio.sleep(1)
    stalled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stalled

    assert broken.closed
    assert list(tmp_path.glob("concord-*")) == []
    assert len(bench.storage.objects) == 1


async def test_a_disk_without_room_is_waited_for(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    with pytest.raises(Unavailable, match="no room"):
        await bench.recognizer.upload(ASKED, Sound(CALL))


async def test_what_is_longer_than_google_takes_is_refused_before_it_goes_up(bench):
    sound = Sound(CALL)

    with pytest.raises(ProviderError, match="8 hours"):
        await bench.recognizer.upload(replace(ASKED, duration_ms=LONGEST_MS + 1), sound)
    assert not sound.closed


# -- what is asked --


async def test_what_is_asked_of_google(bench):
    await bench.submitted(replace(ASKED, language="en-GB"))

    sent = bench.wish
    assert sent.recognizer == "projects/our-project/locations/global/recognizers/_"
    assert (sent.config.model, list(sent.config.language_codes)) == ("long", ["en-GB"])
    assert sent.config.features.enable_word_confidence
    assert sent.config.features.enable_word_time_offsets
    assert "diarization_config" not in sent.config.features


async def test_speakers_are_labelled_over_the_whole_recording_if_requested(bench):
    found = await bench.heard(diarize=True, speakers=2)

    heard_all(found, SECONDS)
    asked = bench.wish.config.features.diarization_config
    assert (asked.min_speaker_count, asked.max_speaker_count) == (2, 2)
    assert [word.speaker for word in found.words[:3]] == ["1", "2", "1"]


# -- what is read --


@pytest.mark.parametrize("without", ["confidences", "language", "billing"])
async def test_what_an_answer_leaves_out_is_not_known(bench, without):
    bench.switch(without=[without])

    found = await bench.heard()

    heard_all(found, SECONDS)
    assert (found.confidence is None) == (without == "confidences")
    assert (found.language is None) == (without == "language")
    assert found.details["billed_seconds"] == SECONDS


@pytest.mark.parametrize("without", ["offsets", "words"])
async def test_words_without_times_stay_in_order(bench, without):
    bench.switch(without=[without])

    found = await bench.heard()

    assert [word.text for word in found.words] == [f"f{300 + 10 * n}" for n in range(SECONDS)]
    assert {(word.start_ms, word.end_ms) for word in found.words} == {(None, None)}


async def test_results_where_older_clients_look_for_them_are_read(bench):
    bench.switch(older=True)

    heard_all(await bench.heard(), SECONDS)


async def test_silence_is_an_answer_without_words(bench):
    silence = io.BytesIO()
    with av.open(silence, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 3 * RATE), np.int16), format="s16", layout="mono")
        frame.rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, name = await bench.submitted(content=silence.getvalue())

    found = await bench.recognizer.poll(name)

    assert (found.words, found.duration_ms, found.details["billed_seconds"]) == ((), None, 3)


async def test_an_answer_of_hours_of_words_is_read(bench):
    """More than the four megabytes that gRPC takes by itself."""
    bench.server.hear = lambda *_: [(f"word{n}" + "o" * 300, n / 3, n / 3 + 0.2, 0.5) for n in range(15_000)]

    assert len((await bench.heard()).words) == 15_000


async def test_an_operation_says_how_far_it_is_and_is_looked_at_ever_more_seldom(bench):
    bench.switch(delay_s=3600)
    _, name = await bench.submitted()
    young = await bench.recognizer.poll(name)
    bench.server.ledger.by_id[name]["charged_at"] -= 100
    older = await bench.recognizer.poll(name)
    bench.server.ledger.by_id[name]["charged_at"] -= 3600
    old = await bench.recognizer.poll(name)

    assert (young.seconds, young.progress) == (SOONEST_S, 0.5)
    assert older.seconds == pytest.approx(10, abs=1)
    assert old.seconds == LATEST_S


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("file_error", "the switch was on"),
        ("operation_error", "operation_error was on"),
        ("no_result", "0 transcripts"),
    ],
)
async def test_a_request_that_ends_without_words_is_final_and_not_asked_again(bench, how, said):
    bench.switch(**{how: True})

    with pytest.raises(ProviderError, match=said):
        await bench.heard()
    assert bench.server.called["batch"] == 1
    assert bench.storage.objects == {}


async def test_an_object_that_has_gone_is_a_final_no(bench):
    url = await bench.recognizer.upload(ASKED, Sound(CALL))
    await bench.recognizer._bucket.delete(url)
    name = await bench.recognizer.submit(replace(ASKED, audio_url=url), Sound(b""))

    with pytest.raises(ProviderError, match="Unable to open object"):
        await bench.recognizer.poll(name)


async def test_an_operation_that_has_expired_is_a_final_no(bench):
    _, name = await bench.submitted()
    bench.switch(forgotten=True)

    with pytest.raises(ProviderError, match="no longer"):
        await bench.recognizer.poll(name)


@pytest.mark.parametrize("call", ["batch", "get", "list"])
async def test_bytes_that_are_no_message_are_asked_for_again_and_charged_once(bench, call):
    bench.switch(garbage=1, on=[call])
    url = await bench.recognizer.upload(ASKED, Sound(CALL))
    asked = replace(ASKED, audio_url=url, since=datetime.now(UTC))

    async def insisting(call):
        try:
            return await call()
        except Transient:
            return None

    name = await insisting(lambda: bench.recognizer.submit(asked, Sound(b"")))
    name = await insisting(lambda: bench.recognizer.find(asked)) or name or await bench.recognizer.find(asked)
    found = await insisting(lambda: bench.recognizer.poll(name)) or await bench.recognizer.poll(name)

    heard_all(found, SECONDS)
    assert len(bench.charges) == 1


# -- what is left behind --


async def test_the_object_goes_when_the_answer_is_there_and_the_answer_stays(bench):
    bench.switch(delay_s=0.5)
    _, name = await bench.submitted()
    waiting = await bench.recognizer.poll(name)
    kept = len(bench.storage.objects)
    await asyncio.sleep(0.5)
    one, two = [await bench.recognizer.poll(name) for _ in range(2)]

    assert isinstance(waiting, Pending)
    assert kept == 1
    assert bench.storage.objects == {}
    assert one == two


@pytest.mark.parametrize("how", ["forbidden", "error_5xx", "stall"])
async def test_an_object_that_cannot_be_deleted_costs_a_line_in_the_log(bench, caplog, how):
    asked, name = await bench.submitted()
    bench.storage.switches = gcs.Switches(**{how: True}, on=["delete"])

    with caplog.at_level(logging.WARNING):
        heard_all(await bench.recognizer.poll(name), SECONDS)
    assert f"{asked.audio_url} stays in the bucket" in caplog.text


async def test_an_answer_about_something_else_deletes_nothing_of_it(bench):
    """Whoever else keeps something in the bucket."""
    bench.storage.objects["theirs.flac"] = bench.storage.objects["concord/ours.flac"] = b"x"
    await bench.heard()

    assert set(bench.storage.objects) == {"theirs.flac", "concord/ours.flac"}


# -- what is not asked twice --


async def test_a_lost_request_is_found_on_a_later_page_of_the_list(bench):
    url = await bench.recognizer.upload(ASKED, Sound(CALL))
    for _ in range(12):
        await bench.recognizer.submit(replace(ASKED, audio_url=url), Sound(b""))
    bench.switch(lose_answer=1)
    other = replace(ASKED, audio_url=await bench.recognizer.upload(ASKED, Sound(CALL)), since=datetime.now(UTC))
    with pytest.raises(Transient):
        await bench.recognizer.submit(other, Sound(b""))

    assert await bench.recognizer.find(other) == bench.server.ledger.charges[-1]["id"]
    assert bench.server.called["list"] == bench.server.brief_lists == 2 * 3  # read twice, for proof


async def test_where_a_list_comes_with_everything_only_it_is_taken_like_that(bench):
    bench.switch(no_masks=True)
    asked, name = await bench.submitted()

    assert await bench.recognizer.find(asked) == name
    assert bench.server.called["list"] == 4
    assert bench.server.brief_lists == 0


async def test_operations_that_do_not_say_what_they_are_about_leave_nothing_to_be_asked(bench):
    asked, _ = await bench.submitted()
    bench.switch(mute=True)
    other = replace(asked, audio_url=f"gs://{gcs.BUCKET}/concord/another.flac")

    with pytest.raises(InDoubt, match="do not say what they are about"):
        await bench.recognizer.find(other)


async def test_operations_older_than_the_object_may_be_about_anything(bench):
    asked, name = await bench.submitted()
    entry = bench.server.ledger.by_id[name]
    entry |= {"request": "{}", "ready_at": entry["charged_at"] + 3600}
    other = replace(asked, audio_url=f"gs://{gcs.BUCKET}/concord/another.flac")
    with pytest.raises(InDoubt, match="do not say what they are about"):
        await bench.recognizer.find(other)

    assert await bench.recognizer.find(replace(other, since=datetime.now(UTC) + timedelta(hours=1))) is None


async def test_where_requests_cannot_be_listed_none_is_asked_again(bench):
    asked, _ = await bench.submitted()
    bench.switch(forbidden=True, on=["list"])

    with pytest.raises(ProviderError, match=r"speech\.operations\.list.*whether it is paid for"):
        await bench.recognizer.find(asked)


async def test_a_list_that_takes_too_long_is_tried_again(bench):
    asked, _ = await bench.submitted()
    bench.recognizer._timeout_s = 0.2
    bench.switch(stall=True, on=["list"])

    with pytest.raises(Transient):
        await bench.recognizer.find(asked)


# -- settings and doctor --


def test_with_a_bucket_recordings_go_by_batches_and_a_tiebreaker_by_chunks():
    environ = {
        "CONCORD_TIEBREAKER": "google",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_SPEECH_ENDPOINT": "http://localhost:9",
        "STORAGE_EMULATOR_HOST": "http://localhost:8",
        "GOOGLE_CLOUD_BUCKET": "recordings",
    }

    assert isinstance(open_recognizer("google", from_env(environ)), GoogleBatch)
    assert isinstance(open_tiebreaker(from_env(environ)), ChunkedRecognizer)
    assert isinstance(open_recognizer("google", from_env(environ | {"GOOGLE_CLOUD_BUCKET": ""})), ChunkedRecognizer)


@pytest.mark.parametrize(
    "given",
    [
        {"GOOGLE_CLOUD_BUCKET": "gs://recordings"},
        {"GOOGLE_CLOUD_BUCKET": "recordings"},
        {"GOOGLE_CLOUD_BUCKET": "recordings", "STORAGE_EMULATOR_HOST": "https://localhost:8"},
        {"GOOGLE_CLOUD_BUCKET": "recordings", "STORAGE_EMULATOR_HOST": "localhost:8"},
    ],
    ids=str,
)
def test_a_bucket_that_cannot_be_written_to_is_said_at_start(given):
    plain = {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_SPEECH_ENDPOINT": "http://localhost:9"}

    with pytest.raises(SettingsError, match=r"GOOGLE_CLOUD_BUCKET|STORAGE_EMULATOR_HOST"):
        from_env({"CONCORD_RECOGNIZERS": "google"} | plain | given)


async def test_the_doctor_looks_at_all_of_it_and_is_not_billed(bench):
    finding = await examined("google", from_env(bench.environ), quick=False)

    assert finding.level == "ok"
    assert f"gs://{gcs.BUCKET}" in finding.result
    assert bench.server.called == {"recognize": 1, "list": 1}
    assert bench.charges == []
    assert bench.storage.objects == {}


@pytest.mark.parametrize(
    ("speech", "storage", "said"),
    [
        ({"unauthenticated": True}, {}, "does not accept our credentials"),
        ({"forbidden": True, "on": ["list"]}, {}, "speech.operations.list"),
        ({}, {"forbidden": True}, "Storage Object User"),
        ({"unavailable": True}, {}, "cannot be reached"),
    ],
    ids=str,
)
async def test_the_doctor_says_what_is_missing(bench, speech, storage, said):
    bench.switch(**speech)
    bench.storage.switches = gcs.Switches(**storage)

    finding = await examined("google", from_env(bench.environ), quick=False)

    assert finding.level == "fail"
    assert said in finding.result


async def test_the_doctor_names_a_bucket_that_is_not_there(bench):
    finding = await examined("google", from_env(bench.environ | {"GOOGLE_CLOUD_BUCKET": "another"}), quick=False)

    assert (finding.level, "GOOGLE_CLOUD_BUCKET" in finding.result) == ("fail", True)


async def test_no_part_of_the_key_is_shown(bench, tmp_path, caplog):
    file = key(tmp_path)
    settings = from_env(bench.environ | {"GOOGLE_APPLICATION_CREDENTIALS": str(file)})
    recognizer = open_recognizer("google", settings)
    with caplog.at_level(logging.DEBUG):
        await recognizer.upload(ASKED, Sound(CALL))
    await recognizer.close()

    assert "PRIVATE" not in repr(recognizer) + repr(settings) + caplog.text
    assert all("Authorization" not in headers for _, headers in bench.storage.calls)


def test_what_is_packed_is_what_was_decoded(tmp_path):
    """Sample by sample: the process packs what the prober and the other recognizers hear."""
    from agents.media.transcode import _answer

    source, target = tmp_path / "a.m4a", tmp_path / "a.flac"
    source.write_bytes(CALL)
    _answer({"path": str(source), "target": str(target)}, lambda _: None)

    one, two = [np.concatenate(list(decode(Path(path), RATE))) for path in (source, target)]
    assert np.array_equal(one, two)
