"""Google Cloud Speech as a recognizer, by the vendor's own client against a local server that speaks its protocol.

What it has in common with other recognizers in pieces is in `test_recognizers_in_pieces.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import wave
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp.test_utils import unused_port

from agents.asr.google.recognize import PARALLEL, Google
from agents.asr.google.speech import Speech
from agents.asr.protocols import Request
from agents.asr.rate_limit import ProviderLimiter
from agents.commands.doctor import _google as examined
from agents.commands.doctor import _recognizer as recognizer
from agents.fleet.environment import from_env
from schemas.errors import ProviderError, SettingsError, Transient
from schemas.words import Hypothesis
from sinks.memory.database import MemoryDatabase
from tests.servers.google_speech import LIMIT_BYTES, Server, Switches, serving
from tests.servers.proxy import Proxy

RATE = 16_000
SPEECH = Path(__file__).parents[3] / "shared" / "speech"


def asked(**fields):
    return Request(tenant_id="acme", job_id="job", run=1, marker="m", **fields)


def write(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes())
    return path


def tones(seconds):
    """Every second, 0.3 s after it begins, a tone of 0.4 s, each of another pitch: "f300", "f310" ..."""
    times = np.arange(round(0.4 * RATE)) / RATE
    samples = np.zeros(seconds * RATE, np.float32)
    for n in range(seconds):
        begin = n * RATE + round(0.3 * RATE)
        samples[begin : begin + len(times)] = 0.3 * np.sin(2 * np.pi * (300 + 10 * n) * times)
    return samples


def heard_all(found, seconds):
    """Every tone once, in order, in its place."""
    assert [word.text for word in found.words] == [f"f{300 + 10 * n}" for n in range(seconds)]
    for n, word in enumerate(found.words):
        assert word.start_ms == pytest.approx(n * 1000 + 300, abs=25)
        assert word.end_ms == pytest.approx(n * 1000 + 700, abs=25)


class StoredResponses(dict):
    """`asr.protocols.ResponseCache` in memory."""

    async def get(self, key):
        return super().get(key)

    async def put(self, key, answer):
        self[key] = answer


@dataclass
class Bench:
    """A server, and as many recognizers at it as there were processes."""

    server: Server
    endpoint: str
    call: Path
    kept: StoredResponses = field(default_factory=StoredResponses)
    told: list[float] = field(default_factory=list)
    limiter: ProviderLimiter = field(default_factory=lambda: ProviderLimiter(MemoryDatabase(), "google"))

    def recognizer(self, **options):
        """Its options, and those of what it speaks with."""
        asking = {"project": "our-project", "endpoint": self.endpoint}
        how = {"timeout_s": 10.0}
        for name, value in options.items():
            (how if name in ("parallel", "retries", "timeout_s", "close_s") else asking)[name] = value
        return Google(Speech("google", **asking), **how)

    def switch(self, **switches):
        self.server.switches = Switches(**switches)

    async def transcribed(self, recognizer=None, path=None, **fields):
        google = recognizer or self.recognizer()
        try:
            return await google.transcribe_chunks(
                path or self.call, asked(**fields), self.told.append, self.kept, self.limiter
            )
        finally:
            if recognizer is None:
                await google.close()

    @property
    def charges(self):
        return sorted(self.server.charges().values())


SECONDS = 150


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    return write(tmp_path_factory.mktemp("call") / "call.wav", tones(SECONDS))


@pytest.fixture
async def bench(tmp_path, call):
    server = Server(tmp_path / "ledger.jsonl")
    async with serving(server) as endpoint:
        yield Bench(server, endpoint, call)
    server.ledger.close()


async def test_what_is_asked_of_google(bench):
    await bench.transcribed(bench.recognizer(location="eu", model="chirp_2", languages=("en-GB", "fr-FR")))

    sent = bench.server.asked
    assert sent.recognizer == "projects/our-project/locations/eu/recognizers/_"
    assert (sent.config.model, list(sent.config.language_codes)) == ("chirp_2", ["en-GB", "fr-FR"])
    assert sent.config.features.enable_word_confidence
    assert sent.config.features.enable_word_time_offsets
    assert "diarization_config" not in sent.config.features


@pytest.mark.parametrize(("asked_for", "sent"), [("en", "en-GB"), ("en-AU", "en-AU"), ("de", "de")])
async def test_a_language_is_sent_with_its_configured_region(bench, tmp_path, asked_for, sent):
    path = write(tmp_path / "a.wav", tones(2))

    found = await bench.transcribed(bench.recognizer(languages=("fr-FR", "en-GB")), path, language=asked_for)

    assert list(bench.server.asked.config.language_codes) == [sent]
    assert found.language == asked_for


# -- answers that leave something out, or say it twice --


@pytest.mark.parametrize("without", ["confidences", "language", "billing"])
async def test_what_an_answer_leaves_out_is_not_known(bench, without):
    bench.switch(without=[without])

    found = await bench.transcribed()

    heard_all(found, SECONDS)
    assert (found.confidence is None) == (without == "confidences")
    assert all((word.confidence is None) == (without == "confidences") for word in found.words)
    assert (found.language is None) == (without == "language")
    assert found.details["billed_seconds"] >= SECONDS


@pytest.mark.parametrize("without", [["offsets"], ["words"], ["words", "confidences"]], ids=" and ".join)
async def test_words_without_times_stay_in_order(bench, without):
    bench.switch(without=without)

    found = await bench.transcribed()

    assert [word.text for word in found.words] == [f"f{300 + 10 * n}" for n in range(SECONDS)]
    assert {(word.start_ms, word.end_ms) for word in found.words} == {(None, None)}


async def test_results_without_alternatives_are_no_words(bench):
    bench.switch(without=["alternatives"])

    assert (await bench.transcribed()).words == ()


async def test_words_that_diarization_repeats_are_not_doubled(bench):
    bench.switch(speakers=True)

    heard_all(await bench.transcribed(), SECONDS)


async def test_bytes_that_are_no_answer_are_not_paid_for_again(bench):
    bench.switch(garbage=True)

    with pytest.raises(ProviderError, match="no message"):
        await bench.transcribed()

    assert set(bench.charges) == {1}


# -- refusals, pauses, and what is tried again --


@pytest.mark.parametrize(
    ("name", "advice"), [("unauthenticated", "GOOGLE_APPLICATION_CREDENTIALS"), ("forbidden", "Cloud Speech Client")]
)
async def test_a_final_no_is_not_asked_for_twice(bench, name, advice):
    bench.switch(**{name: True})

    with pytest.raises(ProviderError, match=advice):
        await bench.transcribed()

    assert bench.server.calls <= PARALLEL


# -- what is paid for is kept --


async def test_another_model_or_language_is_another_question(bench, tmp_path):
    path = write(tmp_path / "a.wav", tones(2))
    for options in ({}, {"model": "short"}, {"location": "eu"}, {"languages": ("fr-FR",)}, {"project": "other"}):
        await bench.transcribed(bench.recognizer(**options), path)

    assert bench.server.calls == len(bench.kept) == 5


async def test_one_refused_chunk_does_not_cost_the_others_their_answers(bench):
    bench.switch(forbidden=1, delay_s=0.5)

    with pytest.raises(ProviderError):
        await bench.transcribed()

    assert len(bench.kept) == len(bench.charges) > 0
    bench.switch()
    heard_all(await bench.transcribed(), SECONDS)
    assert bench.charges == [1] * len(bench.kept)


async def test_a_connection_that_is_cut_in_between_costs_what_was_in_flight_at_most(bench):
    host, port = "127.0.0.1", int(bench.endpoint.rpartition(":")[2])
    bench.switch(delay_s=0.3)
    async with Proxy((host, port)) as proxy:
        google = bench.recognizer(endpoint=f"http://127.0.0.1:{proxy.port}", parallel=2)
        task = asyncio.create_task(bench.transcribed(google))
        while len(bench.server.ledger.charges) < 2:
            await asyncio.sleep(0.01)
        proxy.cut()

        heard_all(await task, SECONDS)
        await google.close()
    assert sum(bench.charges) <= len(bench.kept) + 2


async def test_a_connection_that_is_refused_for_a_while_costs_nothing(bench):
    async with Proxy(("127.0.0.1", int(bench.endpoint.rpartition(":")[2]))) as proxy:
        proxy.refuse = True
        google = bench.recognizer(endpoint=f"http://127.0.0.1:{proxy.port}")
        task = asyncio.create_task(bench.transcribed(google))
        await asyncio.sleep(1.5)
        proxy.heal()

        heard_all(await task, SECONDS)
        await google.close()
    assert set(bench.charges) == {1}


async def test_a_decoder_that_is_killed_between_two_chunks_is_replaced(bench):
    bench.switch(delay_s=0.3)
    google = bench.recognizer(parallel=1)
    task = asyncio.create_task(bench.transcribed(google))
    while not bench.server.calls:
        await asyncio.sleep(0.01)
    (decoder,) = decoders()
    os.kill(decoder, signal.SIGKILL)

    heard_all(await task, SECONDS)
    assert set(bench.charges) == {1}
    await google.close()
    assert decoders() == []


def decoders():
    """Decoding processes that are children of ours."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"agents.media.flac_chunks" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


