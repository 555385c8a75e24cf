"""The demo's voice: offline speech with two speakers and a plausible length."""

from __future__ import annotations

import numpy as np
import pytest

from agents.embedded.voice import VOICES, speak
from tests.conftest import need

need("espeakng_loader")


def test_two_voices_speak_and_are_not_the_same():
    one, rate = speak([(VOICES[0], "Good morning.")])
    other, _ = speak([(VOICES[1], "Good morning.")])

    assert rate == 22050
    assert 0.8 < len(one) / rate < 3
    assert np.abs(one).max() > 3000
    assert not np.array_equal(one[: len(other)], other[: len(one)])


def test_lines_follow_one_another():
    once, rate = speak([(VOICES[0], "Good morning.")], pause_ms=1000)
    twice, _ = speak([(VOICES[0], "Good morning."), (VOICES[1], "Good morning.")], pause_ms=1000)

    assert len(twice) - len(once) > 1.5 * rate


def test_an_unknown_voice_is_an_error():
    with pytest.raises(ValueError, match="no voice 'en-nowhere'"):
        speak([("en-nowhere", "Hello.")])
