"""The contract of blob stores: memory, folder and S3 pass the same tests."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from uuid import uuid4

import pytest

from schemas.errors import InvalidInput, NotFound, Unavailable
from sinks.blobs.fallback import FallbackStore
from sinks.blobs.local import LocalStore
from sinks.blobs.memory import MemoryStore
from sinks.blobs.s3 import S3Store
from sinks.ports.blobs import Blob
from tests.servers.s3 import BUCKET, OWNER, REGION

MB = 1 << 20


def make(kind, request, prefix):
    if kind == "memory":
        return MemoryStore()
    if kind == "local":
        return LocalStore(request.getfixturevalue("tmp_path") / prefix)
    if kind.startswith("fallback"):
        folder = request.getfixturevalue("tmp_path") / prefix
        store = FallbackStore(LocalStore(folder / "main"), LocalStore(folder / "spare"))
        store.away = kind == "fallback, away"
        return store
    server = request.getfixturevalue("s3_server")
    return S3Store(BUCKET, prefix=prefix, region=REGION, endpoint_url=server.endpoint, **OWNER)


# The first test on S3 waits until versitygw is built, two minutes where nothing is cached.
KINDS = ["memory", "local", "fallback", "fallback, away", pytest.param("s3", marks=pytest.mark.timeout(900))]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
async def store(request, kind):
    made = make(kind, request, uuid4().hex)
    yield made
    await made.close()


async def pieces(*content):
    for piece in content:
        yield piece


async def listed(store, prefix=""):
    return sorted([uri async for uri in store.list(prefix)])


async def read(store, uri, *bounds):
    return b"".join([piece async for piece in store.stream(uri, *bounds)])


async def test_a_blob_comes_back_as_it_was_put(store):
    blob = await store.put("acme/job/metadata.json", b'{"a": 1}', "application/json; charset=utf-8")

    assert blob == Blob(
        store.uri("acme/job/metadata.json"),
        8,
        hashlib.sha256(b'{"a": 1}').hexdigest(),
        "application/json; charset=utf-8",
    )
    assert await store.stat(blob.uri) == blob
    assert await store.get(blob.uri) == b'{"a": 1}'
    assert await read(store, blob.uri) == b'{"a": 1}'


async def test_a_blob_may_come_in_chunks_of_any_size(store):
    blob = await store.put("acme/job/original.wav", pieces(b"", b"RIFF", b"x" * 3 * MB, b"", b"end"), "audio/wav")

    whole = b"RIFF" + b"x" * 3 * MB + b"end"
    assert await store.get(blob.uri) == whole
    assert (blob.size_bytes, blob.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


@pytest.mark.parametrize("content", [b"", pytest.param(None, id="no pieces")])
async def test_an_empty_blob_is_a_blob(store, content):
    blob = await store.put("acme/job/empty", pieces() if content is None else content, "text/plain")

    assert await store.stat(blob.uri) == blob
    assert blob.size_bytes == 0
    assert await store.get(blob.uri) == b""
    assert await read(store, blob.uri, 0, 10) == b""
    assert await listed(store) == [blob.uri]


NAMES = [
    "plain",
    "acme/job/hypotheses/assemblyai.json",
    "Müller & Söhne/Gespräch №7 (Kopie).mp3",
    "顧客/通話記録.json",
    "emoji/📞👩‍💻.txt",
    "acme/a%20b+c d?e#f=g&h;i,j@k:l!m*n'(o)~p.txt",
    "acme/%2e%2e/file",
    'acme/"quoted" <angle>',
    "x" * 255,
    "/".join(["ü" * 100] * 4),
    "acme/trailing. /dots...",
]


async def test_any_sensible_name_can_be_stored_and_found(store):
    for name in NAMES:
        blob = await store.put(name, name.encode(), "text/plain")

        assert blob.uri == store.uri(name)
        assert await store.get(blob.uri) == name.encode()
        assert await store.stat(blob.uri) == blob
        async with store.local_path(blob.uri) as path:
            assert path.read_bytes() == name.encode()
    assert await listed(store) == sorted(store.uri(name) for name in NAMES)
    for name in NAMES:
        await store.delete(store.uri(name))
        assert await store.stat(store.uri(name)) is None


MISLEADING = [
    "",
    "/etc/passwd",
    "acme/../other/file",
    "..",
    "acme/.",
    "acme//file",
    "acme/",
    "acme/.hidden",
    "acme\\..\\file",
    "acme/a\x00b",
    "acme/a\nb",
    "acme/a\x7fb",
    "acme/a\u2028b",
    "acme/\ud800",
    "acme/" + "x" * 256,
    "acme/" + "ü" * 128,
    "/".join(["x" * 99] * 10),
]


async def test_names_that_could_mislead_are_refused(store):
    for name in MISLEADING:
        with pytest.raises(InvalidInput):
            await store.put(name, b"x", "text/plain")
        with pytest.raises(InvalidInput):
            store.uri(name)
    assert await listed(store) == []


async def test_content_types_that_no_header_can_hold_are_refused(store):
    for content_type in ("", "audio", "audio/wav\r\nX-Evil: 1", "audio/wäv", "a/" + "b" * 300):
        with pytest.raises(InvalidInput):
            await store.put("acme/file", b"x", content_type)


def foreign(store):
    mine = store.uri("acme/file")
    return [
        "",
        "acme/file",
        "https://example.com/acme/file",
        "file:///etc/passwd",
        "file://elsewhere/acme/file",
        f"s3://another-bucket/{uuid4().hex}/acme/file",
        "s3://concord-test-2/acme/file",
        "memory:/acme/file",
        mine.replace("acme/file", ""),
        mine.replace("acme/file", "../file"),
        mine.replace("acme/file", "acme/../../file"),
        mine.replace("acme/file", "/file"),
        mine.replace("://", ":/"),
    ]


async def test_uris_of_other_stores_are_refused_by_every_verb(store):
    for uri in foreign(store):
        with pytest.raises(InvalidInput, match=r"is not in this store|blob name"):
            await store.get(uri)
        with pytest.raises(InvalidInput):
            await read(store, uri)
        with pytest.raises(InvalidInput):
            await store.stat(uri)
        with pytest.raises(InvalidInput):
            await store.presigned_url(uri, 60)
        with pytest.raises(InvalidInput):
            await store.delete(uri)
        with pytest.raises(InvalidInput):
            async with store.local_path(uri):
                pass


async def test_one_stores_blobs_are_not_anothers(request, kind, store):
    other = make(kind, request, uuid4().hex)
    blob = await other.put("acme/file", b"x", "text/plain")

    with pytest.raises(NotFound if kind == "memory" else InvalidInput):  # stores in memory have no names of their own
        await store.get(blob.uri)
    assert await listed(store) == []
    await other.close()


async def test_writing_again_replaces_content_and_type(store):
    first = await store.put("acme/file", b"first, and longer", "text/plain")
    second = await store.put("acme/file", b"second", "application/json")

    assert first.uri == second.uri
    assert await store.get(first.uri) == b"second"
    assert await store.stat(first.uri) == second


async def test_a_reader_sees_one_version_or_the_other_while_they_change(kind, store):
    size = 3 * MB
    blob = await store.put("acme/file", b"A" * size, "text/plain")
    done = asyncio.Event()

    async def write():
        for letter in (b"B", b"C", b"D", b"E", b"F", b"G"):
            await store.put("acme/file", pieces(*[letter * (size // 8)] * 8), "text/plain")
        done.set()

    async def look():
        seen = set()
        while not done.is_set():
            content = await read(store, blob.uri)
            assert len(content) == size
            assert content == content[:1] * size
            seen.add(content[:1])
            await asyncio.sleep(0)
        return seen

    _, one, other = await asyncio.gather(write(), look(), look())
    assert kind == "memory" or len(one | other) > 1  # memory never waits in between


async def test_fifty_megabytes_go_through_in_bounded_memory(kind, store):
    piece, count = b"0123456789abcdef" * (MB // 16), 50

    async def recording():
        for _ in range(count):
            yield bytes(bytearray(piece))

    await store.check()  # what is imported or connected first is not counted
    tracemalloc.start()
    blob = await store.put("acme/job/original.wav", recording(), "audio/wav")
    digest, size = hashlib.sha256(), 0
    async for part in store.stream(blob.uri):
        digest.update(part)
        size += len(part)
    async with store.local_path(blob.uri) as path:
        assert path.stat().st_size == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (size, digest.hexdigest()) == (blob.size_bytes, blob.sha256)
    assert size == count * MB
    assert await store.stat(blob.uri) == blob
    if kind != "memory":
        assert peak < 20 * MB  # a part of 8 MB, and some pieces of one


async def test_a_range_gives_exactly_those_bytes(store):
    blob = await store.put("acme/file", b"0123456789", "text/plain")

    for start in (0, 1, 5, 9, 10, 11, 500):
        for end in (None, 0, 1, 5, 9, 10, 11, 1000):
            if end is None or end >= start:
                assert await read(store, blob.uri, start, end) == b"0123456789"[start:end]


async def test_a_long_range_crosses_chunks(store):
    content = b"".join(number.to_bytes(4, "big") for number in range(MB))
    blob = await store.put("acme/file", content, "text/plain")

    assert await read(store, blob.uri, 3, 3 * MB + 7) == content[3 : 3 * MB + 7]


async def test_a_range_that_makes_no_sense_is_refused(store):
    blob = await store.put("acme/file", b"0123456789", "text/plain")

    for start, end in ((-1, None), (5, 4), (-5, -1)):
        with pytest.raises(InvalidInput):
            await read(store, blob.uri, start, end)


async def test_listing_a_folder_shows_what_is_in_it_and_nothing_of_its_neighbours(store):
    mine = [f"acme/job{job}/{name}" for job in (1, 2) for name in ("original.mp3", "runs/2/raw.json", "raw.json")]
    for name in [*mine, "acme2/job1/raw.json", "acm/job1/raw.json", "acme.json"]:
        await store.put(name, b"x", "text/plain")

    assert await listed(store, "acme/") == sorted(store.uri(name) for name in mine)
    assert await listed(store, "acme/job1/") == sorted(store.uri(name) for name in mine if "job1" in name)
    assert len(await listed(store)) == len(mine) + 3
    assert await listed(store, "nobody/") == []
    assert await listed(store, "acme/job1/raw.json/") == []


async def test_a_prefix_that_could_reach_into_a_neighbour_is_refused(store):
    for prefix in ("acme", "acme/job", "/", "../", "acme/../", "./", "acme//"):
        with pytest.raises(InvalidInput):
            await listed(store, prefix)


async def test_deleting_a_tenant_while_listing_it_leaves_the_others(store):
    for number in range(30):
        await store.put(f"acme/job{number % 5}/{number}", b"x", "text/plain")
    other = await store.put("acme2/job1/raw.json", b"x", "text/plain")

    async for uri in store.list("acme/"):
        await store.delete(uri)

    assert await listed(store) == [other.uri]
    assert await store.get(other.uri) == b"x"


async def test_a_blob_can_be_deleted_twice_and_is_then_not_there(store):
    blob = await store.put("acme/job/file", b"x", "text/plain")

    await store.delete(blob.uri)
    await store.delete(blob.uri)

    assert await store.stat(blob.uri) is None
    assert await listed(store) == []
    with pytest.raises(NotFound):
        await store.get(blob.uri)


async def test_what_is_not_there_is_said_to_be_missing(store):
    await store.put("acme/file", b"x", "text/plain")

    for name in ("acme/nothing", "nobody/at/all", "acme", "acme/file/inside"):
        uri = store.uri(name)
        assert await store.stat(uri) is None
        with pytest.raises(NotFound):
            await store.get(uri)
        with pytest.raises(NotFound):
            await read(store, uri)
        with pytest.raises(NotFound):
            await read(store, uri, 5, 5)
        with pytest.raises(NotFound):
            async with store.local_path(uri):
                pass
        await store.delete(uri)
    assert await store.get(store.uri("acme/file")) == b"x"


async def test_a_blob_inside_a_blob_is_refused_or_both_are_whole(store):
    await store.put("acme/job", b"outer", "text/plain")
    try:
        await store.put("acme/job/inner", b"inner", "text/plain")
    except InvalidInput:
        assert await listed(store) == [store.uri("acme/job")]
    else:
        assert await store.get(store.uri("acme/job/inner")) == b"inner"
    assert await store.get(store.uri("acme/job")) == b"outer"


@pytest.mark.parametrize("once", [False, True])
async def test_a_blob_in_place_of_a_folder_is_refused_or_both_are_whole(store, once):
    await store.put("acme/job/inner", b"inner", "text/plain")
    try:
        await store.put("acme/job", b"outer", "text/plain", once=once)
    except InvalidInput:
        assert await listed(store) == [store.uri("acme/job/inner")]
    else:
        assert await store.get(store.uri("acme/job")) == b"outer"
    assert await store.get(store.uri("acme/job/inner")) == b"inner"


@pytest.mark.parametrize("megabytes", [0, 1, 20])
async def test_a_cancelled_upload_leaves_what_was_there_before(store, megabytes):
    old = await store.put("acme/old", b"old", "text/plain")
    reached = asyncio.Event()

    async def stuck():
        for _ in range(megabytes):
            yield b"x" * MB
        reached.set()
        await asyncio.Event().wait()

    uploads = [asyncio.create_task(store.put(name, stuck(), "text/plain")) for name in ("acme/new", "acme/old")]
    await reached.wait()
    await asyncio.sleep(0.01)
    for upload in uploads:
        upload.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*uploads, return_exceptions=True)
    )

    assert await listed(store) == [old.uri]
    assert await store.stat(old.uri) == old


async def test_cancelled_at_any_moment_a_put_is_whole_or_not_there(store):
    await store.check()  # connected
    for after in (0, 0.001, 0.005, 0.02, 0.04, 0.06, 0.1, 0.15, 0.3):
        upload = asyncio.create_task(store.put(f"acme/{after}", pieces(*[b"x" * MB] * 20), "text/plain"))
        await asyncio.sleep(after)
        upload.cancel()
        await asyncio.wait({upload})

        blob = await store.stat(store.uri(f"acme/{after}"))
        assert blob is None or blob.size_bytes == 20 * MB
    assert await store.get((await store.put("acme/0", b"again", "text/plain")).uri) == b"again"


async def test_a_source_that_breaks_off_leaves_nothing_and_keeps_its_own_error(store):
    async def broken():
        yield b"x" * 2 * MB
        raise ConnectionResetError("the uploader went away")

    with pytest.raises(ConnectionResetError, match="went away"):
        await store.put("acme/file", broken(), "text/plain")
    assert await listed(store) == []


async def test_a_stream_left_half_way_does_no_harm(store):
    blob = await store.put("acme/file", pieces(*[b"x" * MB] * 8), "text/plain")
    for _ in range(60):  # more than there are connections or threads
        stream = store.stream(blob.uri)
        assert await anext(stream)
        await stream.aclose()

    assert len(await store.get(blob.uri)) == 8 * MB


async def test_a_blob_is_a_file_for_a_while(store):
    blob = await store.put("acme/job/original.mp3", b"ID3", "audio/mpeg")

    async with store.local_path(blob.uri) as path:
        assert path.read_bytes() == b"ID3"
        assert path.name == "original.mp3"
    assert await store.get(blob.uri) == b"ID3"


async def test_a_signed_url_cannot_be_valid_for_ever(store):
    for expires_s in (0, -1, 8 * 24 * 3600):
        with pytest.raises(InvalidInput):
            await store.presigned_url(store.uri("acme/file"), expires_s)
        with pytest.raises(InvalidInput):
            await store.presigned_put(store.uri("acme/file"), 1, expires_s)
        with pytest.raises(InvalidInput):
            await store.begin_parts(store.uri("acme/file"), [1], expires_s)


async def test_the_size_of_a_blob_is_told_without_reading_it(store):
    blob = await store.put("acme/file", b"12345", "text/plain")

    assert await store.size(blob.uri) == 5
    assert await store.size(store.uri("acme/other")) is None


async def test_tidying_leaves_blobs_and_what_is_being_written(store):
    blob = await store.put("acme/file", b"12345", "text/plain")

    async def pieces():
        yield b"x" * (2 << 20)
        await store.tidy()
        yield b"y"

    written = await store.put("acme/other", pieces(), "text/plain")
    assert {blob.uri, written.uri} == set(await listed(store))
    assert written.size_bytes == (2 << 20) + 1


async def test_many_at_once_do_not_mix(store):
    names = [f"acme/job{number % 7}/{number}" for number in range(200)]
    stored = await asyncio.gather(*(store.put(name, name.encode() * 50, "text/plain") for name in names))
    contents = await asyncio.gather(*(store.get(blob.uri) for blob in stored))

    assert contents == [name.encode() * 50 for name in names]
    assert len(await listed(store)) == 200


async def again_when_unavailable(work, *args):
    """Versitygw may lose the folder of a put to a delete; the store then says: try again. Our own folder never does."""
    for _ in range(20):
        try:
            return await work(*args)
        except Unavailable:
            assert not isinstance(work.__self__, LocalStore)
    raise AssertionError("unavailable twenty times")


async def test_puts_survive_deletes_of_their_folders_neighbours(store):
    async def churn(worker):
        for turn in range(15):
            blob = await again_when_unavailable(store.put, f"acme/job/{worker}-{turn}", b"x", "text/plain")
            assert await store.get(blob.uri) == b"x"
            await store.delete(blob.uri)

    await asyncio.gather(*map(churn, range(8)))
    assert await listed(store) == []


async def test_more_blobs_than_a_page_are_all_listed(store):
    names = [f"acme/{number // 100}/{number:04}" for number in range(1100)]
    for at in range(0, len(names), 50):
        await asyncio.gather(*(store.put(name, b"", "text/plain") for name in names[at : at + 50]))

    assert await listed(store, "acme/") == sorted(store.uri(name) for name in names)


async def test_a_store_that_works_says_so_and_leaves_nothing_behind(store):
    await store.check()

    assert await listed(store) == []


async def test_a_store_can_be_closed_twice_and_unused(request, kind):
    made = make(kind, request, uuid4().hex)

    await made.close()
    await made.close()


async def test_what_is_written_once_stays(store):
    first = await store.put("acme/job/original.wav", b"first", "audio/wav", once=True)
    second = await store.put("acme/job/original.wav", pieces(b"sec", b"ond"), "audio/flac", once=True)

    assert second == first
    assert await store.get(first.uri) == b"first"
    replaced = await store.put("acme/job/original.wav", b"third", "audio/wav")
    assert await store.stat(first.uri) == replaced


async def test_of_many_who_write_once_at_the_same_time_one_wins(store):
    blobs = await asyncio.gather(
        *(store.put("acme/job/original.wav", b"%d" % n, "audio/wav", once=True) for n in range(20))
    )

    there = await store.stat(blobs[0].uri)
    assert set(blobs) == {there}
    assert await store.get(there.uri) in {b"%d" % n for n in range(20)}
    assert await listed(store) == [there.uri]


async def test_a_large_blob_is_written_once_too(store):
    large = pieces(*[b"x" * MB] * 20)
    first = await store.put("acme/job/original.wav", large, "audio/wav", once=True)

    assert await store.put("acme/job/original.wav", pieces(*[b"y" * MB] * 20), "audio/wav", once=True) == first
