"""Limits of a probe: the resources that a hostile file may use, and the files that it may read."""

from __future__ import annotations

import struct
import time

import pytest

from agents.media.decoding.formats import CODECS, CONTAINERS
from agents.media.decoding.limits import MAX_DURATION_MS, Limits
from agents.media.decoding.probe import probe
from agents.media.decoding.recording import MAX_SOUND_TRACKS, MAX_TRACKS, Recording
from agents.media.probe_pool import ProbePool
from schemas.errors import RefusedMedia
from tests.conftest import need
from tests.recordings import flac_of_nothing, voice, write, zlib_matroska
from tests.unit.test_audio import Opened

need("av")

pytestmark = pytest.mark.slow


def refused(path, **claims):
    with pytest.raises(RefusedMedia) as caught:
        probe(path, **claims)
    return str(caught.value)


def test_a_rate_that_only_keeps_a_machine_busy_is_refused_at_once(tmp_path):
    path = flac_of_nothing(tmp_path / "a.flac", rate=655_350, channels=8, seconds=60)
    began = time.process_time()

    assert "5242800 samples a second (655350 Hz, 8 channels); at most 1600000" in refused(path)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("states_length", [True, False])
def test_more_samples_than_the_longest_recording_has_are_refused(tmp_path, states_length):
    path = flac_of_nothing(tmp_path / "a.flac", rate=48_000, channels=8, seconds=50, states_length=states_length)

    assert "more than the 5760000 samples allowed (two channels of 48 kHz for 1:00 min)" in refused(
        path, max_duration_ms=60_000
    )


def test_a_header_that_states_years_is_refused_before_anything_is_decoded(tmp_path):
    path = flac_of_nothing(tmp_path / "a.flac", rate=8_000, channels=1, seconds=20)
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] | 0x0F]) + b"\xff" * 4  # 68,719,476,735 samples
    path.write_bytes(content)

    assert "longer than the 10:00:00 h allowed" in refused(path)


def test_all_tracks_count_together(tmp_path):
    path = write(tmp_path / "a.mka", *[voice(3, seed) for seed in range(8)], muxer="matroska")

    assert "more than the 384000 samples allowed" in refused(path, max_duration_ms=4_000)


def test_ten_hours_of_a_studio_are_allowed():
    assert Limits().samples >= MAX_DURATION_MS // 1000 * 48_000 * 2
    assert Limits().duration_ms == 10 * 3600 * 1000


@pytest.mark.faults
def test_ten_hours_in_a_megabyte_cost_seconds(tmp_path):
    path = flac_of_nothing(tmp_path / "a.flac", rate=48_000, channels=2, seconds=35_990)
    began = time.process_time()

    assert probe(path).silent
    assert time.process_time() - began < 30


def test_what_takes_longer_than_any_recording_is_refused(tmp_path):
    path = flac_of_nothing(tmp_path / "a.flac", rate=16_000, channels=1, seconds=60)
    limits = Limits(cpu_s=-10.0)  # as if ten seconds were gone already

    with Recording(path, "a.flac") as recording:
        _, frame = next(recording.frames())
        with pytest.raises(RefusedMedia, match="takes a processor more than"):
            limits.check(recording, frame)


def test_blocks_that_unpack_to_gigabytes_take_little_memory_and_time(tmp_path):
    fits = zlib_matroska(tmp_path / "fits.mka", blocks=4, block_size=1_920_000)
    bomb = zlib_matroska(tmp_path / "bomb.mka", blocks=4, block_size=200_000_000)

    assert probe(fits).duration_ms == 40_000
    assert "holds no sound" in refused(bomb)


async def test_a_file_that_wants_the_machines_memory_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 1 << 30)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 65_535, 16_000, 1, 65_534, 16)
    )
    probe_pool = ProbePool(processes=1)

    with pytest.raises(RefusedMedia):
        await probe_pool.probe(path)
    await probe_pool.close()


