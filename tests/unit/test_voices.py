"""Voices: how many there are among vectors, what the encoder makes of sound, and its checked weights."""

import numpy as np
import pytest

from agents.embedded.weights import has_voices, voices_path
from agents.voices.clustering import voices
from agents.voices.encoder import BANDS, RATE, SIZE, WINDOW, Encoder, loud, mel

RANDOM = np.random.default_rng(3)


def speech(*turns, spread=0.25):
    """Vectors about the directions of these voices, `turns` of (voice, vectors)."""
    directions = np.abs(np.random.default_rng(1).normal(size=(9, SIZE)))
    rows = [directions[voice] + spread * RANDOM.normal(size=(count, SIZE)) for voice, count in turns]
    vectors = np.concatenate(rows).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def groups(vectors, means):
    return (vectors @ means.T).argmax(axis=1)


@pytest.mark.parametrize(
    ("turns", "speakers", "count"),
    [
        ([(0, 40), (1, 30), (0, 50), (1, 20)], None, 2),
        ([(0, 80)], None, 1),
        ([(0, 40), (1, 30), (2, 30), (0, 20)], None, 3),
        ([(0, 80)], 2, 2),
        ([(0, 40), (1, 30), (2, 30)], 2, 2),
        ([(0, 200), (1, 4)], None, 1),  # a cough
        ([(0, 1)], 2, 1),
        ([(0, 200), (1, 30)], 2, 2),
    ],
)
def test_the_number_of_voices_is_guessed_or_asked_for(turns, speakers, count):
    assert len(voices(speech(*turns), speakers)) == count


def test_each_voice_gets_its_vectors():
    vectors = speech((0, 40), (1, 30), (0, 50), (1, 20))

    found = groups(vectors, voices(vectors))

    assert len(set(found[:40]) | set(found[70:120])) == 1
    assert len(set(found[40:70]) | set(found[120:])) == 1
    assert found[0] != found[40]


def test_no_speech_has_no_voices():
    assert len(voices(np.zeros((0, SIZE), dtype=np.float32))) == 0


def test_quiet_sound_is_raised_and_loud_sound_is_not():
    assert np.sqrt(np.mean(loud(np.full(100, 0.001, dtype=np.float32)) ** 2)) == pytest.approx(10**-1.5)
    assert loud(np.full(100, 0.5, dtype=np.float32))[0] == 0.5
    assert loud(np.zeros(9, dtype=np.float32)).tolist() == [0.0] * 9


def test_a_tone_is_in_its_band():
    samples = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)

    bands = mel(samples)

    assert bands.shape == (101, BANDS)
    assert bands.mean(axis=0).argmax() == 13  # 1000 Hz is 15 mels, and each of 41 steps is 1.1


@pytest.mark.skipif(not has_voices(), reason="the extra `local` is not installed")
def test_the_encoder_makes_unit_vectors_that_depend_on_the_sound(tmp_path):
    encoder = Encoder(voices_path(tmp_path))
    windows = np.abs(RANDOM.normal(size=(3, WINDOW, BANDS))).astype(np.float32) * 0.01

    vectors = encoder.vectors(windows)

    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert np.allclose(encoder.vectors(windows[:1]), vectors[:1], atol=1e-5)
    assert (tmp_path / next(tmp_path.iterdir()).name / "pretrained.pt").stat().st_size == 17_090_379
