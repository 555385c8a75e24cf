"""Generates malformed uploads at random from a seed: bytes, codecs, headers, sizes, JSON, ids, URLs, media."""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: "refused": a dead letter, or the end of its job. "taken": the job ends, however, or a dead letter. Each once.
Expected = Literal["refused", "taken"]

CODECS = (None, "gzip", "snappy", "lz4", "zstd")

#: Where nothing may be fetched from, or nothing that is a URL.
URLS = (
    "https://[",
    "https://@/",
    "https://[::1%25a%25b]",
    "https://127。0。0。1/",
    "https://①②⑦.⓪.⓪.①/x",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::1]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://0x7f.1/",
    "https://2130706433/",
    "https://localhost/a.wav",
    "https://169.254.169.254/latest/meta-data",
    "https://10.0.0.1/",
    "https://" + "a" * 300 + ".example/",
    "https://a.example:99999/",
    "https:///x",
    "ftp://a.example/x",
    "gopher://a/x",
    "data:audio/wav;base64,AAAA",
    "file:///etc/passwd",
    "file:///dev/zero",
    "file:///proc/self/environ",
    "file://otherhost/x.wav",
    "FILE:///etc/shadow",
    "s3://other-bucket/x.wav",
    "s3://",
    "concat:a|b",
    "http://127.0.0.1:1/x.wav\r\nHost: y",
    "https://a b/",
    "javascript:alert(1)",
    "https://user:pass@127.0.0.1/",
    "//x",
    "x",
    "",
)

#: What a field may hold instead of what it should.
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    12,
    10**30,
    1.5,
    [],
    {},
    [[]],
    "",
    " ",
    "\0",
    "a\0b",
    "../..",
    "a/b",
    "x" * 300,
    "\ud83d\ude00",
    "ß",
    "é" * 130,
    "\x1b[31m",
    "\u202e",
    "DROP TABLE jobs",
    {"a": {"b": None}},
    [1, 2],
    "NaN",
    "2026-01-01",
    "german",
    "en_US",
)


@dataclass
class Sent:
    """One record, and what should come of it."""

    what: str
    value: bytes | None
    expected: Expected
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    codec: str | None = None
    #: The job that it is about, by id or reference, where that can be told.
    job: str | None = None


