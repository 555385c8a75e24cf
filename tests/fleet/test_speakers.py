"""Speakers in a fleet: by voices, by recognizers' labels and by channels; whatever fails on the way, once."""

import io
import wave

import numpy as np
import orjson
import pytest

from agents.asr.speech_windows import recording_in_parts
from agents.stages import reconcile
from agents.stages.speaking import NO_VOICES
from agents.voices.scripted import ScriptedListener
from schemas.errors import Transient
from schemas.words import Hypothesis, Word
from tests.fleet.conftest import JOB, FakeRecognizer
from tests.recordings import RATE, voice

DIARIZED = {"diarize": True}
#: How a text of four words a turn sounds, with a word each 400 ms.
TEXT = "how can i help my order is late"
CALLER_MS = 1600
ABLE = {"a": frozenset({"diarize"})}


class Labels(FakeRecognizer):
    """Labels its words as this text has it, a letter a word."""

    def __init__(self, name, labels, text=TEXT):
        super().__init__(name, text=text)
        self.labels = labels

    async def poll(self, provider_id):
        heard = await super().poll(provider_id)
        words = [
            Word(w.text, w.start_ms, w.end_ms, 0.9, label) for w, label in zip(heard.words, self.labels, strict=True)
        ]
        return Hypothesis(self.name, tuple(words), "en", 500, 0.9)


