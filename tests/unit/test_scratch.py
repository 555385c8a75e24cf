"""Temporary files of a killed process are removed by the next one; those of others stay."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from agents.runtime import scratch

_WORK = """
import sys, tempfile, time
from pathlib import Path
from agents.runtime.scratch import temporary_files
with temporary_files() as own:
    with tempfile.TemporaryDirectory(prefix="concord-") as folder:
        (Path(folder) / "audio").write_bytes(b"half a recording")
        print(own, flush=True)
        time.sleep(60)
"""


@pytest.fixture
def tmp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def working(tmp: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process in the middle of a download, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WORK], env={"TMPDIR": str(tmp)}, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_has_is_not(tmp):
    (killed, left), (alive, used) = working(tmp), working(tmp)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [*left.rglob("audio")]

    with scratch.temporary_files() as own:
        assert sorted(tmp.iterdir()) == sorted([own, used])
        assert [*used.rglob("audio")]
        assert Path(tempfile.gettempdir()) == own
        assert own.stat().st_mode & 0o777 == 0o700
    alive.kill()
    alive.wait()
    assert [*tmp.iterdir()] == [used]
    for process in (killed, alive):
        process.stdout.close()


def test_what_is_not_ours_is_not_removed(tmp):
    (tmp / "concord-test-x").mkdir()
    (tmp / "concord-work-file").write_text("no folder")
    (tmp / "elsewhere").mkdir()
    (tmp / "concord-work-link").symlink_to(tmp / "elsewhere")
    (tmp / "elsewhere/file").touch()
    with scratch.temporary_files():
        pass

    assert (tmp / "elsewhere/file").exists()
    assert len([*tmp.iterdir()]) == 4


def test_many_that_begin_at_once_keep_their_folders(tmp):
    seen, barrier = [], threading.Barrier(8)

    def work():
        for _ in range(20):
            with scratch.folder(tmp, "part-") as own:
                (own / "file").write_text("x")
                seen.append((own / "file").read_text())
        barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(seen) == 160
    assert [*tmp.iterdir()] == []
