"""Files that are accepted as recordings and files that are refused, made by ffmpeg and then damaged."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agents.media.decoding.chunks import chunks
from agents.media.decoding.decoder import decode
from agents.media.decoding.probe import probe
from agents.media.probe_pool import ProbePool
from schemas.errors import NotFound, RefusedMedia, Transient
from tests.conftest import need

need("av")

SPEECH = Path(__file__).parents[3] / "shared" / "speech"
SECONDS = 3.0

#: File name: codec, hertz, layout, sample format, muxer (None: by the name), codec that a probe finds, content type.
KINDS = {
    "s16.wav": ("pcm_s16le", 16000, "mono", None, None, "pcm_s16le", "audio/wav"),
    "u8.wav": ("pcm_u8", 8000, "mono", None, None, "pcm_u8", "audio/wav"),
    "s24.wav": ("pcm_s24le", 44100, "stereo", None, None, "pcm_s24le", "audio/wav"),
    "s32.wav": ("pcm_s32le", 48000, "stereo", None, None, "pcm_s32le", "audio/wav"),
    "float.wav": ("pcm_f32le", 44100, "mono", None, None, "pcm_f32le", "audio/wav"),
    "mulaw.wav": ("pcm_mulaw", 8000, "mono", None, None, "pcm_mulaw", "audio/wav"),
    "adpcm.wav": ("adpcm_ms", 16000, "mono", None, None, "adpcm_ms", "audio/wav"),
    "surround.wav": ("pcm_s16le", 48000, "5.1", None, None, "pcm_s16le", "audio/wav"),
    "24-bit.flac": ("flac", 44100, "stereo", "s32", None, "flac", "audio/flac"),
    "a.mp3": ("libmp3lame", 44100, "stereo", None, None, "mp3", "audio/mpeg"),
    "a.m4a": ("aac", 44100, "stereo", None, "ipod", "aac", "audio/mp4"),
    "a.aac": ("aac", 44100, "mono", None, "adts", "aac", "audio/aac"),
    "a.ogg": ("libopus", 48000, "mono", None, None, "opus", "audio/ogg"),
    "a.webm": ("libopus", 48000, "stereo", None, None, "opus", "audio/webm"),
    "a.aiff": ("pcm_s16be", 44100, "stereo", None, None, "pcm_s16be", "audio/aiff"),
    "a.amr": ("libopencore_amrnb", 8000, "mono", None, "amr", "amrnb", "audio/amr"),
    "a.au": ("pcm_mulaw", 8000, "mono", None, "au", "pcm_mulaw", "audio/basic"),
    "a.caf": ("pcm_s16le", 16000, "mono", None, "caf", "pcm_s16le", "audio/x-caf"),
}


def tone(seconds=SECONDS, rate=16000, hertz=300.0, loud=0.5):
    """A tone that swells and fades, so that compression has something to do."""
    at = np.arange(round(seconds * rate)) / rate
    return (loud * np.sin(2 * np.pi * hertz * at) * (0.5 + 0.5 * np.sin(2 * np.pi * at / 3))).astype(np.float32)


def encode(path, samples, kind=KINDS["s16.wav"], picture=False):
    """Write 16 kHz mono samples as that kind of file."""
    import av

    codec, rate, layout, sample_format, muxer = kind[:5]
    with av.open(str(path), "w", format=muxer) as container:
        video = container.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if picture else None
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if sample_format:
            stream.format = sample_format
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = 16000
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        if video:
            for _ in range(10):
                container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(video.encode(None))
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            for fitting in in_frames(part, stream.codec_context.frame_size):
                container.mux(stream.encode(fitting))
        container.mux(stream.encode(None))
    return path


def in_frames(frame, size):
    """Encoders want frames of their own size."""
    import av

    if not size or not frame.samples:
        return [frame] if frame.samples else []
    fifo = av.AudioFifo()
    frame.pts = None
    fifo.write(frame)
    return fifo.read_many(size, partial=True)


@pytest.fixture
def wav(tmp_path):
    return encode(tmp_path / "call.wav", tone())


def refused(path, **claims):
    with pytest.raises(RefusedMedia) as caught:
        probe(path, **claims)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_usual_kind_of_recording_is_taken_for_what_it_is(tmp_path, name):
    _, rate, layout, _, _, codec, content_type = KINDS[name]

    found = probe(encode(tmp_path / name, tone(), KINDS[name]))

    assert (found.codec, found.content_type, found.sample_rate) == (codec, content_type, rate)
    assert found.channels == {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    assert abs(found.duration_ms - SECONDS * 1000) < 130
    assert not found.silent


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_usual_kind_is_decoded_to_the_same_sound(tmp_path, name):
    samples = np.concatenate(list(decode(encode(tmp_path / name, tone(), KINDS[name]))))

    assert samples.dtype == np.float32
    assert abs(len(samples) - SECONDS * 16000) < 2100
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(spectrum.argmax() * 16000 / len(samples) - 300) < 3
    assert 0.1 < np.abs(samples).max() <= 1  # a centre channel alone counts a third


def test_the_sound_track_of_a_video_counts_and_a_video_without_one_is_refused(tmp_path):
    kind = ("aac", 44100, "mono", None, "mp4")
    video = encode(tmp_path / "meeting.mp4", tone(), kind, picture=True)
    import av

    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))

    assert probe(video).content_type == "video/mp4"
    assert "no sound track" in refused(tmp_path / "mute.mp4")


def test_a_recording_under_a_wrong_name_is_taken_under_its_true_type(tmp_path, wav):
    wav = wav.rename(tmp_path / "call.mp3")

    found = probe(wav, declared_type="audio/mpeg")

    assert (found.format, found.extension, found.content_type) == ("wav", ".wav", "audio/wav")


@pytest.mark.parametrize("loud", [0.0, 0.0005])
def test_silence_is_noticed_and_not_refused(tmp_path, loud):
    assert probe(encode(tmp_path / "a.wav", tone(loud=loud))).silent


def test_silence_of_eight_bits_is_noticed(tmp_path):
    assert probe(encode(tmp_path / "a.wav", tone(loud=0.0), KINDS["u8.wav"])).silent


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(500), "ZIP"),
        (b"%PDF-1.7\n" + bytes(500), "PDF"),
        (b"\n <!DOCTYPE html><html>404</html>", "HTML"),
        (b"Dear customer, please find attached the recording.", "text"),
        (b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n", "playlist"),
        (bytes(5000), "zero bytes"),
        (random.Random(1).randbytes(50_000), "not a recording in any known format"),
        (b"RIFF" + random.Random(2).randbytes(50_000), "begins as WAV"),
        (b"\xff\xfb\x90\x00" + random.Random(3).randbytes(300_000), "MP3"),
        (b"\xff\xf1\x50\x80" + random.Random(3).randbytes(100_000), "none of it can be decoded"),
        (b"OggS" + random.Random(4).randbytes(50_000), "begins as Ogg"),
    ],
)
def test_what_is_no_recording_is_refused_and_called_by_its_name(tmp_path, content, says):
    path = tmp_path / "call.wav"
    path.write_bytes(content)

    assert says in refused(path, name="call.wav", declared_type="audio/wav")


def test_a_refusal_says_what_the_file_was_said_to_be(tmp_path):
    (tmp_path / "blob").write_bytes(b"<html>")

    message = refused(tmp_path / "blob", name="call.wav", declared_type="audio/x-wav")

    assert message.startswith("call.wav is not a recording: it looks like an HTML page")
    assert message.endswith("though it is named .wav and was declared as audio/x-wav")


def test_a_playlist_is_not_followed_even_when_it_is_no_text(tmp_path, wav):
    (tmp_path / "a.wav").write_bytes(b"ffconcat version 1.0\nfile call.wav\n\x01")

    assert "not a recording" in refused(tmp_path / "a.wav")


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(
    "name", ["s16.wav", "float.wav", "adpcm.wav", "24-bit.flac", "a.mp3", "a.m4a", "a.webm", "a.ogg"]
)
def test_a_recording_cut_off_is_refused(tmp_path, name, share):
    whole = encode(tmp_path / name, tone(), KINDS[name]).read_bytes()
    (tmp_path / f"cut-{name}").write_bytes(whole[: int(len(whole) * share)])

    assert "cut off" in refused(tmp_path / f"cut-{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["24-bit.flac", "a.mp3", "a.m4a", "a.ogg", "a.webm", "a.aac", "adpcm.wav"])
def test_a_recording_with_a_third_overwritten_is_refused(tmp_path, name):
    whole = encode(tmp_path / name, tone(12), KINDS[name]).read_bytes()
    third = len(whole) // 3
    (tmp_path / f"bad-{name}").write_bytes(whole[:third] + random.Random(5).randbytes(third) + whole[2 * third :])

    assert "damaged" in refused(tmp_path / f"bad-{name}") or "cut off" in refused(tmp_path / f"bad-{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s16.wav", "24-bit.flac", "a.mp3", "a.m4a", "a.ogg", "a.webm", "a.aac", "a.aiff"])
@pytest.mark.parametrize(
    "junk", [b"TAG" + bytes(125), b"<p>thank you</p>" * 100, bytes(3000)], ids=["ID3v1", "a page", "zeros"]
)
def test_junk_at_the_end_is_forgiven(tmp_path, name, junk):
    path = encode(tmp_path / name, tone(6), KINDS[name])
    path.write_bytes(path.read_bytes() + junk)

    assert abs(probe(path).duration_ms - 6_000) < 130


@pytest.mark.slow
@pytest.mark.parametrize("name", ["24-bit.flac", "a.mp3", "a.m4a", "a.webm", "a.aac"])
def test_a_few_flipped_bits_are_forgiven(tmp_path, name):
    path = encode(tmp_path / name, tone(12), KINDS[name])
    content = bytearray(path.read_bytes())
    for place in (0.5, 0.6, 0.7):
        content[int(len(content) * place)] ^= 0x55
    path.write_bytes(content)

    assert abs(probe(path).duration_ms - 12_000) < 130


def test_a_cover_and_odd_tags_before_an_mp3_are_forgiven(tmp_path):
    path = encode(tmp_path / "a.mp3", tone(), KINDS["a.mp3"])
    frames = path.read_bytes()[10 + 0x23 :]  # without ffmpeg's own tag
    tag = b"TXXX" + struct.pack(">IH", 200_000, 0) + b"\x00caf\xe9\x00" + bytes(199_995)
    size = bytes(len(tag) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\x00\x00" + size + tag + frames)

    assert abs(probe(path).duration_ms - SECONDS * 1000) < 130


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_live_recorders_wav_that_states_no_length_is_taken_to_its_end(wav, size):
    content = bytearray(wav.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    wav.write_bytes(content)

    assert abs(probe(wav).duration_ms - SECONDS * 1000) < 5


def test_a_wav_with_a_header_only_is_refused(wav):
    content = wav.read_bytes()
    wav.write_bytes(content[: content.index(b"data") + 8])

    assert "holds no sound" in refused(wav)


def test_a_sample_rate_that_no_recorder_makes_is_refused(wav):
    content = bytearray(wav.read_bytes())
    content[24:28] = struct.pack("<I", 1_092_676)
    wav.write_bytes(content)

    assert "1092676 samples a second" in refused(wav)


def test_a_click_is_too_short(tmp_path):
    assert "too short" in refused(encode(tmp_path / "a.wav", tone(0.01)))


def test_a_recording_longer_than_the_limit_is_refused_before_its_end(wav):
    assert "longer than the 2.0 s allowed" in refused(wav, max_duration_ms=2000)


def test_a_path_that_is_no_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        probe(tmp_path / "none.wav")
    with pytest.raises(NotFound):
        probe(tmp_path)


def test_a_name_with_a_colon_is_a_name(tmp_path, wav):
    assert probe(wav.rename(tmp_path / "http:call.wav")).format == "wav"


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs the recordings of ../shared/speech")
def test_real_recordings_are_taken_and_the_damaged_ones_refused():
    good, bad = sorted(SPEECH.glob("librivox-*.wav")), sorted(SPEECH.glob("bad-*.wav"))

    assert [probe(path).duration_ms for path in good] == [7100, 2990, 5300]
    assert [refused(path) for path in bad] == [
        "bad-awful.wav is damaged: its header states 1092676 samples a second",
        "bad-header-only.wav holds no sound: it is a header without a recording, or none of it can be decoded",
    ]


def test_two_loud_channels_do_not_clip_and_quiet_ones_are_heard(tmp_path):
    import av

    loud = np.stack([np.full(16000, 0.9, np.float32), np.full(16000, 0.7, np.float32)])
    frame = av.AudioFrame.from_ndarray(loud, format="fltp", layout="stereo")
    frame.sample_rate = 16000
    path = tmp_path / "stereo.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="stereo")
        packed = av.AudioResampler(format="s16", layout="stereo", rate=16000).resample(frame)
        container.mux([packet for part in packed for packet in stream.encode(part)])

    samples = np.concatenate(list(decode(path)))

    assert np.abs(samples[100:-100] - 0.8).max() < 0.01


def test_a_pause_between_timestamps_is_silence_of_that_length(tmp_path):
    import av

    path = tmp_path / "muted.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48000, layout="mono")
        for start in (0.0, 5.0):
            for n in range(50):  # a second of 20 ms frames each
                at = np.arange(960) / 48000 + n * 0.02
                samples = (0.5 * np.sin(2 * np.pi * 300 * at)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
                frame.sample_rate, frame.pts = 48000, round((start + n * 0.02) * 48000)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    samples = np.concatenate(list(decode(path)))

    assert abs(probe(path).duration_ms - 6000) < 50
    assert abs(len(samples) - 6 * 16000) < 800
    assert np.abs(samples[int(1.2 * 16000) : int(4.8 * 16000)]).max() < 0.01
    assert np.abs(samples[int(5.2 * 16000) : int(5.8 * 16000)]).max() > 0.3


def test_chunks_are_cut_where_it_is_quiet_and_make_the_whole(tmp_path):
    quiet = (8.2, 17.5)
    samples = tone(25, loud=0.5)
    for at in quiet:
        samples[int((at - 0.3) * 16000) : int((at + 0.3) * 16000)] = 0
    path = encode(tmp_path / "a.wav", samples)

    found = list(chunks(path, seconds=10, search_s=4))

    assert [chunk.start_ms / 1000 for chunk in found] == pytest.approx([0, *quiet], abs=0.2)
    assert all(len(chunk.samples) <= 160_000 for chunk in found)
    assert sum(len(chunk.samples) for chunk in found) == 25 * 16000
    assert np.abs(np.concatenate([chunk.samples for chunk in found]) - samples).max() < 0.001


# -- in worker processes --


@pytest.fixture
async def probe_pool():
    found = ProbePool(processes=1, stall_s=60)
    yield found
    await found.close()


def hours_long(path, hours=1):
    """A silent WAV of almost no bytes: the file has a hole for its samples."""
    size = int(hours * 3600) * 32000
    header = (
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    )
    path.write_bytes(header + b"data" + struct.pack("<I", size))
    os.truncate(path, 44 + size)
    return path


class Opened:
    """Tells when a file is opened, by inotify: whose open files they are, children show to nobody."""

    def __init__(self, path):
        libc = ctypes.CDLL(None)
        self._events = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._events, os.fsencode(path), 0x20) >= 0

    def __call__(self):
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._events, 1 << 16))
        return False


async def signal_when_at_work(probe_pool, opened, number, times):
    for _ in range(times):
        await until(opened)
        (pid,) = probe_pool.pids
        os.kill(pid, number)
        opened()  # what it did is forgotten before another can begin: both need this event loop
        await until(lambda pid=pid: pid not in probe_pool.pids)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_one_process_probes_file_after_file(probe_pool, wav):
    first = await probe_pool.probe(wav)
    pids = probe_pool.pids
    began = time.process_time()
    others = await asyncio.gather(*(probe_pool.probe(wav) for _ in range(100)))

    assert set(others) == {first}
    assert probe_pool.pids == pids
    assert time.process_time() - began < 0.5  # of this process: a hundred probes cost it next to nothing


async def test_a_refusal_crosses_the_process_boundary_and_the_process_stays(probe_pool, tmp_path, wav):
    await probe_pool.probe(wav)
    pids = probe_pool.pids
    (tmp_path / "page").write_bytes(b"<html>")

    with pytest.raises(RefusedMedia, match=r"call\.mp3 is not a recording: it looks like an HTML page"):
        await probe_pool.probe(tmp_path / "page", "call.mp3", "audio/mpeg")
    with pytest.raises(NotFound):
        await probe_pool.probe(tmp_path / "none")

    assert probe_pool.pids == pids


async def test_the_limit_of_the_probe_pool_holds(wav):
    probe_pool = ProbePool(max_duration_ms=1000)

    with pytest.raises(RefusedMedia, match="longer than"):
        await probe_pool.probe(wav)
    await probe_pool.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_hours_of_sound_need_little_memory(probe_pool, tmp_path):
    found = await probe_pool.probe(hours_long(tmp_path / "long.wav"))

    status = Path(f"/proc/{probe_pool.pids[0]}/status").read_text()
    assert (found.duration_ms, found.silent) == (3_600_000, True)
    assert int(status.split("VmHWM:")[1].split()[0]) < 150_000  # KB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_crash_is_tried_again(probe_pool, tmp_path):
    path = hours_long(tmp_path / "long.wav")
    crashing = asyncio.create_task(signal_when_at_work(probe_pool, Opened(path), signal.SIGSEGV, times=1))

    found = await probe_pool.probe(path)

    await crashing
    assert found.format == "wav"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (signal.SIGSEGV, RefusedMedia, "crashes the decoder"),
        (signal.SIGSTOP, RefusedMedia, "comes to no end"),
        (signal.SIGKILL, Transient, "interrupted"),
    ],
)
async def test_what_crashes_or_hangs_twice_is_refused_and_a_killer_from_outside_is_not_the_files_fault(
    tmp_path, wav, number, error, says
):
    probe_pool = ProbePool(processes=1, stall_s=1.5)
    path = hours_long(tmp_path / "long.wav", hours=4)
    await probe_pool.probe(wav)
    task = asyncio.create_task(signal_when_at_work(probe_pool, Opened(path), number, times=2))

    with pytest.raises(error, match=says):
        await probe_pool.probe(path)

    await task
    assert (await probe_pool.probe(wav)).format == "wav"
    await probe_pool.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_cancelled_probe_leaves_nothing_behind(probe_pool, tmp_path, wav):
    path = hours_long(tmp_path / "long.wav", hours=4)
    opened = Opened(path)
    task = asyncio.create_task(probe_pool.probe(path))
    await until(opened)
    pids = probe_pool.pids

    task.cancel()

    assert (await probe_pool.probe(wav)).format == "wav"
    assert set(pids).isdisjoint(probe_pool.pids)
    assert task.cancelled()
