"""Failures that only a folder has: links, other programs' files, full and read-only disks, incomplete files, kills."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidInput, NotFound, SettingsError, Unavailable
from sinks.blobs.local import PARTS, LocalStore
from sinks.blobs.local_folders import FolderTree
from sinks.blobs.local_parts import ATTRIBUTE, PART_AGE, UNLOCKED_AGE, Part
from sinks.blobs.rules import is_name, name_in
from sinks.blobs.threads import Threads

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="extended attributes and /proc are Linux's")


@pytest.fixture(params=["in one go", "segment by segment"])
async def store(tmp_path, request, monkeypatch):
    if request.param == "segment by segment":  # as without /proc
        monkeypatch.setattr(FolderTree, "_open_at_once", lambda *_: None)
    made = LocalStore(tmp_path / "blobs")
    yield made
    await made.close()


async def pieces(*content):
    for piece in content:
        yield piece


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


# URIs.


async def test_a_uri_is_the_percent_encoded_absolute_path(tmp_path):
    store = LocalStore(tmp_path / "mit Leerzeichen" / ".." / "wörter")

    assert store.uri("acme/a b%c?.txt") == f"file://{quote(str(tmp_path))}/w%C3%B6rter/acme/a%20b%25c%3F.txt"


async def test_other_spellings_of_a_uri_mean_the_same_blob(store):
    blob = await store.put("acme/file:1", b"x", "text/plain")

    path = store.root / "acme/file:1"
    for uri in (f"file://{path}", f"file://localhost{path}", blob.uri.replace("acme", "%61cme")):
        assert await store.get(uri) == b"x"


async def test_tricks_with_percent_signs_lead_nowhere(store):
    await store.put("acme/file", b"x", "text/plain")

    for tail in (
        "%2e%2e/x",
        "acme/%2E%2E/%2E%2E/x",
        "acme%00/file",
        "acme/%ff",
        "acme/file?x",
        "acme/file#x",
        "acme/%2e",
    ):
        with pytest.raises(InvalidInput):
            await store.get(f"file://{store.root}/{tail}")


@given(st.text(min_size=1, max_size=60))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_name_is_refused_or_comes_back_from_its_uri(name):
    store = LocalStore(Path("/srv/blobs"))
    if is_name(name):
        assert store.name(store.uri(name)) == name
        assert name_in("s3://bucket/", f"s3://bucket/{name}") == name
        inside = os.path.normpath(f"/srv/blobs/{name}")
        assert inside == f"/srv/blobs/{name}"
    else:
        with pytest.raises(InvalidInput):
            store.uri(name)


# What others leave in the folder.


async def test_symbolic_links_are_not_followed_wherever_they_lead(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    await store.put("acme/file", b"x", "text/plain")
    (store.root / "linked").symlink_to(outside)
    (store.root / "acme/link").symlink_to(outside / "secret")
    (store.root / "acme/inside").symlink_to("file")

    for name in ("linked/secret", "acme/link", "acme/inside"):
        for work in (store.get, store.stat):
            with pytest.raises(InvalidInput, match="symbolic link"):
                await work(store.uri(name))
        with pytest.raises(InvalidInput, match="symbolic link"):
            async with store.local_path(store.uri(name)):
                pass
    for name in ("linked/new", "linked/deep/new"):
        with pytest.raises(InvalidInput, match="symbolic link"):
            await store.put(name, b"x", "text/plain")
    with pytest.raises(InvalidInput, match="symbolic link"):
        await store.delete(store.uri("linked/secret"))
    assert [uri async for uri in store.list("")] == [store.uri("acme/file")]
    with pytest.raises(InvalidInput, match="symbolic link"):
        assert [uri async for uri in store.list("linked/")] == []
    assert files(outside) == ["secret"]


async def test_a_put_replaces_a_link_and_not_what_it_leads_to(store, tmp_path):
    (tmp_path / "precious").write_text("precious")
    store.root.mkdir()
    (store.root / "file").symlink_to(tmp_path / "precious")

    blob = await store.put("file", b"new", "text/plain")

    assert await store.get(blob.uri) == b"new"
    assert (tmp_path / "precious").read_text() == "precious"


async def test_the_root_itself_may_be_a_link_to_another_disk(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    store = LocalStore(tmp_path / "link")

    blob = await store.put("acme/file", b"x", "text/plain")

    assert blob.uri == f"file://{tmp_path}/link/acme/file"
    assert (tmp_path / "disk/acme/file").read_bytes() == b"x"
    (tmp_path / "other").mkdir()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("other")
    await store.put("acme/file", b"y", "text/plain")
    assert (tmp_path / "other/acme/file").read_bytes() == await store.get(blob.uri) == b"y"
    assert (tmp_path / "disk/acme/file").read_bytes() == b"x"
    await store.close()


async def test_pipes_and_hidden_and_unspeakable_files_are_no_blobs(store):
    await store.put("acme/file", b"x", "text/plain")
    os.mkfifo(store.root / "acme/pipe")
    (store.root / "acme/.hidden").write_text("x")
    (store.root / os.fsdecode(b"acme/\xff")).write_text("x")

    assert [uri async for uri in store.list("")] == [store.uri("acme/file")]
    with pytest.raises(NotFound):
        await store.get(store.uri("acme/pipe"))


@linux
async def test_a_file_changed_by_hand_is_described_as_it_is_now(store):
    blob = await store.put("acme/notes.md", b"before", "text/x-special")
    assert (await store.stat(blob.uri)).content_type == "text/x-special"

    (store.root / "acme/notes.md").write_bytes(b"after!")

    changed = await store.stat(blob.uri)
    assert (changed.size_bytes, changed.sha256) == (6, hashlib.sha256(b"after!").hexdigest())
    assert changed.content_type == "text/markdown"


@linux
async def test_a_copy_without_its_attribute_is_read_and_its_type_guessed(store):
    blob = await store.put("acme/original.mp3", b"ID3", "audio/x-of-its-own")
    os.removexattr(store.root / "acme/original.mp3", ATTRIBUTE)

    copied = await store.stat(blob.uri)

    assert (copied.sha256, copied.content_type) == (blob.sha256, "audio/mpeg")


@linux
async def test_a_damaged_attribute_is_as_good_as_none(store):
    blob = await store.put("acme/original.mp3", b"ID3", "audio/mpeg")
    for damaged in (b"", b"{", b"[]", b'{"sha256": "x"}', b"\xff"):
        os.setxattr(store.root / "acme/original.mp3", ATTRIBUTE, damaged)

        assert await store.stat(blob.uri) == blob


# Folders.


async def test_a_delete_removes_the_folders_it_emptied_and_no_others(store):
    deep = await store.put("acme/job/runs/2/raw.json", b"x", "text/plain")
    other = await store.put("acme/job/raw.json", b"x", "text/plain")

    await store.delete(deep.uri)
    assert not (store.root / "acme/job/runs").exists()
    assert await store.get(other.uri) == b"x"

    await store.delete(other.uri)
    assert sorted(path.name for path in store.root.iterdir()) == [PARTS]


async def test_other_users_of_the_machine_cannot_read_recordings(store):
    await store.put("acme/job/original.mp3", b"x", "text/plain")

    assert (store.root / "acme/job/original.mp3").stat().st_mode & 0o077 == 0
    assert (store.root / "acme/job").stat().st_mode & 0o077 == 0


@pytest.mark.slow
async def test_two_processes_worth_of_stores_on_one_folder_do_not_disturb_each_other(tmp_path):
    stores = [LocalStore(tmp_path, durable=False) for _ in range(4)]

    async def churn(number, store):
        for turn in range(100):
            blob = await store.put(f"acme/job/{number}", str(turn).encode(), "text/plain")
            assert await store.get(blob.uri) == str(turn).encode()
            await store.delete(blob.uri)

    await asyncio.gather(*(churn(number, store) for number, store in enumerate(stores)))
    assert files(tmp_path) == []
    for store in stores:
        await store.close()


async def test_a_root_that_vanishes_is_unavailable_and_not_made_again(store):
    blob = await store.put("acme/file", b"x", "text/plain")
    shutil.rmtree(store.root)

    for work in (store.get(blob.uri), store.stat(blob.uri), store.put("acme/other", b"x", "text/plain")):
        with pytest.raises(Unavailable, match=r"is gone|cannot be used"):
            await work
    assert not store.root.exists()


async def test_a_removed_folder_for_parts_is_made_again(store):
    await store.put("acme/file", b"x", "text/plain")
    shutil.rmtree(store.root / PARTS)

    await store.put("acme/file", b"y", "text/plain")


# Parts.


@pytest.mark.parametrize("occasion", ["check", "tidy"])
async def test_parts_of_killed_processes_are_swept_and_those_that_are_written_are_left(tmp_path, occasion):
    parts = tmp_path / PARTS
    parts.mkdir()
    written = Part(parts / "written.part")
    ages = {"abandoned": UNLOCKED_AGE + 5, "young": UNLOCKED_AGE - 5, "written": PART_AGE - 60, "old": PART_AGE + 60}
    for name, age in ages.items():
        (parts / f"{name}.part").touch()
        os.utime(parts / f"{name}.part", (time.time() - age,) * 2)
    store = LocalStore(tmp_path)

    await getattr(store, occasion)()

    assert files(tmp_path) == [f"{PARTS}/written.part", f"{PARTS}/young.part"]
    written.discard()
    await store.close()


async def test_a_cancelled_or_failed_put_leaves_no_part(store):
    async def endless():
        while True:
            yield b"x" * 100_000

    for after in (0, 0.001, 0.01, 0.05):
        upload = asyncio.create_task(store.put("acme/file", endless(), "text/plain"))
        await asyncio.sleep(after)
        upload.cancel()
        await asyncio.wait({upload})
        assert files(store.root) == []


@pytest.mark.slow
@linux
async def test_no_descriptor_is_left_open_whatever_is_cancelled(store):
    blob = await store.put("acme/file", b"x" * 3_000_000, "text/plain")

    async def use():
        async with store.local_path(blob.uri):
            pass
        async for _ in store.stream(blob.uri):
            await store.stat(blob.uri)
        await store.put("acme/other", pieces(b"x" * 2_000_000), "text/plain")

    before = len([*Path("/proc/self/fd").iterdir()])
    for turn in range(120):
        task = asyncio.create_task(use())
        await asyncio.sleep(turn / 20_000)
        task.cancel()
        await asyncio.wait({task})
    assert len([*Path("/proc/self/fd").iterdir()]) <= before


async def test_a_thread_is_waited_for_however_often_its_caller_is_cancelled():
    threads, ended, undone = Threads(1), [], []

    def slow():
        time.sleep(0.2)
        ended.append(True)
        return "result"

    task = asyncio.create_task(threads.run(slow, undo=undone.append))
    await asyncio.sleep(0.02)
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ended, undone) == ([True], ["result"])
    await threads.close()


# Killed, full and forbidden.

WRITER = """
    import asyncio, hashlib, itertools, sys
    from pathlib import Path
    from sinks.blobs.local import LocalStore

    def content(turn, size):
        seed = hashlib.sha256(str(turn).encode()).digest()
        return seed * (size // 32)

    async def pieces(whole):
        for at in range(0, len(whole), 300_000):
            yield whole[at : at + 300_000]

    async def write(store, worker):
        for turn in itertools.count():
            whole = content(turn, 3_000_000 if turn % 3 == 0 else 4_096)
            name = f"acme/{worker}/{turn % 5}"
            blob = await store.put(name, pieces(whole) if turn % 2 else whole, "audio/wav")
            print(worker, turn, blob.sha256, flush=True)

    async def main():
        store = LocalStore(Path(sys.argv[1]))
        await asyncio.gather(*(write(store, worker) for worker in range(4)))

    asyncio.run(main())
"""


def write_and_kill(folder, after_s):
    """What a writer had acknowledged when it was killed: worker, turn and sha256, in order."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        lines = [child.stdout.readline() for _ in range(20)]
        time.sleep(after_s)
        child.kill()
        lines += child.stdout.readlines()
    return [line.split() for line in lines if line.endswith("\n")]


@pytest.mark.slow
async def test_a_kill_in_the_middle_of_writing_leaves_no_torn_blob_and_loses_none(tmp_path):
    for number in range(4):
        acked = write_and_kill(tmp_path, after_s=0.03 * number)
        newest = {}
        for worker, turn, sha256 in acked:
            newest[f"acme/{worker}/{int(turn) % 5}"] = (int(turn), sha256)
        assert newest
        store = LocalStore(tmp_path)
        for name, (turn, sha256) in newest.items():
            blob, content = await store.stat(store.uri(name)), await store.get(store.uri(name))
            assert blob.sha256 == hashlib.sha256(content).hexdigest()  # whole
            following = hashlib.sha256(str(turn + 5).encode()).digest()
            assert blob.sha256 == sha256 or content.startswith(following)  # the one acknowledged last, or the next
            assert blob.content_type == "audio/wav"
        await store.close()


def in_namespace(tmp_path, mount, code):
    """Run code on a file system of its own, mounted in a user namespace; skips where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user namespaces (unshare -Urm) for a file system of its own")
    script = f'{mount} "$1" || exit 77; exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        [unshare, "-Urm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode == 77:
        pytest.skip(f"cannot mount here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_full_disk_is_unavailable_says_so_and_keeps_what_was_there(tmp_path):
    out = in_namespace(
        tmp_path,
        "mount -t tmpfs -o size=1m tmpfs",
        """
        import asyncio, os, sys
        from pathlib import Path
        from schemas.errors import Unavailable
        from sinks.blobs.local import LocalStore

        async def big():
            for _ in range(30):
                yield b"x" * 100_000

        async def main():
            store = LocalStore(Path(sys.argv[1]))
            old = await store.put("acme/file", b"old", "text/plain")
            for content in (b"x" * 3_000_000, big()):
                try:
                    await store.put("acme/file", content, "text/plain")
                except Unavailable as exc:
                    print(exc)
            assert await store.get(old.uri) == b"old"
            assert os.listdir(Path(sys.argv[1], ".parts")) == []
            await store.put("acme/file", b"new", "text/plain")
            await store.close()

        asyncio.run(main())
    """,
    )

    assert out.count("no room left under") == 2


@pytest.mark.slow
def test_a_file_system_without_attributes_still_serves(tmp_path):
    out = in_namespace(
        tmp_path,
        "mount -t ramfs ramfs",
        """
        import asyncio, sys
        from pathlib import Path
        from sinks.blobs.local import LocalStore

        async def main():
            store = LocalStore(Path(sys.argv[1]))
            blob = await store.put("acme/metadata.json", b"{}", "application/json")
            assert await store.stat(blob.uri) == blob
            await store.check()
            print("served")

        asyncio.run(main())
    """,
    )

    assert out == "served\n"


@pytest.mark.slow
def test_a_read_only_disk_is_the_operators_to_mend(tmp_path):
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme/file").write_text("x")
    out = in_namespace(
        tmp_path,
        'mount --bind -o ro "$1"',
        """
        import asyncio, sys
        from pathlib import Path
        from schemas.errors import SettingsError
        from sinks.blobs.local import LocalStore

        async def main():
            store = LocalStore(Path(sys.argv[1]))
            assert await store.get(store.uri("acme/file")) == b"x"
            try:
                await store.check()
            except SettingsError as exc:
                print(exc)

        asyncio.run(main())
    """,
    )

    assert "must be readable and writable" in out


@pytest.fixture
def unwritable(tmp_path):
    """A folder that whoever runs this test may not write: root, who may, is somebody else for as long."""
    tmp_path.chmod(0o500)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    yield tmp_path
    os.seteuid(me)


async def test_a_folder_of_somebody_else_is_the_operators_to_mend(unwritable):
    store = LocalStore(unwritable)

    with pytest.raises(SettingsError, match="readable and writable"):
        await store.check()
    await store.close()
