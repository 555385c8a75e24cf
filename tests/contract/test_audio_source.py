"""Locations of recordings: Concord's own storage by every spelling of a key, and folders by `file://`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from agents.media.source.audio_source import AudioSource
from schemas.errors import RefusedLocation, RefusedMedia, Unavailable
from schemas.events.audio import AudioFetch
from sinks.blobs.fallback import FallbackStore
from sinks.blobs.local import LocalStore
from sinks.blobs.memory import MemoryStore
from sinks.blobs.s3 import S3Store
from tests.servers.hosts import serving
from tests.servers.s3 import BUCKET, OWNER, REGION


def make(kind, request):
    folder = request.getfixturevalue("tmp_path") / "my storage"
    if kind == "memory":
        return MemoryStore()
    if kind == "local":
        return LocalStore(folder)
    if kind == "fallback":
        return FallbackStore(LocalStore(folder / "main"), LocalStore(folder / "spare"))
    server = request.getfixturevalue("s3_server")
    return S3Store(BUCKET, prefix=uuid4().hex, region=REGION, endpoint_url=server.endpoint, **OWNER)


# The first test on S3 waits until versitygw is built, two minutes where nothing is cached.
@pytest.fixture(params=["memory", "local", "fallback", pytest.param("s3", marks=pytest.mark.timeout(900))])
async def store(request):
    made = make(request.param, request)
    yield made
    await made.close()


@asynccontextmanager
async def audio_source(store, *roots: Path, **more):
    it = AudioSource(store, None, roots, **more)
    try:
        yield it
    finally:
        await it.close()


async def read(it: AudioSource, uri: str, tenant: str = "acme") -> bytes:
    data = AudioFetch.model_construct(tenant_id=tenant, job_id="j", audio_uri=uri, filename="a.wav")
    async with it.as_file(data) as path:
        return path.read_bytes()


#: Names as a producer wrote them, and other ways in which a URI may have them.
NAMES = {
    "acme/My Call.wav": ["acme/My Call.wav", "acme/My%20Call.wav"],
    "acme/50%.wav": ["acme/50%25.wav"],
    "acme/50%25.wav": ["acme/50%2525.wav"],
    "acme/a+b.wav": ["acme/a+b.wav", "acme/a%2Bb.wav"],
    "acme/Grüße.wav": ["acme/Grüße.wav", "acme/Gr%C3%BC%C3%9Fe.wav", "%61cme/Gr%c3%bc%c3%9fe.wav"],
    "acme/in/what?.wav": ["acme/in/what%3F.wav", "acme/in%2Fwhat%3F.wav"],
    "acme/no #1; (copy), 'a' & [b].wav": ["acme/no%20%231%3B%20(copy)%2C%20'a'%20%26%20%5Bb%5D.wav"],
}


async def test_a_blob_is_found_by_its_name_and_by_its_name_percent_encoded(store):
    base = store.uri("x")[:-1]
    scheme = base.partition("://")[0]
    async with audio_source(store) as it:
        for name, spellings in NAMES.items():
            blob = await store.put(name, name.encode(), "audio/wav")
            for spelled in [blob.uri, *(base + spelling for spelling in spellings)]:
                assert await read(it, spelled) == name.encode(), spelled
            assert await read(it, f"{scheme.upper()}://{blob.uri.partition('://')[2]}") == name.encode()
        if scheme != "file":  # where the standard says that a name is encoded
            for name in NAMES:
                assert await read(it, base + name) == name.encode(), name
            await store.put("acme/From a notification.wav", b"n", "audio/wav")
            assert await read(it, f"{base}acme/From+a+notification.wav") == b"n"


async def test_of_two_that_a_uri_may_mean_the_one_of_exactly_that_name_is_read(store):
    base = store.uri("x")[:-1]
    for name in ("acme/a%20b.wav", "acme/a b.wav"):
        await store.put(name, name.encode(), "audio/wav")
    async with audio_source(store) as it:
        for name in ("acme/a%20b.wav", "acme/a b.wav"):
            assert await read(it, store.uri(name)) == name.encode()
        expected = b"acme/a b.wav" if base.startswith("file:") else b"acme/a%20b.wav"
        assert await read(it, f"{base}acme/a%20b.wav") == expected


@pytest.mark.parametrize(
    "path",
    [
        "other/secret.wav",
        "acme2/secret.wav",
        "ACME/secret.wav",
        "acme/../other/secret.wav",
        "acme/..%2Fother/secret.wav",
        "acme/%2e%2e/other/secret.wav",
        "acme%2F..%2Fother%2Fsecret.wav",
        "acme//secret.wav",
        "acme/./a.wav",
        "/acme/a.wav",
        "%2Facme/a.wav",
        "acme",
        "acme/",
        "acme/\x00",
        "acme/%00",
        "acme/%ff",
        "acme/missing.wav",
        "",
    ],
    ids=ascii,
)
async def test_what_is_not_the_tenants_is_refused(store, path):
    for name in ("other/secret.wav", "acme2/secret.wav", "ACME/secret.wav", "acme/a.wav"):
        await store.put(name, b"secret", "audio/wav")
    async with audio_source(store) as it:
        with pytest.raises(RefusedLocation, match=r"^audio_uri: "):
            await read(it, store.uri("x")[:-1] + path)


async def test_another_bucket_is_refused_with_what_to_do():
    store = S3Store("ours", prefix="calls", region=REGION, **OWNER)
    async with audio_source(store) as it:
        for uri in ("s3://theirs/acme/a.wav", "s3://ours/acme/a.wav", "s3://OURS/calls/acme/a.wav"):
            with pytest.raises(RefusedLocation, match=r"only s3://ours/calls/ is read; .*signed https:// URL"):
                await read(it, uri)
    await store.close()


@pytest.fixture
def site(tmp_path):
    """A root with recordings, the store and a server's data in it, and what lies outside."""
    root = tmp_path / "calls"
    for name in ("storage/acme", "storage/other", "data/kafka", "deep/er"):
        (root / name).mkdir(parents=True)
    for name in ("a.wav", "My Call.wav", "My%20Call.wav", "50%.wav", "what?.wav", "no#1.wav", "deep/er/b.wav"):
        (root / name).write_bytes(name.encode())
    for name in ("storage/other/x.wav", "storage/acme/x.wav", "data/kafka/x.wav"):
        (root / name).write_bytes(b"secret")
    (tmp_path / "outside.wav").write_bytes(b"secret")
    return root