def test_more_tracks_than_anybody_records_are_refused(tmp_path):
    few = write(tmp_path / "few.mka", *[voice(0.2, seed) for seed in range(MAX_SOUND_TRACKS)], muxer="matroska")
    many = write(tmp_path / "many.mka", *[voice(0.2, seed) for seed in range(MAX_SOUND_TRACKS + 1)], muxer="matroska")
    far = write(tmp_path / "far.mka", *[voice(0.2)] * (MAX_TRACKS + 1), muxer="matroska", codec="pcm_s16le")

    assert f"{MAX_SOUND_TRACKS} sound tracks" in probe(few).notes[0]
    assert f"has {MAX_SOUND_TRACKS + 1} sound tracks; at most {MAX_SOUND_TRACKS}" in refused(many)
    assert refused(far)


def test_a_codec_that_only_games_used_is_not_decoded(tmp_path):
    path = write(tmp_path / "a.wav", voice(1), codec="adpcm_ima_wav")
    content = path.read_bytes()
    content = content.replace(struct.pack("<H", 0x11), struct.pack("<H", 0x61), 1)  # ADPCM of Duck's games
    path.write_bytes(content)

    assert "in a codec that cannot be decoded here" in refused(path)


def test_pictures_are_never_decoded(tmp_path):
    path = write(tmp_path / "film.mkv", voice(2), muxer="matroska", pictures=True)

    with Recording(path, "film.mkv") as recording:
        assert recording.pictures
        assert all(frame.samples for _, frame in recording.frames())
    assert not {"mpeg4", "mjpeg", "png", "h264", "hevc", "vp9"} & set(CODECS.split(","))


def test_no_container_is_open_that_reads_other_files_or_addresses():
    closed = "concat hls dash sdp rtp rtsp image2 imf webm_dash_manifest ffmetadata lavfi tty data vobsub".split()

    assert not set(closed) & set(CONTAINERS.split(","))


#: Ways of naming another recording in a file. The byte at the end keeps it from being taken for text.
REFERENCES = {
    "concat": "ffconcat version 1.0\nfile {name}\n",
    "absolute concat": "ffconcat version 1.0\nfile '{path}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{name}\n#EXT-X-ENDLIST\n",
    "hls, further down": "\n\n#EXTM3U\n#EXTINF:9,\nfile:{path}\n",
    "dash": '<?xml version="1.0"?><MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\na={path}\n",
    "metadata": ";FFMETADATA1\ntitle={path}\n",
    "cue": 'FILE "{path}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "subfile": "subfile,,start,0,end,0,,:{path}\n",
}


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("ending", [b"\x01", b"\xff\xfe" * 3000])
def test_a_file_that_names_another_reads_none(tmp_path, kind, ending):
    other = write(tmp_path / "other.wav", voice(2), codec="pcm_s16le")
    path = tmp_path / "a.wav"
    path.write_bytes(REFERENCES[kind].format(name="other.wav", path=other).encode() + ending)
    opened = Opened(other)

    refused(path)

    assert not opened()


def test_a_movie_whose_sound_lies_in_another_file_has_none(tmp_path):
    other = write(tmp_path / "other.mov", voice(2), codec="pcm_s16le", muxer="mov")
    path = tmp_path / "a.mov"
    path.write_bytes(_pointing(other.read_bytes(), other))
    opened = Opened(other)

    refused(path)

    assert not opened()


def _pointing(movie, other):
    """The movie with its sound said to be in the other file."""
    name = str(other).encode()
    alias = struct.pack(">I4sI", 0, b"alis", 0) + bytes(6) + struct.pack(">H", 2) + bytes(142)
    alias += struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I", len(alias)) + alias[4:]
    at = movie.index(b"dref") - 4
    old = struct.unpack(">I", movie[at : at + 4])[0]
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    content = bytearray(movie[:at] + new + movie[at + old :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = content.rindex(parent, 0, at + 8) - 4
        size = struct.unpack(">I", content[place : place + 4])[0]
        content[place : place + 4] = struct.pack(">I", size + len(new) - old)
    return bytes(content)
