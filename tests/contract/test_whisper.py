"""Whisper's worker process: what happens to a recording when it is killed, cancelled or closed."""

from __future__ import annotations

import asyncio
import os
import signal
import wave
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio

from agents.embedded.voice import VOICES, speak
from schemas.errors import RefusedMedia, Transient
from tests.contract.test_local_recognizers import ignore, speech, whisper  # noqa: F401 - a fixture
from tests.transcripts import is_a_transcript, request

TALK = (
    "I see that it left our warehouse on Friday, and it will be with you tomorrow before noon.",
    "My order from last Tuesday has not arrived yet, and I would like to know when it was sent.",
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recognizer():
    """One for all tests: loading its model takes 2 s."""
    async with whisper() as it:
        yield it


async def test_english_speech_is_understood(recognizer, speech):  # noqa: F811
    hypothesis = await recognizer.transcribe(speech[0], request(duration_ms=speech[1]), ignore)

    assert "calling" in " ".join(word.text for word in hypothesis.words).lower()


async def test_a_recording_that_is_cancelled_in_the_middle_makes_room_for_the_next(recognizer, speech):  # noqa: F811
    task = asyncio.create_task(recognizer.transcribe(speech[0], request(), ignore))
    await asyncio.sleep(0.2)
    task.cancel()

    is_a_transcript(await recognizer.transcribe(speech[0], request(), ignore), recognizer)
    assert task.cancelled()


async def test_a_killed_process_is_transient_and_the_next_recording_gets_another(recognizer, speech):  # noqa: F811
    await recognizer.transcribe(speech[0], request(), ignore)
    task = asyncio.create_task(recognizer.transcribe(speech[0], request(), ignore))
    await asyncio.sleep(0.05)

    os.kill(recognizer.pid, signal.SIGKILL)

    with pytest.raises(Transient):
        await task
    is_a_transcript(await recognizer.transcribe(speech[0], request(), ignore), recognizer)


async def test_the_channels_of_a_call_are_heard_apart(recognizer, tmp_path):
    path, length_ms = tmp_path / "call.wav", call(tmp_path / "call.wav")
    asked, shares = replace(request(duration_ms=length_ms), diarize=True), []

    heard = await recognizer.transcribe(path, asked, shares.append)
    mixed = await recognizer.transcribe(path, replace(asked, speakers=3), ignore)

    is_a_transcript(heard, recognizer)
    said = [{plain(word.text) for word in heard.words if word.channel == channel} for channel in (0, 1)]
    own = [{plain(word) for word in text.split()} for text in TALK]
    for k, other in ((0, 1), (1, 0)):  # the voices' sound differs from run to run, and so does what is misheard
        mine, others = own[k] - own[other], own[other] - own[k]
        assert len(said[k] & mine) > max(len(mine) / 3, 3 * len(said[k] & others))
    assert shares == sorted(shares)
    assert {word.channel for word in mixed.words} == {None}


def plain(word):
    return word.lower().strip(".,?!")


def call(path):
    """A WAV file of two people on two channels, who talk at once for a second; its length in ms."""
    (agent, rate), (client, _) = (speak([(VOICES[n], text)]) for n, text in enumerate(TALK))
    samples = np.zeros((len(agent) + len(client) - rate, 2), dtype="<i2")
    samples[: len(client), 1], samples[len(client) - rate :, 0] = client, agent
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return len(samples) * 1000 // rate


async def test_what_is_no_recording_is_refused_with_what_it_is(recognizer, tmp_path):
    (tmp_path / "call.wav").write_bytes(b"<html>")

    with pytest.raises(RefusedMedia, match="HTML"):
        await recognizer.transcribe(tmp_path / "call.wav", request(), ignore)


async def test_closing_ends_the_process_and_no_other_starts(speech):  # noqa: F811
    async with whisper() as it:
        await it.transcribe(speech[0], request(), ignore)
        pid = it.pid
        await it.close()

        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(Transient):
            await it.transcribe(speech[0], request(), ignore)
        assert it.pid is None
