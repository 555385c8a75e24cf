"""Builds recordings for tests with ffmpeg, and damaged or hostile ones from them or byte by byte."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from itertools import pairwise

import numpy as np

#: Hertz of the samples that `write` takes.
RATE = 16_000


def voice(seconds, seed=0, loud=0.2):
    """Something with the rhythm of speech: vowels that begin and end, another one for each seed."""
    random = np.random.default_rng(seed)
    at = np.arange(round(seconds * RATE)) / RATE
    tones = sum(
        np.sin(2 * np.pi * hertz * at + random.random() * 6) / (i + 1) for i, hertz in enumerate((140, 420, 900))
    )
    rhythm = np.clip(np.sin(2 * np.pi * at * 2.3 + seed) + 0.3, 0, 1)
    return (loud * tones * rhythm + 0.002 * random.standard_normal(len(at))).astype(np.float32)


def write(path, *tracks, codec="aac", rate=RATE, muxer=None, pictures=False, **options):
    """A file with a track for each array of samples (channels by samples, or one channel)."""
    import av

    packets = []
    with av.open(str(path), "w", format=muxer, options=options) as container:
        video = container.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if pictures else None
        streams = [container.add_stream(codec, rate=rate, layout=_layout(samples)) for samples in tracks]
        if video:
            seconds = max(np.atleast_2d(samples).shape[1] for samples in tracks) / RATE
            packets += _pictures(video, round(seconds * 10))
        for stream, samples in zip(streams, tracks, strict=True):
            packets += _packets(stream, np.atleast_2d(samples), rate)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            container.mux(packet)
    return path


def _layout(samples):
    return {1: "mono", 2: "stereo", 6: "5.1"}[np.atleast_2d(samples).shape[0]]


def _pictures(stream, count):
    import av

    packets = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def _packets(stream, samples, rate):
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=_layout(samples))
    frame.sample_rate = RATE
    resampler, fifo = av.AudioResampler(format=stream.format, layout=_layout(samples), rate=rate), av.AudioFifo()
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        part.pts = None
        fifo.write(part)
    packets, place = [], 0
    for part in fifo.read_many(stream.codec_context.frame_size or 1024, partial=True):
        part.pts, part.time_base = place, Fraction(1, rate)
        place += part.samples
        packets += stream.encode(part)
    return [packet for packet in (*packets, *stream.encode(None)) if packet.dts is not None]


def id3v2(body, *, footer=False):
    """A tag as it stands before or, with a footer, behind a recording."""
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    flags = b"\x10" if footer else b"\0"
    return b"ID3\x04\0" + flags + size + body + (b"3DI\x04\0" + flags + size if footer else b"")


def ape(body, *, header=True):
    """An APE tag; the first version had a footer only."""

    def mark(flag):
        flags = (0x8000_0000 | flag) if header else 0
        return b"APETAGEX" + struct.pack("<IIII", 2000 if header else 1000, len(body) + 32, 1, flags) + bytes(8)

    return (mark(0x2000_0000) if header else b"") + body + mark(0)


def lyrics3(text):
    """Lyrics as they stand before an ID3v1 tag."""
    content = b"LYRICSBEGIN" + text
    return content + b"%06dLYRICS200" % len(content)


ID3V1 = b"TAG" + bytes(125)


def flac_of_nothing(path, *, rate, channels, seconds, block=65_535, states_length=True):
    """Hours of silence in kilobytes: blocks that say "all samples are 0"."""
    blocks = int(rate * seconds) // block
    length = blocks * block if states_length else 0
    about = (rate << 44 | (channels - 1) << 41 | 15 << 36 | length).to_bytes(8, "big")
    parts = [b"fLaC\x80\0\0\x22", struct.pack(">HH", block, block), bytes(6), about, bytes(16)]
    kind, rate_field = (0xE, rate // 10) if rate > 65_535 else (0xD, rate)
    for number in range(blocks):
        head = bytes([0xFF, 0xF8, 0x70 | kind, channels - 1 << 4 | 8]) + _coded(number)
        head += struct.pack(">HH", block - 1, rate_field)
        frame = head + bytes([_crc(head, 8, 0x07)]) + bytes(3) * channels
        parts += [frame, struct.pack(">H", _crc(frame, 16, 0x8005))]
    path.write_bytes(b"".join(parts))
    return path


def _coded(number):
    """A frame's number, as UTF-8 would write it."""
    if number < 0x80:
        return bytes([number])
    rest, most = [], 0x3F
    while number > most:
        rest.append(0x80 | number & 0x3F)
        number, most = number >> 6, most >> 1
    return bytes([~(2 * most + 1) & 0xFF | number, *reversed(rest)])