@asynccontextmanager
async def reader(site, *roots, **more):
    store = LocalStore(site / "storage")
    async with audio_source(store, *(roots or (site,)), own=(site / "storage", site / "data/kafka"), **more) as it:
        yield it
    await store.close()


async def test_files_are_read_by_every_spelling_of_their_path(site):
    async with reader(site) as it:
        for name, spelled in (
            ("a.wav", "a.wav"),
            ("a.wav", "/a.wav"),
            ("a.wav", "./a.wav"),
            ("a.wav", "%61.wav"),
            ("deep/er/b.wav", "deep//er/b.wav"),
            ("My Call.wav", "My Call.wav"),
            ("My Call.wav", "My%20Call.wav"),
            ("My%20Call.wav", "My%2520Call.wav"),
            ("50%.wav", "50%.wav"),
            ("50%.wav", "50%25.wav"),
            ("what?.wav", "what?.wav"),
            ("what?.wav", "what%3F.wav"),
            ("no#1.wav", "no#1.wav"),
        ):
            for begins in ("file://", "FILE://", "file://localhost", "File://LOCALHOST"):
                assert await read(it, f"{begins}{site}/{spelled}") == name.encode(), spelled


async def test_a_root_that_is_a_link_is_the_operators_will(site, tmp_path):
    (tmp_path / "link").symlink_to(site)
    async with reader(site, tmp_path / "link") as it:
        for root in (site, tmp_path / "link"):
            assert await read(it, f"file://{root}/a.wav") == b"a.wav"


def hostile(site: Path) -> list[str]:
    """Paths below the root that must not be read."""
    (site / "link.wav").symlink_to(site / "a.wav")
    (site / "out.wav").symlink_to(site.parent / "outside.wav")
    (site / "folder").symlink_to(site / "deep")
    (site / "up").symlink_to(site.parent)
    (site / "own").symlink_to(site / "storage")
    os.mkfifo(site / "pipe.wav")
    return [
        "storage/other/x.wav", "storage/acme/../other/x.wav", "deep/../storage/other/x.wav", "storage//other/x.wav",
        "deep/%2e%2e/storage/other/x.wav", "%73torage/other/x.wav", "data/kafka/x.wav", "../outside.wav",
        "deep/../../outside.wav", "link.wav", "out.wav", "folder/er/b.wav", "up/outside.wav", "own/other/x.wav",
        "pipe.wav", "deep", "deep/", "", "missing.wav", "a.wav/x", "a" * 300 + ".wav", "a/" * 3000 + "x", "a.wav\x00",
        "a.wav%00", "%ff.wav", "\ud800.wav",
    ]  # fmt: skip


async def test_what_must_not_be_read_is_refused_whatever_its_path(site):
    paths = hostile(site)
    async with reader(site) as it:
        for path in paths:
            for begins in ("file://", "FILE://localhost"):
                with pytest.raises(RefusedLocation, match=r"^audio_uri: "):
                    async with asyncio.timeout(5):
                        assert await read(it, f"{begins}{site}/{path}") is None, path
        for uri in (
            "file://elsewhere/calls/a.wav",
            f"file://{site.parent}/outside.wav",
            f"file://{site}2/a.wav",
            "file:///dev/zero",
            "file:///etc/passwd",
            "file://",
            "file:///",
        ):
            with pytest.raises(RefusedLocation, match=r"^audio_uri: "):
                await read(it, uri)


