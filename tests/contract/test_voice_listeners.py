"""What tells voices apart must do: one suite for the process and for its double."""

from __future__ import annotations

import asyncio
import contextlib
import wave

import numpy as np
import pytest

from agents.commands.demo_recordings import RATE, noise, telephone
from agents.embedded.voice import VOICES, speak
from agents.embedded.weights import has_voices, voices_path
from agents.voices.listening import Listener
from agents.voices.scripted import ScriptedListener
from schemas.errors import ProviderError, ServerError, Transient

LINES = (
    (0, "Good morning, Northwind support, this is Martin speaking. How can I help you today?"),
    (1, "Hello Martin, my name is Clara Hughes. My order from last Tuesday has not arrived yet."),
)


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """A recording of two voices, when each speaks (ms), and its length."""
    parts = [speak([(VOICES[who], text)], pause_ms=300) for who, text in LINES]
    path = tmp_path_factory.mktemp("call") / "call.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, parts[0][1], 0, "NONE", ""))
        file.writeframes(b"".join(samples.tobytes() for samples, _ in parts))
    first, second = (len(samples) * 1000 // rate for samples, rate in parts)
    return path, [(0, first - 300), (first, first + second - 300)]


def write(path, samples, rate):
    """A mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.asarray(samples, dtype="<i2").tobytes())


@contextlib.asynccontextmanager
async def process():
    listener = Listener(voices_path)
    yield listener
    await listener.close()


@contextlib.asynccontextmanager
async def scripted():
    yield ScriptedListener((5600,))


@pytest.fixture(params=[process, scripted], ids=lambda opened: opened.__name__)
async def listener(request):
    if request.param is process and not has_voices():
        pytest.skip("the extra `local` is not installed")
    async with request.param() as opened:
        yield opened


def spoken(voices, speech):
    """The voice that each interval of speech is like, in its middle second."""
    middles = [sum(interval) / 2 for interval in speech]
    near = [np.abs(voices.times_ms - middle) < 500 for middle in middles]
    return [int(voices.alike[rows].mean(axis=0).argmax()) for rows in near]


async def test_two_people_are_two_voices(listener, call):
    path, speech = call
    shares = []

    voices = await listener.listen(path, speech, None, shares.append)

    assert voices.count == 2
    assert len(set(spoken(voices, speech))) == 2
    assert list(voices.times_ms) == sorted(voices.times_ms)
    assert all(any(start <= time <= end + 300 for start, end in speech) for time in voices.times_ms)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


async def test_as_many_voices_are_found_as_are_asked_for(listener, call):
    path, speech = call

    assert (await listener.listen(path, speech, 1, lambda _: None)).count == 1
    assert (await listener.listen(path, speech, 3, lambda _: None)).count == 3


async def test_nothing_said_has_no_times(listener, call):
    voices = await listener.listen(call[0], [], None, lambda _: None)

    assert len(voices.times_ms) == 0


async def test_the_same_again_and_at_once(listener, call):
    path, speech = call

    one, other = await asyncio.gather(*(listener.listen(path, speech, None, lambda _: None) for _ in range(2)))

    assert (one.alike == other.alike).all()


async def test_a_print_is_the_same_again_and_of_length_1(listener, call):
    path, shares = call[0], []
    by_speaker = {"A": [(0, 60_000)], "B": []}

    one = await listener.prints(path, by_speaker, shares.append)
    other = await listener.prints(path, by_speaker, lambda _: None)

    assert one == other
    assert list(one) == ["A"]
    assert np.linalg.norm(np.frombuffer(one["A"].vector, dtype="<f4")) == pytest.approx(1, abs=1e-5)
    assert one["A"].model
    assert one["A"].seconds >= 5
    assert (shares[-1], shares) == (1.0, sorted(shares))


async def test_who_says_little_has_no_print(listener, call):
    assert await listener.prints(call[0], {"A": [(0, 1500)]}, lambda _: None) == {}
    assert await listener.prints(call[0], {}, lambda _: None) == {}


async def test_who_is_closed_listens_no_more(listener, call):
    await listener.close()
    await listener.close()

    with pytest.raises(Transient):
        await listener.listen(*call, None, lambda _: None)
    with pytest.raises(Transient):
        await listener.prints(call[0], {"A": [(0, 9000)]}, lambda _: None)


async def test_a_cancelled_call_leaves_it_usable(listener, call):
    path, speech = call
    task = asyncio.create_task(listener.listen(path, speech, None, lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert (await listener.listen(path, speech, None, lambda _: None)).count == 2


async def test_a_missing_model_is_told_with_its_remedy(call):
    def missing():
        raise ServerError("the package resemblyzer is not installed: run `make install`.")

    with pytest.raises(ProviderError, match="make install"):
        await Listener(missing).listen(*call, None, lambda _: None)


@pytest.mark.skipif(not has_voices(), reason="the extra `local` is not installed")
async def test_prints_are_nearer_to_the_same_voice_than_to_another_also_through_a_telephone(tmp_path):
    path, at, turns = tmp_path / "calls.wav", 0, []
    parts = [speak([(VOICES[who], f"{text} {text}")], pause_ms=400) for who, text in (*LINES, *LINES[::-1])]
    for samples, rate in parts:
        turns.append((at, at + len(samples) * 1000 // rate - 400))
        at += len(samples) * 1000 // rate
    every = np.concatenate([samples for samples, _ in parts])
    samples = np.interp(np.arange(0, len(every) - 1, parts[0][1] / RATE), np.arange(len(every)), every)
    write(path, samples, RATE)
    async with process() as listener:
        by_speaker = {"A1": [turns[0]], "B1": [turns[1]], "B2": [turns[2]], "A2": [turns[3]]}
        heard = await listener.prints(path, by_speaker, lambda _: None)
        write(tmp_path / "telephone.wav", telephone(samples), RATE)
        narrow = await listener.prints(tmp_path / "telephone.wav", by_speaker, lambda _: None)
        write(tmp_path / "noise.wav", noise(samples) / 2, RATE)
        noisy = await listener.prints(tmp_path / "noise.wav", by_speaker, lambda _: None)
    vectors, through = (
        {name: np.frombuffer(one.vector, dtype="<f4") for name, one in prints.items()} for prints in (heard, narrow)
    )

    assert noisy == {}  # the voices cannot be told from the noise
    assert min(vectors[name] @ through[name] for name in by_speaker) > 0.95
    assert sorted(vectors) == ["A1", "A2", "B1", "B2"]
    assert vectors["A1"] @ vectors["A2"] > max(vectors["A1"] @ vectors["B1"], vectors["A1"] @ vectors["B2"])
    assert vectors["B1"] @ vectors["B2"] > max(vectors["B1"] @ vectors["A1"], vectors["B1"] @ vectors["A2"])


@pytest.mark.skipif(not has_voices(), reason="the extra `local` is not installed")
async def test_a_killed_process_is_transient_and_the_next_call_starts_another(call):
    path, speech = call
    async with process() as listener:
        await listener.listen(path, speech, None, lambda _: None)
        task = asyncio.create_task(listener.listen(path, speech, None, lambda _: None))
        await asyncio.sleep(0.05)
        listener._worker._child.kill()
        with pytest.raises(Transient, match="telling voices apart"):
            await task
        assert (await listener.listen(path, speech, None, lambda _: None)).count == 2


async def test_what_is_no_recording_is_refused(tmp_path):
    from schemas.errors import RefusedMedia

    path = tmp_path / "call.wav"
    path.write_bytes(b"Dear Sir,")
    if not has_voices():
        pytest.skip("the extra `local` is not installed")
    async with process() as listener:
        with pytest.raises(RefusedMedia):
            await listener.listen(path, [(0, 1000)], None, lambda _: None)