class Loudness:
    """A local recognizer that hears a word in every half second in which somebody speaks, channel by channel."""

    at_once = 2

    def __init__(self, name):
        self.name = name

    async def transcribe(self, audio, request, progress):
        words = []
        task = {"path": str(audio), "diarize": request.diarize, "speakers": request.speakers}
        for part in recording_in_parts(task, beat=lambda: None):
            halves = part.chunk.samples[: len(part.chunk.samples) // 8000 * 8000].reshape(-1, 8000)
            for n in np.flatnonzero(np.abs(halves).max(axis=1) > 0.05).tolist():
                at = part.chunk.start_ms + 500 * n
                words.append(Word(f"word{n}", at, at + 450, 0.9, channel=part.channel))
        progress(1.0)
        return Hypothesis(self.name, tuple(sorted(words, key=lambda word: word.start_ms)), "en", 12_000, 0.9)

    async def close(self): ...


def recording(*channels):
    """A WAV file of these channels."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((len(channels), 2, RATE, 0, "NONE", ""))
        file.writeframes((np.stack(channels).T * 32767).astype("<i2").tobytes())
    return content.getvalue()


TURN = (np.arange(12 * RATE) // (3 * RATE)) % 2
CALL = voice(12, 1) * (TURN == 0), voice(12, 5) * (TURN == 1)


async def ended(scenario, **upload):
    """The job's only terminal event: its topic and data."""
    await scenario.upload(**upload)
    await scenario.fleet.run()
    [terminal] = [(topic, event) for topic in ("persisted", "job.failed") for event in scenario.fleet.events(topic)]
    return terminal


def turns(scenario):
    [transcript] = scenario.fleet.database.transcripts.values()
    return [(segment["speaker"], segment["text"]) for segment in transcript.segments]


async def test_voices_tell_the_speakers_apart_whatever_the_recognizers_can(make_scenario):
    listener = ScriptedListener((CALLER_MS,))
    scenario = make_scenario(FakeRecognizer("a", TEXT), FakeRecognizer("b", TEXT), voices=listener)

    topic, _ = await ended(scenario, options=DIARIZED)

    assert topic == "persisted"
    assert turns(scenario) == [("A", "how can i help"), ("B", "my order is late")]
    assert listener.asked == [None]
    [transcript] = scenario.fleet.database.transcripts.values()
    assert "Speakers are told apart by their voices." in transcript.reconciliation_notes


async def test_nobody_listens_to_voices_unless_that_is_asked_for(make_scenario):
    listener = ScriptedListener((CALLER_MS,))
    scenario = make_scenario(FakeRecognizer("a", TEXT), voices=listener)

    await ended(scenario)

    assert listener.asked == []
    assert turns(scenario) == [(None, TEXT)]


async def test_the_number_of_speakers_may_be_asked_for(make_scenario):
    listener = ScriptedListener((CALLER_MS,))
    scenario = make_scenario(FakeRecognizer("a", TEXT), voices=listener)

    await ended(scenario, options=DIARIZED | {"speakers": 3})

    assert listener.asked == [3]


async def test_a_recognizer_that_labels_tells_how_many_there_are_and_is_one_opinion(make_scenario):
    listener = ScriptedListener((CALLER_MS + 800,))
    scenario = make_scenario(Labels("a", "1111222" + "2"), FakeRecognizer("b", TEXT), voices=listener, abilities=ABLE)

    await ended(scenario, options=DIARIZED)

    assert listener.asked == [2]
    assert turns(scenario) == [("A", "how can i help"), ("B", "my order is late")]


async def test_without_a_voice_model_a_recognizers_labels_are_the_speakers(make_scenario):
    scenario = make_scenario(Labels("a", "xxxxyyyy"), FakeRecognizer("b", TEXT), abilities=ABLE)

    await ended(scenario, options=DIARIZED)

    assert turns(scenario) == [("x", "how can i help"), ("y", "my order is late")]


async def test_mono_without_a_voice_model_fails_with_a_reason(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", TEXT), abilities={"a": frozenset({"channels"})})

    topic, event = await ended(scenario, options=DIARIZED)

    assert (topic, event["code"]) == ("job.failed", "unsupported_option")
    assert event["error"] == NO_VOICES


async def test_a_listener_that_dies_is_asked_again(make_scenario):
    listener = ScriptedListener((CALLER_MS,), [Transient("its process died"), None])
    scenario = make_scenario(FakeRecognizer("a", TEXT), voices=listener)

    topic, _ = await ended(scenario, options=DIARIZED)

    assert topic == "persisted"
    assert listener.asked == [None, None]
    assert turns(scenario) == [("A", "how can i help"), ("B", "my order is late")]


async def test_a_listener_that_always_dies_ends_the_job_with_a_reason(make_scenario):
    listener = ScriptedListener((CALLER_MS,), [Transient("its process died")] * 9)
    scenario = make_scenario(FakeRecognizer("a", TEXT), voices=listener)

    topic, event = await ended(scenario, options=DIARIZED)

    assert topic == "job.failed"
    assert "its process died" in event["error"]


class Killed(BaseException):
    """Ends a process at a failpoint: nothing after it is done."""


@pytest.mark.parametrize("point", ["reconcile.judged", "reconcile.stored"])
async def test_a_kill_repeats_the_listening_and_makes_one_transcript(make_scenario, monkeypatch, point):
    armed = [point]

    def passing(name):
        if name in armed:
            armed.clear()
            raise Killed

    monkeypatch.setattr(reconcile, "passing", passing)
    listener = ScriptedListener((CALLER_MS,))
    scenario = make_scenario(FakeRecognizer("a", TEXT), voices=listener)
    await scenario.upload(options=DIARIZED)
    with pytest.raises(Killed):
        await scenario.fleet.run()
    await scenario.fleet.run()

    assert armed == []
    assert len(scenario.terminal()) == 1
    assert turns(scenario) == [("A", "how can i help"), ("B", "my order is late")]
    assert listener.asked == [None, None]


async def test_names_are_hidden_in_a_transcript_with_speakers(make_scenario):
    text = "my name is Jonathan Miller what can you do"
    scenario = make_scenario(FakeRecognizer("a", text), voices=ScriptedListener((2000,)))

    await ended(scenario, options=DIARIZED | {"redact_pii": True})

    assert turns(scenario) == [("A", "my name is [NAME]"), ("B", "what can you do")]


async def test_an_empty_recording_has_no_speakers(make_scenario):
    scenario = make_scenario(FakeRecognizer("a", ""), voices=ScriptedListener())

    topic, _ = await ended(scenario, options=DIARIZED)

    assert topic == "persisted"


@pytest.mark.parametrize("recognizers", [[Loudness("a")], [Loudness("a"), Loudness("b")]])
async def test_a_call_on_two_channels_is_heard_channel_by_channel(make_scenario, recognizers):
    listener = ScriptedListener()
    scenario = make_scenario(*recognizers, voices=listener)

    await ended(scenario, options=DIARIZED, content=recording(*CALL))

    assert [speaker for speaker, _ in turns(scenario)] == ["A", "B", "A", "B"]
    assert listener.asked == []
    stored = orjson.loads(await scenario.store.get(scenario.store.uri(f"t/{JOB}/hypotheses/a.json")))
    assert {word["channel"] for word in stored["words"]} == {0, 1}


async def test_who_hears_the_channels_mixed_agrees_with_who_hears_them_apart(make_scenario):
    mixed = FakeRecognizer("b", " ".join(f"word{n}" for n in range(24)))
    scenario = make_scenario(Loudness("a"), mixed, abilities={"a": frozenset({"channels"})})

    await ended(scenario, options=DIARIZED, content=recording(*CALL))

    assert {speaker for speaker, _ in turns(scenario)} == {"A", "B"}


@pytest.mark.parametrize("channels", [(sum(CALL), sum(CALL)), (CALL[0] + CALL[1],)])
async def test_dual_mono_goes_by_voices(make_scenario, channels):
    listener = ScriptedListener((6000,))
    scenario = make_scenario(Loudness("a"), voices=listener)

    await ended(scenario, options=DIARIZED, content=recording(*channels))

    assert listener.asked == [None]
    assert {speaker for speaker, _ in turns(scenario)} == {"A", "B"}


async def test_another_number_of_speakers_than_channels_goes_by_voices(make_scenario):
    listener = ScriptedListener((6000,))
    scenario = make_scenario(Loudness("a"), voices=listener)

    await ended(scenario, options=DIARIZED | {"speakers": 3}, content=recording(*CALL))

    assert listener.asked == [3]