async def test_the_event_loop_goes_on_meanwhile(bench):
    pauses, last = [], time.monotonic()
    task = asyncio.create_task(bench.transcribed())
    while not task.done():
        await asyncio.sleep(0.01)
        pauses.append(time.monotonic() - last)
        last = time.monotonic()

    assert sorted(pauses)[len(pauses) // 2] < 0.1  # the median: other processes may have the machine now and then


# -- the server keeps the vendor's limits --


@pytest.mark.parametrize("content", [b"", b"no sound", b"x" * (LIMIT_BYTES + 1)], ids=["none", "no sound", "big"])
async def test_the_server_refuses_what_the_vendor_refuses(bench, content):
    speech = Speech("google", project="our-project", endpoint=bench.endpoint)
    await speech.opened()

    with pytest.raises(ProviderError, match="InvalidArgument"):
        await speech.recognize(content, speech.config("auto"), 10.0)
    assert bench.charges == []
    await speech.close()


async def test_the_server_refuses_more_than_a_minute(bench):
    from agents.media.flac_chunks import flac

    speech = Speech("google", project="our-project", endpoint=bench.endpoint)
    await speech.opened()

    with pytest.raises(ProviderError, match="60 seconds"):
        await speech.recognize(flac(np.zeros(61 * RATE, np.float32)), speech.config("auto"), 10.0)
    await speech.close()


# -- settings, credentials, doctor --


def environment(**more):
    return {"CONCORD_RECOGNIZERS": "google,whisper-base", "GOOGLE_CLOUD_PROJECT": "p"} | more


def test_what_is_missing_is_listed_at_start():
    with pytest.raises(SettingsError) as caught:
        from_env({"CONCORD_RECOGNIZERS": "google", "GOOGLE_SPEECH_LOCATION": "a/b", "CONCORD_HTTP": "nonsense"})

    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SPEECH_LOCATION", "CONCORD_HTTP"):
        assert f"\n  {name}: " in str(caught.value)


def test_nothing_is_missing_where_google_is_not_asked_or_plaintext_needs_no_key():
    assert from_env({}).google_project is None
    settings = from_env(
        environment(GOOGLE_SPEECH_ENDPOINT="http://localhost:9", GOOGLE_SPEECH_LANGUAGES="en-GB, de-DE")
    )
    assert settings.google_languages == ("en-GB", "de-DE")


async def test_the_doctor_asks_without_being_billed(bench):
    settings = from_env(environment(GOOGLE_SPEECH_ENDPOINT=bench.endpoint))

    finding = await examined("google", settings, quick=False)

    assert finding.level == "ok"
    assert bench.server.calls == 1
    assert bench.charges == []


@pytest.mark.parametrize(
    ("switch", "said"),
    [("unauthenticated", "does not accept our credentials"), ("forbidden", "does not let our credentials do this")],
)
async def test_the_doctor_tells_wrong_keys_from_missing_permissions(bench, switch, said):
    bench.switch(**{switch: True})

    with pytest.raises(ProviderError, match=said):
        await examined("google", from_env(environment(GOOGLE_SPEECH_ENDPOINT=bench.endpoint)), quick=False)


@pytest.mark.parametrize(
    ("switch", "level", "said", "advice"),
    [
        ("unauthenticated", "fail", "refuses us: google does not accept our credentials", "APPLICATION_CREDENTIALS"),
        ("forbidden", "fail", "refuses us: google does not let our credentials", "APPLICATION_CREDENTIALS"),
        ("stall", "fail", "did not answer within", "GOOGLE_SPEECH_ENDPOINT"),
        ("unavailable", "fail", "cannot be reached or is out of order", "GOOGLE_SPEECH_ENDPOINT"),
        ("refuse_429", "warn", "asks for a pause", "try again later"),
    ],
)
async def test_the_doctor_advises_on_what_is_wrong(bench, monkeypatch, switch, level, said, advice):
    monkeypatch.setattr("agents.asr.google.recognize.CHECK_S", 1.0)
    bench.switch(**{switch: True})

    found = await recognizer("google", from_env(environment(GOOGLE_SPEECH_ENDPOINT=bench.endpoint)), quick=False)

    assert found.level == level
    assert said in found.result
    assert advice in found.advice


async def test_the_doctor_reports_a_server_that_is_unreachable():
    endpoint = f"http://127.0.0.1:{unused_port()}"

    with pytest.raises(Transient, match="cannot be reached"):
        await examined("google", from_env(environment(GOOGLE_SPEECH_ENDPOINT=endpoint)), quick=False)


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", '{"type": "secret-thing"}', '{"type": "service_account", "private_key": "hush"}'],
    ids=["absent", "empty", "no object", "unknown", "half"],
)
async def test_a_key_file_that_cannot_be_used_is_said_without_its_content(tmp_path, content):
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    settings = from_env(environment(GOOGLE_APPLICATION_CREDENTIALS=str(file)))

    with pytest.raises(SettingsError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        await examined("google", settings, quick=True)
    assert "hush" not in str(caught.value)
    assert "secret-thing" not in str(caught.value)
    google = Google(Speech("google", project="p", credentials=file))
    with pytest.raises(ProviderError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        await google.check()


async def test_with_a_key_the_connection_is_encrypted(bench, tmp_path):
    """A plaintext server is not talked to: the key's token never leaves in the clear."""
    google = bench.recognizer(endpoint=bench.endpoint.removeprefix("http://"), credentials=key(tmp_path), retries=0)

    with pytest.raises(Transient, match="cannot be reached"):
        await google.check()
    assert bench.server.calls == 0
    await google.close()


def key(folder, token_uri="https://127.0.0.1:9/token"):
    """A service account's key file, freshly made."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "private_key": private.decode(),
        "private_key_id": "1",
        "client_email": "concord@our-project.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    (folder / "key.json").write_text(json.dumps(account))
    return folder / "key.json"


# -- a real recognizer behind the server --


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs the recordings of ../shared/speech")
async def test_read_speech_comes_back_as_words(tmp_path):
    """Whisper listens on Google's behalf: pieces, encoding and times survive the way there and back."""
    from faster_whisper import WhisperModel

    from agents.embedded.weights import model_path
    from agents.media.decoding.decoder import decode

    model = await asyncio.to_thread(lambda: WhisperModel(str(model_path("tiny.en", None)), compute_type="int8"))

    def hear(samples, _rate):
        segments, _ = model.transcribe(samples, word_timestamps=True, vad_filter=True)
        return [(w.word.strip(), w.start, w.end, w.probability) for s in segments for w in s.words]

    sentence = np.concatenate(list(decode(SPEECH / "librivox-0880.wav")))
    path = write(tmp_path / "a.wav", np.concatenate([sentence, np.zeros(60 * RATE), sentence]))
    server = Server(tmp_path / "ledger.jsonl", hear)
    async with serving(server) as endpoint:
        bench = Bench(server, endpoint, path)
        found: Hypothesis = await bench.transcribed()

    text = " ".join(word.text for word in found.words).lower()
    assert text.count("young man") == 2
    late = [word for word in found.words if word.start_ms > 30_000]
    assert late[0].start_ms == pytest.approx(len(sentence) / RATE * 1000 + 60_000, abs=500)
    server.ledger.close()


# -- the server as a process --


async def test_a_killed_server_has_forgotten_nothing(tmp_path):
    port, control, ledger = unused_port(), unused_port(), tmp_path / "ledger.jsonl"
    path = write(tmp_path / "a.wav", tones(3))
    kept = []
    for switches in ({"lose_answer": True}, {}):
        process = await started(port, control, ledger, switches)
        google = Google(Speech("google", project="p", endpoint=f"http://127.0.0.1:{port}"), retries=0)
        with contextlib.suppress(Transient):
            kept.append(
                await google.transcribe_chunks(
                    path, asked(), lambda _: None, StoredResponses(), ProviderLimiter(MemoryDatabase(), "google")
                )
            )
        await google.close()
        process.kill()
        await process.wait()

    heard_all(kept[0], 3)
    assert len(kept) == 1
    (one, two) = [json.loads(line)["sha256"] for line in ledger.read_text().splitlines()]
    assert one == two


async def started(port, control, ledger, switches):
    """A server process that answers, with its switches set."""
    command = (sys.executable, "-m", "tests.servers.google_speech", "--port", str(port), "--control", str(control))
    process = await asyncio.create_subprocess_exec(*command, "--ledger", str(ledger), cwd=Path(__file__).parents[2])
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.put(f"http://127.0.0.1:{control}/switches", json=switches) as answer:
                    assert answer.status == 200
                    return process
            await asyncio.sleep(0.05)
