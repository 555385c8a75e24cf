"""What other users of the machine see of a process with secrets, and of its files. The child's side is in
test_subprocess_worker.py.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agents.commands.serve import make_data_folder
from agents.embedded import address
from agents.runtime.faust_binding import faust_app
from agents.runtime.kafka.client import Kafka

ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_umask():
    """The most generous one."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_tables_and_addresses_are_private_whatever_the_umask(tmp_path, open_umask):
    data = tmp_path / "data"
    make_data_folder(data)
    faust_app("persist", Kafka("127.0.0.1:1"), data)
    (data / f"{address.FILE}.part").touch(0o666)  # as a killed process left it
    address.write(data, {"DATABASE_URL": "postgresql://u:password@h/d"})

    assert mode(data) & 0o066 == 0
    assert mode(data / "tables") == 0o700
    assert mode(data / address.FILE) == 0o600
    assert address.read(data)["DATABASE_URL"].endswith("@h/d")


def test_a_data_folder_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)

    make_data_folder(tmp_path)

    assert mode(tmp_path) == 0o750


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_that_keeps_private_shows_nothing_and_makes_private_files(tmp_path):
    program = (
        "import ctypes, os, sys\n"
        "from agents.media.sandbox import keep_private\n"
        "os.umask(0)\n"
        "keep_private()\n"
        "open(sys.argv[1], 'w').close()\n"
        "os.mkdir(sys.argv[1] + '.folder')\n"
        "print('dumpable', ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    path = tmp_path / "made"

    done = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "dumpable 0\n"
    assert (mode(path), mode(tmp_path / "made.folder")) == (0o600, 0o700)