@pytest.mark.parametrize("root", ["storage", "storage/other", "data/kafka", "."])
async def test_a_root_within_our_own_storage_gives_nothing_of_it(site, root):
    name = "other/x.wav" if root == "storage" else "storage/other/x.wav" if root == "." else "x.wav"
    async with reader(site, site / root) as it:
        it.store = MemoryStore()  # so that no path is one of the store's
        with pytest.raises(RefusedLocation, match="the installation's own"):
            await read(it, f"file://{site / root}/{name}")


async def test_a_blob_that_is_linked_into_a_root_is_refused(site):
    store = LocalStore(site / "storage")
    await store.put("other/call.wav", b"secret", "audio/wav")
    os.link(site / "storage/other/call.wav", site / "mine.wav")
    os.link(site / "a.wav", site / "also-a.wav")
    async with reader(site) as it:
        with pytest.raises(RefusedLocation, match="linked here"):
            await read(it, f"file://{site}/mine.wav")
        assert await read(it, f"file://{site}/also-a.wav") == b"a.wav"
    await store.close()


@pytest.mark.parametrize("path", ["/proc/self/environ", "/proc/kcore", "/dev/zero", "/dev/tty"])
async def test_what_the_kernel_makes_up_is_no_recording(site, path):
    async with reader(site, Path("/"), max_bytes=1000) as it:
        with pytest.raises((RefusedLocation, RefusedMedia)):
            async with asyncio.timeout(5):
                await read(it, f"file://{path}")


async def test_too_large_a_file_is_refused_before_it_is_read(site):
    with (site / "large.wav").open("wb") as file:
        file.truncate(1 << 40)
    async with reader(site, max_bytes=1 << 20) as it:
        with pytest.raises(RefusedMedia, match="at most 1048576 are accepted"):
            await read(it, f"file://{site}/large.wav")


async def test_links_that_come_and_go_never_lead_outside(site):
    """Somebody exchanges a folder and a file for links all the time, while others read by their names."""
    stopping = threading.Event()
    (site / "f").mkdir()
    (site / "f/x.wav").write_bytes(b"inside")
    (site.parent / "elsewhere").mkdir()
    (site.parent / "elsewhere/x.wav").write_bytes(b"secret")

    def exchange():
        (site / "g").symlink_to(site.parent / "elsewhere")
        while not stopping.is_set():
            (site / "f").rename(site / "h")
            (site / "g").rename(site / "f")
            (site / "f").rename(site / "g")
            (site / "h").rename(site / "f")

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = {b"inside": 0, None: 0}
    async with reader(site) as it:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                seen[await read(it, f"file://{site}/f/x.wav")] += 1
            except RefusedLocation:
                seen[None] += 1
    stopping.set()
    thread.join()
    assert all(seen.values()), seen


@contextlib.contextmanager
def limited(what, value):
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def lowest_free() -> int:
    """A limit of descriptors under which none is left."""
    free = os.dup(0)
    os.close(free)
    return free


async def test_a_disk_of_ours_that_is_full_or_away_is_waited_for(site, tmp_path, monkeypatch):
    """Whatever the system says when *we* write, it is not the host that does not deliver."""
    (site / "large.wav").write_bytes(bytes(1 << 20))

    async def deliver(_):
        return web.Response(body=bytes(1 << 20))

    async with serving(deliver) as base, reader(site, allow_hosts=frozenset({"127.0.0.1"})) as it:
        for uri in (f"{base}/large.wav", f"file://{site}/large.wav"):
            data = AudioFetch(tenant_id="acme", job_id="j", audio_uri=uri, filename="a.wav")
            with limited(resource.RLIMIT_FSIZE, 1 << 16), pytest.raises(Unavailable, match="File too large"):
                await it.fetch(data)
            with limited(resource.RLIMIT_NOFILE, lowest_free()), pytest.raises(Unavailable):
                await it.fetch(data)
            with monkeypatch.context() as patch:
                patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
                with pytest.raises(Unavailable, match="No such file"):
                    await it.fetch(data)


async def test_a_recording_that_does_not_fit_is_not_begun(site):
    async def deliver(request):
        answer = web.StreamResponse(headers={"Content-Length": str(1 << 50)})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(bytes(1 << 16))
        return answer

    allowed = {"allow_hosts": frozenset({"127.0.0.1"}), "max_bytes": 1 << 51}
    async with serving(deliver) as base, reader(site, **allowed) as it:
        data = AudioFetch(tenant_id="acme", job_id="j", audio_uri=base, filename="a.wav")
        with pytest.raises(Unavailable, match=r"no room in .* for a recording of 1125899906842624 bytes"):
            await it.fetch(data)
