"""What is missing of a recording and what is not: lacing, stuffing, tags, padding, damage, and wrong headers."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from agents.media.decoding.decoder import decode
from agents.media.decoding.padding import sound_bytes
from agents.media.decoding.probe import probe
from schemas.errors import RefusedMedia
from tests.conftest import need
from tests.recordings import ID3V1, RATE, ape, id3v2, laced_matroska, lyrics3, voice, write

need("av")

#: Some 193 recordings, each spoilt and decoded: 7 s of CPU.
pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
SECONDS = 20
NOISE = random.Random(7).randbytes(300_000)

#: File name: how it is written.
KINDS = {
    "a.mp3": {"codec": "libmp3lame"},
    "bare.mp3": {"codec": "libmp3lame", "write_xing": "0", "id3v2_version": "0"},
    "a.aac": {"muxer": "adts"},
    "a.ac3": {"codec": "ac3", "rate": 48_000, "muxer": "ac3"},
    "a.flac": {"codec": "flac"},
    "a.ogg": {"codec": "libopus", "rate": 48_000},
    "a.m4a": {"muxer": "ipod"},
    "faststart.m4a": {"muxer": "ipod", "movflags": "faststart"},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"},
    "film.mp4": {"pictures": True},
    "a.mka": {"muxer": "matroska"},
    "mp3.mka": {"codec": "libmp3lame", "muxer": "matroska"},
    "cues first.mka": {"muxer": "matroska", "cues_to_front": "1", "reserve_index_space": "20000"},
    "film.mkv": {"muxer": "matroska", "pictures": True},
    "browser.webm": {"codec": "libopus", "rate": 48_000, "live": "1"},
    "a.ts": {"muxer": "mpegts"},
    "stuffed.ts": {"muxer": "mpegts", "muxrate": "1000000"},
    "film.ts": {"muxer": "mpegts", "pictures": True},
    "a.flv": {"rate": 44_100},
    "a.mpg": {"codec": "mp2", "rate": 44_100, "muxer": "mpeg"},
    "a.avi": {"codec": "libmp3lame"},
    "a.wav": {"codec": "pcm_s16le"},
    "rf64.wav": {"codec": "pcm_s16le", "rf64": "always"},
    "a.aiff": {"codec": "pcm_s16be"},
    "a.au": {"codec": "pcm_s16be"},
    "a.caf": {"codec": "pcm_s16le"},
    "a.amr": {"codec": "libopencore_amrnb", "rate": 8_000},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a recording of each kind, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def content(name):
        if name not in made:
            made[name] = write(folder / name, voice(SECONDS), **KINDS[name]).read_bytes()
        return made[name]

    return content


def probed(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return probe(path)


def refused(folder, name, content):
    with pytest.raises(RefusedMedia) as caught:
        probed(folder, name, content)
    return str(caught.value)


def overwritten(content, share, size, filling=None):
    """With a part of it replaced by noise, or by what is given."""
    start, length = int(len(content) * share), int(len(content) * size)
    filling = random.Random(3).randbytes(length) if filling is None else filling * length
    return content[:start] + filling + content[start + length :]


# -- what is no loss --


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_recording_has_lost_nothing(tmp_path, whole, name):
    found = probed(tmp_path, name, whole(name))

    assert abs(found.duration_ms - SECONDS * 1000) < 130
    assert found.notes == ()


@pytest.mark.parametrize("lacing", ["xiph", "fixed", "ebml"])
def test_laced_blocks_have_lost_nothing(tmp_path, lacing):
    samples = voice(6)
    path = laced_matroska(tmp_path / "laced.mka", samples, lacing)

    heard = np.concatenate(list(decode(path)))

    assert (probe(path).duration_ms, probe(path).notes) == (5600, ())
    assert np.abs(heard - samples[: len(heard)]).max() < 1e-4


def test_a_laced_recording_of_mkvmerge_has_lost_nothing():
    assert probe(DATA / "laced.mka").notes == ()
    assert probe(DATA / "laced.mka").duration_ms == 1200


@pytest.mark.parametrize("name", ["tag-ape.mp3", "tag-id3-appended.mp3", "tag-zeros.mp3"])
def test_tags_longer_than_the_recording_are_no_loss(name):
    found = probe(DATA / name)

    assert abs(found.duration_ms - 2000) < 50
    assert found.notes == ()


TAGS = {
    "ape": ape(NOISE),
    "ape without a header": ape(NOISE, header=False),
    "ape, id3v1": ape(NOISE) + ID3V1,
    "id3v2 with a footer": id3v2(NOISE, footer=True),
    "id3v2": id3v2(NOISE),
    "lyrics, id3v1": lyrics3(b"la la \xe9 la\r\n" * 9000) + ID3V1,
    "id3v1, padding": ID3V1 + bytes(3000),
    "ape, padding": ape(NOISE) + bytes(3000),
    "a page": b"<p>thank you</p>" * 20_000,
    "xmp": b"<?xpacket begin='\xef\xbb\xbf'?>" + b"<x:xmpmeta/>\n" * 20_000 + b"<?xpacket end='w'?>",
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("name", ["a.mp3", "bare.mp3", "a.aac", "a.ogg", "browser.webm", "a.wav"])
def test_tags_behind_a_recording_are_no_loss(tmp_path, whole, name, tag):
    found = probed(tmp_path, name, whole(name) + TAGS[tag])

    assert abs(found.duration_ms - SECONDS * 1000) < 130
    assert found.notes == ()


@pytest.mark.parametrize("name", ["a.mp3", "bare.mp3", "a.aac", "a.flac"])
def test_recordings_put_end_to_end_with_their_tags_have_lost_nothing(tmp_path, whole, name):
    both = whole(name) + ape(NOISE) + ID3V1 + id3v2(NOISE) + whole(name)

    found = probed(tmp_path, name, both)

    assert abs(found.duration_ms - 2 * SECONDS * 1000) < 250
    assert found.notes == ()


def test_an_amr_does_not_play_its_padding(tmp_path, whole):
    found = probed(tmp_path, "a.amr", whole("a.amr") + bytes(100_000))

    assert abs(found.duration_ms - SECONDS * 1000) < 130
    assert "100000 empty bytes" in found.notes[0]


def test_empty_bytes_instead_of_the_end_are_noted_where_no_header_has_the_length(tmp_path, whole):
    content = whole("bare.mp3")
    half = content[: len(content) // 2]

    found = probed(tmp_path, "bare.mp3", half + bytes(len(half)))

    assert abs(found.duration_ms - SECONDS * 500) < 130
    assert "if the recording is longer, it was not copied completely" in found.notes[0]


def test_chunks_behind_the_sound_of_a_wav_are_none(tmp_path, whole):
    chunk = b"_PMX" + struct.pack("<I", len(NOISE)) + NOISE

    assert probed(tmp_path, "a.wav", whole("a.wav") + chunk).duration_ms == SECONDS * 1000


def test_a_long_pad_is_looked_through_in_no_time(tmp_path):
    path = tmp_path / "pad"
    path.write_bytes(b"\xff\xfb\x90\x01\x02" + b"TAG" * 400_000 + bytes(1_000_000) + b"x" * 1_000_000)

    assert sound_bytes(path, 0, path.stat().st_size, zeros=True) == 5
    assert sound_bytes(path, 0, path.stat().st_size, zeros=False) > 1_000_000
    assert sound_bytes(path, 0, path.stat().st_size + 5_000, zeros=True) == 5
    assert sound_bytes(path, path.stat().st_size + 1, path.stat().st_size + 5_000, zeros=True) == 0


# -- damage in the middle --


@pytest.mark.parametrize("filling", [None, b"\0", b""], ids=["noise", "zeros", "cut out"])
@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "browser.webm", "a.ts", "stuffed.ts", "a.mpg"])
def test_of_a_recording_damaged_in_the_middle_the_rest_is_heard(tmp_path, whole, name, filling):
    found = probed(tmp_path, name, overwritten(whole(name), 0.5, 0.07, filling))

    assert found.duration_ms > SECONDS * 900
    assert len(found.notes) == 1
    assert ("damaged" in found.notes[0]) or ("without sound for 1.4 s" in found.notes[0])
    # About a fourteenth is lost, and up to a page or a cluster more; from the middle on.
    assert any(f"{tenths / 10:.1f} s" in found.notes[0] for tenths in range(13, 26))
    assert any(f"at {tenths / 10:.1f} s" in found.notes[0] for tenths in range(95, 106))


@pytest.mark.parametrize("filling", [None, b"\0"], ids=["noise", "zeros"])
@pytest.mark.parametrize("name", ["bare.mp3", "a.aac", "a.ac3", "a.m4a", "a.flv", "a.avi", "film.mp4", "film.mkv"])
def test_also_where_only_the_bytes_tell(tmp_path, whole, name, filling):
    found = probed(tmp_path, name, overwritten(whole(name), 0.5, 0.07, filling))

    assert len(found.notes) == 1
    assert "about 1." in found.notes[0]


def test_what_is_heard_of_a_damaged_mp3_is_the_sound_before_and_behind(tmp_path, whole):
    path = tmp_path / "a.mp3"
    path.write_bytes(overwritten(whole("a.mp3"), 0.5, 0.07))
    clean = tmp_path / "clean.mp3"
    clean.write_bytes(whole("a.mp3"))

    heard, said = (np.concatenate(list(decode(each))) for each in (path, clean))

    assert alike(heard[: 9 * RATE], said[: 9 * RATE])
    assert alike(heard[-8 * RATE :], said[-8 * RATE :])


def alike(one, other):
    """Whether they are the same sound, but for some hundredths of a second."""
    spectra = (np.fft.rfft(each, 2 * len(each)) for each in (one, other))
    shifted = np.fft.irfft(np.conj(next(spectra)) * next(spectra))
    return shifted.max() / np.sqrt(np.square(one).sum() * np.square(other).sum()) > 0.95


@pytest.mark.parametrize("name", ["a.mp3", "bare.mp3", "a.aac", "a.flac", "a.ogg", "browser.webm", "a.m4a"])
def test_a_recording_of_which_a_fourth_is_lost_is_refused(tmp_path, whole, name):
    assert "damaged" in refused(tmp_path, name, overwritten(whole(name), 0.4, 0.26))


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.m4a", "fragments.mp4", "a.wav", "a.ogg", "a.mka"])
def test_the_end_of_a_recording_is_missed(tmp_path, whole, name):
    assert "cut off" in refused(tmp_path, name, whole(name)[: int(len(whole(name)) * 0.93)])


def test_an_mp3_that_is_damaged_and_cut_off_is_cut_off(tmp_path, whole):
    content = overwritten(whole("a.mp3"), 0.3, 0.05)

    assert "cut off" in refused(tmp_path, "a.mp3", content[: int(len(content) * 0.8) + 7])


# -- headers that name less than there is, or more --


def with_length(content, mark, before, length, kind):
    """With another length in the field behind the mark, or at a place."""
    place = (content.index(mark) + before) if mark else before
    field = struct.pack(kind, length)
    return content[:place] + field + content[place + len(field) :]


#: File name: the mark before the field with the length, how far behind it, the field's kind, what it counts besides.
LENGTHS = {
    "a.wav": (b"data", 4, "<I", 0),
    "rf64.wav": (b"ds64", 16, "<Q", 0),
    "a.aiff": (b"SSND", 4, ">I", 8),
    "a.au": (None, 8, ">I", 0),
    "a.caf": (b"data", 4, ">q", 4),
}


@pytest.mark.parametrize("stated", [36, 2 * 32_000, 2 * 32_000 + 1])
@pytest.mark.parametrize("name", LENGTHS)
def test_sound_behind_its_stated_end_is_kept_and_noted(tmp_path, whole, name, stated):
    mark, before, kind, besides = LENGTHS[name]
    path = tmp_path / name

    found = probed(tmp_path, name, with_length(whole(name), mark, before, stated + besides, kind))

    assert abs(found.duration_ms - SECONDS * 1000) < 5
    assert sum(map(len, decode(path))) >= SECONDS * RATE - 100
    assert f"states {stated / 32_000:.1f} s of sound, but the file holds 20.0 s" in found.notes[0]


@pytest.mark.parametrize("stated", [0, -1])
@pytest.mark.parametrize("name", LENGTHS)
def test_a_live_recorder_states_no_length(tmp_path, whole, name, stated):
    mark, before, kind, _ = LENGTHS[name]

    found = probed(
        tmp_path, name, with_length(whole(name), mark, before, stated, kind if stated == 0 else kind.lower())
    )

    assert abs(found.duration_ms - SECONDS * 1000) < 5
    assert found.notes == ()


@pytest.mark.parametrize("name", ["a.wav", "a.au", "a.caf", "rf64.wav"])
def test_a_header_that_names_more_than_there_is_means_cut_off(tmp_path, whole, name):
    mark, before, kind, besides = LENGTHS[name]

    message = refused(tmp_path, name, with_length(whole(name), mark, before, 40 * 32_000 + besides, kind))

    assert "its header promises 40.0 s, but only 20.0 s are there" in message


# -- anything --


@pytest.mark.parametrize("name", ["a.mp3", "a.aac", "a.flac", "a.ogg", "a.m4a", "a.mka", "a.ts", "a.wav", "a.aiff"])
def test_whatever_happens_to_a_file_it_is_taken_or_refused(tmp_path, whole, name, seed):
    chance = random.Random(f"{seed} {name}")
    for number in range(4):
        content = bytearray(whole(name)[:40_000])
        for _ in range(chance.choice((1, 3, 30))):
            _mutate(content, chance)
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(content)
        with contextlib.suppress(RefusedMedia):
            found = probe(path)
            assert abs(sum(map(len, decode(path))) / 16 - found.duration_ms) < 300


def _mutate(content, chance):
    place = chance.randrange(min(len(content), chance.choice((64, 400, 40_000))))
    length = chance.choice((1, 4, 100, 5_000))
    match chance.choice(("overwrite", "cut", "insert", "repeat", "number")):
        case "overwrite":
            content[place : place + length] = chance.randbytes(length)
        case "cut":
            del content[place : min(place + length, len(content) - 1)]
        case "insert":
            content[place:place] = chance.randbytes(length)
        case "repeat":
            content[place:place] = content[-length:]
        case "number":
            content[place : place + 4] = chance.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"))