@dataclass
class Fuzz:
    """Makes records. `audio` is the folder that recordings may be read from, with a valid `call.wav` in it."""

    seed: int
    audio: Path
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._media = self._made_media()
        self._kinds: tuple[Callable[[], Sent], ...] = (
            self.noise,
            self.json_text,
            self.odd_field,
            self.ids,
            self.url,
            self.media,
            self.odd_headers,
            self.large,
            self.metadata,
        )

    def records(self, count: int) -> Iterator[Sent]:
        """So many, of all kinds."""
        for number in range(count):
            sent = self._kinds[number % len(self._kinds)]()
            sent.codec = self.chance.choice(CODECS)
            sent.key = self.chance.choice((None, b"", b"k", self.chance.randbytes(9), b"x" * 2000))
            if sent.value is None:
                sent.key = sent.key or b"k"  # the client sends no record without both
            yield sent

    def upload(self, **more: Any) -> dict[str, Any]:
        """A valid upload of the tenant who sends nonsense, changed."""
        uri = (self.audio / "call.wav").as_uri()
        job = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        return {"tenant_id": "noise", "job_id": job, "audio_uri": uri, "filename": "call.wav"} | more

    def noise(self) -> Sent:
        size = self.chance.choice((0, 1, 10, 1000, 100_000))
        value = None if self.chance.random() < 0.1 else self.chance.randbytes(size)
        return Sent("noise", value, "refused")

    def json_text(self) -> Sent:
        text = json.dumps(self.upload()).encode()
        cut = self.chance.randrange(1, len(text) - 1)
        depth = self.chance.choice((60, 255, 1000, 20_000))
        value = self.chance.choice(
            (
                text[:cut],
                text + b"}",
                b"[" + text + b"]",
                text.replace(b":", b"=", 1),
                text.decode().encode("utf-16"),
                b"null",
                b"3",
                b'"x"',
                b"{}",
                b"[" * depth,
                b'{"a":' * depth,
                b"{" + b'"x":1,' * 1000 + b"}",
                text[:cut] + b"\xff" + text[cut:-1],
                b"NaN",
                b"{'tenant_id': 'x'}",
                b"\x1f\x8b" + text,
            )
        )
        return Sent("json", value, "refused")

    def odd_field(self) -> Sent:
        name = self.chance.choice(
            "tenant_id audio_uri filename content_type language priority options metadata reference".split()
        )
        return self._judged(f"{name}", self.upload(**{name: self.chance.choice(ODD)}))

    def ids(self) -> Sent:
        name = self.chance.choice(("tenant_id", "job_id", "reference"))
        upload = self.upload(**{name: self.chance.choice(ODD)})
        if upload["job_id"] is None:
            upload["reference"] = f"call {self.chance.getrandbits(64)}"
        return self._judged("ids", upload)

    def url(self) -> Sent:
        upload = self.upload(audio_uri=self.chance.choice(URLS))
        return Sent("url", json.dumps(upload).encode(), "refused", job=upload["job_id"])

    def media(self) -> Sent:
        upload = self.upload(audio_uri=self.chance.choice(self._media))
        return Sent("media", json.dumps(upload).encode(), "taken", job=upload["job_id"])

    def odd_headers(self) -> Sent:
        odd = self.chance.choice(
            (b"", b"\xff\xfe", b"x" * 5000, b"999999999", b"-1", b"a\r\nb", b"audio.uploaded", b"\0")
        )
        names = (
            "ce_id ce_source ce_type ce_attempt ce_replay ce_time traceparent content-type dlq-reason dlq-offset "
            "concord-origin concord-waits x"
        ).split()
        headers = tuple((self.chance.choice(names), odd) for _ in range(self.chance.choice((1, 3, 40))))
        return self._judged("headers", self.upload(), headers)

    def large(self) -> Sent:
        size = self.chance.choice((100_000, 600_000, 880_000, 899_500, 950_000))
        return self._judged("large", self.upload(metadata={"x": "y" * size}))

    def metadata(self) -> Sent:
        deep: Any = 1
        for _ in range(self.chance.choice((3, 100, 300))):
            deep = {"d": deep}
        odd = self.chance.choice(
            (
                {"iccid": 89_014_103_211_118_510_720},
                {"n": [1e15] * 20_000},
                {"a\0": "b\0"},
                {"deep": deep},
                {str(n): n for n in range(100)},
                {"x": 1e308, "y": -0.0},
                {"k" * 5000: 1},
                {"t": "\ud83d\ude00" * 1000},
            )
        )
        text = json.dumps(self.upload(metadata=odd)).replace("1000000000000000.0", "1e15").encode()
        return Sent("metadata", text, "taken", job=json.loads(text)["job_id"])

    def _judged(self, what: str, upload: dict[str, Any], headers: tuple[tuple[str, bytes], ...] = ()) -> Sent:
        """A record that may be valid after all: its job ends, or it is a dead letter."""
        job = upload["job_id"] if isinstance(upload["job_id"], str) else upload.get("reference")
        return Sent(what, json.dumps(upload).encode(), "taken", headers=headers, job=job)

    def _made_media(self) -> list[str]:
        """Files that are no recordings, or hardly."""
        good = (self.audio / "call.wav").read_bytes()
        contents = {
            "empty": b"",
            "text": b"hello " * 100,
            "header": good[:44],
            "cut": good[: len(good) // 2],
            "random": self.chance.randbytes(5000),
            "riff": b"RIFF" + self.chance.randbytes(2000),
            "ogg": b"OggS" + self.chance.randbytes(3000),
            "mp3": b"\xff\xfb\x90\x00" * 500,
            "flac": b"fLaC" + self.chance.randbytes(3000),
            "mkv": b"\x1aE\xdf\xa3" + self.chance.randbytes(3000),
            "html": b"<html>login</html>",
            "playlist": b"#EXTM3U\nfile:///etc/passwd\n",
            "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
            "zeros": bytes(100_000),
        }
        uris = []
        for name, content in contents.items():
            path = self.audio / f"{name}.wav"
            path.write_bytes(content)
            uris.append(path.as_uri())
        for number in range(8):
            changed = bytearray(good)
            for _ in range(number + 1):
                changed[self.chance.randrange(len(changed))] = self.chance.randrange(256)
            (path := self.audio / f"changed-{number}.wav").write_bytes(changed)
            uris.append(path.as_uri())
        if not (link := self.audio / "link.wav").exists():
            link.symlink_to("/etc/passwd")
            os.mkfifo(self.audio / "fifo.wav")
        odd = ("link.wav", "fifo.wav", "", "no-such.wav", "../workers", "%2e%2e/workers/x", "a" * 400, "call.wav/")
        return [*uris, *(f"{self.audio.as_uri()}/{name}" for name in odd)]
