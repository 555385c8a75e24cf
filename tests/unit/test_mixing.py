"""No speaker of a recording is lost when its channels and tracks are mixed to one."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from agents.media.clips import clips
from agents.media.decoding.decoder import decode
from agents.media.decoding.mixing import Mixer
from agents.media.decoding.probe import probe
from tests.conftest import need
from tests.recordings import RATE, voice, write

pytestmark = pytest.mark.slow

need("av")

DATA = Path(__file__).parents[1] / "data"
SECONDS = 6
ANN, BEN = voice(SECONDS, 1), voice(SECONDS, 2)
NOBODY = np.zeros_like(ANN)
#: One after the other, as people talk.
FIRST, THEN = np.where(np.arange(len(ANN)) < len(ANN) // 2, [[1], [0]], [[0], [1]]).astype(np.float32)


def heard(path):
    return np.concatenate(list(decode(path)))


def stereo(path, left, right):
    return write(path, np.stack([left, right]), codec="flac")


def loudness(samples):
    """Decibels, full scale being 0."""
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples))) + 1e-9)


def share(samples, who):
    """How much of it is this voice: 1 if it is nothing else."""
    length = min(len(samples), len(who))
    return abs(np.corrcoef(samples[:length], who[:length])[0, 1])


@pytest.mark.parametrize("factor", [-1.0, -0.7, -0.3])
def test_a_channel_that_opposes_the_other_does_not_silence_it(tmp_path, factor):
    path = stereo(tmp_path / "a.flac", ANN, factor * ANN)

    assert share(heard(path), ANN) > 0.99
    assert loudness(heard(path)) > loudness(ANN) - 6
    assert "oppose each other" in probe(path).notes[0]


def test_the_opposed_channels_of_a_real_file_are_heard():
    path = DATA / "antiphase.flac"

    assert loudness(heard(path)) > -40
    assert "oppose each other in 100% of the recording" in probe(path).notes[0]


def test_channels_that_oppose_each_other_for_a_while_are_heard_all_the_while(tmp_path):
    path = stereo(tmp_path / "a.flac", ANN, np.where(FIRST > 0, ANN, -ANN))
    middle = len(ANN) // 2

    mixed = heard(path)

    assert min(share(mixed[:middle], ANN[:middle]), share(mixed[middle:], ANN[middle:])) > 0.99
    assert "oppose each other" in probe(path).notes[0]


@pytest.mark.parametrize("ben", [BEN, 0.1 * BEN], ids=["as loud", "quieter"])
def test_two_people_on_two_channels_are_both_heard(tmp_path, ben):
    path = stereo(tmp_path / "a.flac", ANN * FIRST, ben * THEN)
    middle = len(ANN) // 2

    mixed = heard(path)

    assert share(mixed[:middle], ANN[:middle]) > 0.99
    assert share(mixed[middle:], ben[middle:]) > 0.99
    assert loudness(mixed[middle:]) > loudness(ben[middle:]) - 7
    assert probe(path).notes == ()


def test_people_who_talk_at_once_are_both_heard(tmp_path):
    mixed = heard(stereo(tmp_path / "a.flac", ANN, BEN))

    assert min(share(mixed, ANN), share(mixed, BEN)) > 0.6


@pytest.mark.parametrize("channels", [[ANN, NOBODY], [NOBODY, ANN]])
def test_a_silent_channel_does_not_thin_the_other_out(tmp_path, channels):
    mixed = heard(stereo(tmp_path / "a.flac", *channels))

    assert abs(loudness(mixed) - loudness(ANN)) < 0.5


@pytest.mark.parametrize("channels", [6, 8, 24])
def test_of_many_channels_those_are_heard_in_which_somebody_talks(tmp_path, channels):
    samples = np.zeros((channels, len(ANN)))
    samples[1], samples[-1] = ANN, BEN
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples.T * 32767).astype("<i2").tobytes())

    mixed = heard(tmp_path / "a.wav")

    assert min(share(mixed, ANN), share(mixed, BEN)) > 0.6
    assert loudness(mixed) > loudness(ANN) - 4


def test_the_same_recording_comes_out_the_same_in_any_portions():
    samples = np.stack([ANN, np.where(FIRST > 0, -ANN, BEN)])
    whole = Mixer(2, RATE)
    expected = np.concatenate([*whole.mix(samples), *whole.flush()])

    for portion in (100, 4000, 70_001):
        mixer = Mixer(2, RATE)
        parts = [part for at in range(0, len(ANN), portion) for part in mixer.mix(samples[:, at : at + portion])]
        assert np.abs(np.concatenate([*parts, *mixer.flush()]) - expected).max() < 1e-6


def test_going_over_from_one_way_of_mixing_to_another_does_not_click():
    steady = np.full(4 * RATE, 0.5, dtype=np.float32)
    from_two_on = np.where(np.arange(4 * RATE) < 2 * RATE, 0, 0.002).astype(np.float32)
    mixer = Mixer(2, RATE)

    mixed = np.concatenate([*mixer.mix(np.stack([steady, from_two_on])), *mixer.flush()])

    assert (mixed[0], round(float(mixed[-1]), 3)) == (0.5, 0.251)
    assert np.abs(np.diff(mixed)).max() < 0.002


# -- tracks --


def test_the_track_with_speech_is_used_and_the_choice_is_noted():
    path = DATA / "two-tracks.m4a"

    assert loudness(heard(path)) > -40
    assert not probe(path).silent
    assert probe(path).notes == ("The recording has 2 sound tracks: track 2 was heard; track 1 was left out (silent).",)


@pytest.mark.parametrize("name", ["a.mka", "a.m4a", "a.ogg"])
def test_a_speaker_in_each_track_is_heard(tmp_path, name):
    codec = {"codec": "libopus", "rate": 48_000} if name == "a.ogg" else {}
    muxer = {"a.m4a": "ipod", "a.mka": "matroska", "a.ogg": "ogg"}[name]
    path = write(tmp_path / name, ANN * FIRST, BEN * THEN, NOBODY, muxer=muxer, **codec)
    middle = len(ANN) // 2

    mixed = heard(path)

    assert share(mixed[: middle - 800], ANN) > 0.9
    assert share(mixed[middle + 800 : len(BEN)], BEN[middle + 800 :]) > 0.9
    assert probe(path).notes == (
        "The recording has 3 sound tracks: tracks 1, 2 were mixed; track 3 was left out (silent).",
    )
    assert abs(probe(path).duration_ms - SECONDS * 1000) < 130


def test_a_second_track_of_the_same_sound_is_not_mixed_in(tmp_path):
    path = write(tmp_path / "a.m4a", ANN, -0.5 * ANN, muxer="ipod")

    assert share(heard(path), ANN) > 0.98
    assert "track 1 was heard; track 2 was left out (the same as track 1)" in probe(path).notes[0]


def test_a_track_that_begins_later_is_heard_at_its_time(tmp_path):
    path = write(tmp_path / "a.mka", ANN, BEN[: 3 * RATE], muxer="matroska")

    mixed = heard(path)

    assert abs(len(mixed) - len(ANN)) < 2000
    assert share(mixed[4 * RATE : 6 * RATE], ANN[4 * RATE : 6 * RATE]) > 0.98


def test_tracks_that_are_all_silent_make_a_silent_recording(tmp_path):
    path = write(tmp_path / "a.m4a", NOBODY, NOBODY, muxer="ipod")

    assert probe(path).silent
    assert probe(path).notes == ()


@pytest.mark.parametrize(
    ("languages", "says"),
    [
        (("eng", "deu"), "track 1 was heard; track 2 was left out (in another language, deu)"),
        (("eng", "eng"), "tracks 1, 2 were mixed"),
    ],
)
def test_of_languages_the_preferred_one_is_heard(tmp_path, languages, says):
    path = tmp_path / "a.mka"
    _retag(write(tmp_path / "plain.mka", ANN, BEN, muxer="matroska"), path, languages)

    assert says in probe(path).notes[0]


def test_a_commentary_is_not_mixed_in(tmp_path):
    from av.stream import Disposition

    path = tmp_path / "a.mka"
    _retag(write(tmp_path / "plain.mka", ANN, BEN, muxer="matroska"), path, ("und", "und"), Disposition.comment)

    assert "track 1 was heard; track 2 was left out (a commentary or the like)" in probe(path).notes[0]
    assert share(heard(path), ANN) > 0.98


def _retag(source, target, languages, second=None):
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams.audio}
        for stream, language in zip(streams.values(), languages, strict=True):
            stream.metadata["language"] = language
        if second is not None:
            list(streams.values())[1].disposition = second
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


def test_an_interval_of_a_recording_is_mixed_as_the_whole_is():
    path = DATA / "antiphase.flac"
    whole = heard(path)

    (found,) = clips(path, [(500, 1500)])

    assert np.abs(found - whole[RATE // 2 : RATE * 3 // 2]).max() < 1e-6
