"""Cutting recordings into chunks: nothing is lost or doubled, every chunk has a length that recognizers take."""

from __future__ import annotations

import asyncio
import os
import signal
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.media.decoding.chunks import split
from agents.media.decoding.decoder import decode
from agents.media.flac_chunks import LONGEST_S, RATE, SHORTEST_S, FlacChunker, flac
from schemas.errors import RefusedMedia, Transient
from tests.examples import examples

pytestmark = pytest.mark.slow

#: Hertz: levels instead of sound. The cutter does not know the difference, and ten hours are nothing.
LEVELS = 100


def chunks_of(levels, portion=1000):
    portions = (levels[n : n + portion] for n in range(0, len(levels), portion))
    return list(split(portions, seconds=LONGEST_S, search_s=LONGEST_S - SHORTEST_S, rate=LEVELS))


def check(levels, chunks):
    """What holds for the chunks of anything."""
    lengths = [len(chunk.samples) for chunk in chunks]
    starts = [0, *np.cumsum(lengths)[:-1]]
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), levels)
    assert [chunk.start_ms for chunk in chunks] == [start * 1000 // LEVELS for start in starts]
    assert all(SHORTEST_S <= length / LEVELS <= LONGEST_S for length in lengths[:-1])
    assert 0 < lengths[-1] / LEVELS < LONGEST_S


def noise(seconds, seed):
    return np.random.default_rng(seed).uniform(-1, 1, round(seconds * LEVELS)).astype(np.float32)


@settings(deadline=None, max_examples=examples(60))
@given(seconds=st.floats(0.01, 600), portion=st.integers(1, 9000), seed=st.integers(0, 99), loud=st.floats(0, 1))
def test_the_chunks_are_the_recording_and_have_lengths_in_bounds(seconds, portion, seed, loud):
    levels = noise(seconds + 0.01, seed) * np.float32(loud)

    check(levels, chunks_of(levels, portion))


@settings(deadline=None, max_examples=examples(60))
@given(at=st.floats(30.2, 54.4), seed=st.integers(0, 99))
def test_a_recording_is_cut_in_the_pause_wherever_that_is(at, seed):
    levels = noise(70, seed)
    levels[round(at * LEVELS) : round((at + 0.4) * LEVELS)] = 0

    first = chunks_of(levels)[0]

    assert at <= len(first.samples) / LEVELS <= at + 0.4


@pytest.mark.slow
def test_ten_hours_of_silence():
    levels = np.zeros(36_000 * LEVELS, np.float32)

    check(levels, chunks_of(levels, 5000))


def test_flac_loses_nothing(tmp_path):
    samples = np.round(noise(300, 1) * 32768).clip(-32768, 32767).astype(np.float32) / 32768  # 30,000 of them
    (tmp_path / "a.flac").write_bytes(flac(samples))

    assert np.array_equal(np.concatenate(list(decode(tmp_path / "a.flac"))), samples)
    assert flac(samples) == flac(samples)


@pytest.fixture
def recording(tmp_path):
    """100 s of noise at 16 kHz with half a second of silence after 40 s."""
    samples = np.random.default_rng(0).integers(-9000, 9000, 100 * RATE, np.int16)
    samples[40 * RATE : 81 * RATE // 2] = 0
    with wave.open(str(tmp_path / "call.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return tmp_path / "call.wav"


async def all_of(chunker):
    found = []
    while (chunk := await chunker.next()) is not None:
        found.append(chunk)
    return found


async def test_a_process_cuts_and_the_chunks_follow_each_other(recording):
    async with FlacChunker(recording) as chunker:
        found = await all_of(chunker)
        assert await chunker.next() is None

    assert 40_000 <= found[0].length_ms <= 40_500
    assert [chunk.start_ms for chunk in found[1:]] == [p.start_ms + p.length_ms for p in found[:-1]]
    assert sum(chunk.length_ms for chunk in found) == 100_000
    assert chunker.pid is None


async def test_asking_several_at_a_time_gives_every_chunk_once(recording):
    async with FlacChunker(recording) as one, FlacChunker(recording) as other:
        together = await asyncio.gather(*(one.next() for _ in range(6)))
        expected = await all_of(other)

    assert [chunk for chunk in together if chunk is not None] == expected
    assert len(expected) < 6


@pytest.mark.slow
async def test_a_killed_process_is_transient_and_the_next_goes_on_where_it_was(recording):
    async with FlacChunker(recording) as undisturbed:
        expected = await all_of(undisturbed)
    async with FlacChunker(recording) as chunker:
        found = [await chunker.next()]
        os.kill(chunker.pid, signal.SIGSTOP)
        task = asyncio.create_task(chunker.next())
        await asyncio.sleep(0.05)
        os.kill(chunker.pid, signal.SIGKILL)
        with pytest.raises(Transient):
            await task
        found += await all_of(chunker)

    assert found == expected


@pytest.mark.slow
async def test_a_process_that_hangs_is_killed(recording):
    async with FlacChunker(recording, stall_s=1.5) as chunker:
        await chunker.next()
        os.kill(chunker.pid, signal.SIGSTOP)

        with pytest.raises(Transient, match="no progress"):
            await chunker.next()
        assert chunker.pid is None


async def test_what_is_no_recording_is_refused_every_time(tmp_path):
    (tmp_path / "call.wav").write_bytes(b"<html>")

    async with FlacChunker(tmp_path / "call.wav") as chunker:
        for _ in range(2):
            with pytest.raises(RefusedMedia, match="HTML"):
                await chunker.next()


async def test_a_silent_chunk_is_marked(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac(np.zeros(RATE, np.float32)))

    async with FlacChunker(tmp_path / "a.flac") as chunker:
        assert [chunk.silent for chunk in await all_of(chunker)] == [True]