def _crc(content, bits, polynomial):
    check, top, mask = 0, 1 << bits - 1, (1 << bits) - 1
    for byte in content:
        check ^= byte << bits - 8
        for _ in range(8):
            check = (check << 1 ^ polynomial if check & top else check << 1) & mask
    return check


def zlib_matroska(path, *, blocks, block_size):
    """Silence (48 kHz, two channels) in a track whose blocks are compressed once more."""
    encoding = _element("5034", _element("4254", b"\0"))
    encodings = _element("6d80", _element("6240", _element("5031", b"\0"), _element("5032", b"\1"), encoding))
    content = zlib.compress(bytes(block_size), 9)
    clusters = [_cluster(number * block_size // 192, b"\x80" + content) for number in range(blocks)]
    path.write_bytes(_matroska(48_000, 2, clusters, encodings))
    return path


def laced_matroska(path, samples, lacing, *, frames=8, length=1600):
    """Mono in blocks of several frames each, whose sizes stand as in Xiph's formats, as EBML numbers, or not at all."""
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
    clusters = []
    for start in range(0, len(pcm) - frames * length + 1, frames * length):
        # A lace of fixed size is of equal frames; the others' last one takes what is left.
        sizes = [2 * length + (0 if lacing == "fixed" else 2 * (n % 3)) for n in range(frames - 1)]
        content = pcm[start : start + frames * length].tobytes()
        flag, table = {
            "xiph": (0x82, b"".join(b"\xff" * (size // 255) + bytes([size % 255]) for size in sizes)),
            "fixed": (0x84, b""),
            "ebml": (0x86, _ebml_sizes(sizes)),
        }[lacing]
        clusters.append(_cluster(start * 1000 // RATE, bytes([flag, frames - 1]) + table + content))
    path.write_bytes(_matroska(RATE, 1, clusters))
    return path


def _ebml_sizes(sizes):
    """The first as it is, each other one as its difference to the one before."""
    differences = (b - a + 0x1FFF for a, b in pairwise(sizes))
    return b"".join((number | 0x4000).to_bytes(2, "big") for number in (sizes[0], *differences))


def _cluster(milliseconds, block):
    return _element("1f43b675", _element("e7", milliseconds.to_bytes(4, "big")), _element("a3", b"\x81\0\0" + block))


def _matroska(rate, channels, clusters, *more):
    sound = (_element("b5", struct.pack(">d", rate)), _element("9f", bytes([channels])), _element("6264", b"\x10"))
    track = (_element("d7", b"\1"), _element("73c5", b"\1"), _element("83", b"\2"), _element("86", b"A_PCM/INT/LIT"))
    tracks = _element("1654ae6b", _element("ae", *track, _element("e1", *sound), *more))
    about = _element("1549a966", _element("2ad7b1", (1_000_000).to_bytes(3, "big")))
    head = _element("1a45dfa3", _element("4282", b"matroska"), _element("4287", b"\4"), _element("4285", b"\2"))
    return head + _element("18538067", about, tracks, *clusters)


def _element(name, *parts):
    content = b"".join(parts)
    return bytes.fromhex(name) + (len(content) | 1 << 56).to_bytes(8, "big") + content
