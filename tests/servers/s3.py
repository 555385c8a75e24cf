"""A real S3 server for tests: versitygw (Go, Apache-2.0), built once into the shared cache; moto where there is no Go.

`python -m tests.servers.s3` builds it ahead of time (two minutes when Go has nothing cached).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

import pytest

from agents.embedded.process import PORT_RANGE, dies_with_parent, port_is_free, tail
from tests.conftest import need
from tests.servers.built import go_built

VERSION = "v1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"

#: The only region of the server, and the bucket that exists from the start.
REGION = "us-east-1"
BUCKET = "concord-test"

OWNER = {"access_key": "owner-key", "secret_key": "owner-secret"}
#: Has only the rights of a bucket policy.
GUEST = {"access_key": "guest-key", "secret_key": "guest-secret"}


def versitygw() -> Path:
    """The executable, built if it does not exist. Raises FileNotFoundError if Go is needed and missing."""
    return go_built(MODULE, VERSION)


@dataclass
class S3Server:
    """A server process. After a restart it has the same port and the same data (moto: no data)."""

    folder: Path
    command: list[str]
    #: The reason why this is moto; empty for a real server.
    why_moto: str = ""
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [part.replace("{port}", str(self.port)) for part in self.command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={"ROOT_ACCESS_KEY": OWNER["access_key"], "ROOT_SECRET_KEY": OWNER["secret_key"], "PATH": ""},
                preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- see there
            )
        deadline = time.monotonic() + 30
        while port_is_free(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command[0]} did not start:\n{tail(self.folder / 'log')}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self):
        """Botocore's own, synchronous client, with which tests read objects and create buckets and policies."""
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=OWNER["access_key"],
            aws_secret_access_key=OWNER["secret_key"],
            config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "max_attempts": 5}),
        )

    def genuine(self, what: str) -> None:
        """Skip a test of a feature that moto lacks."""
        if self.why_moto:
            pytest.skip(f"moto has no {what}. {self.why_moto}")


def server_in(folder: Path) -> S3Server:
    """A server with its data in this folder, not started: versitygw, or moto without Go."""
    try:
        executable = versitygw()
    except FileNotFoundError as exc:
        return moto_in(folder, why=str(exc))
    data, users = folder / "data", folder / "users"
    data.mkdir()
    users.mkdir()
    guest = {"access": GUEST["access_key"], "secret": GUEST["secret_key"], "role": "user"}
    (users / "users.json").write_text(json.dumps({"accessAccounts": {GUEST["access_key"]: guest}}))
    flags = ["--port", "127.0.0.1:{port}", "--region", REGION, "--iam-dir", str(users), "--quiet"]
    return S3Server(folder, [str(executable), *flags, "posix", str(data)], port=_free_port())


def moto_in(folder: Path, why: str) -> S3Server:
    """Moto's server, not started: it checks no signature and stores nothing, but supports all settings of S3."""
    need("moto", "flask")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}"]
    return S3Server(folder, command, why_moto=why, port=_free_port())


def _free_port() -> int:
    return next(port for port in SystemRandom().sample(PORT_RANGE, 500) if port_is_free(port))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """The session's S3 server with `BUCKET`; each test uses its own prefix."""
    server = server_in(tmp_path_factory.mktemp("s3"))
    server.start()
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield server
    server.kill()


if __name__ == "__main__":
    print(versitygw())
