"""`make bench-uploads`: recordings of 100 MB that are uploaded at the same moment to a worker that stores in S3.

Servers, worker and requests are real, S3 is versitygw; the recognizers answer at once. Printed are the most memory that
the worker's process has had, and what is left in the bucket of uploads in parts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import tempfile
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from agents.commands.serve import servers
from agents.fleet.environment import from_env
from bench import measure
from bench.__main__ import RECOGNIZERS, Figures, worker
from bench.processes import cpu_seconds, family, peak_mb, resident_mb
from tests.servers.s3 import OWNER, REGION, S3Server, server_in

BUCKET = "uploads"

#: Bytes of a recording: a little less than `MAX_UPLOAD_SIZE_MB`.
SIZE = 99 << 20

#: The most that the worker's process may have.
AIM_MB = 300


def arguments() -> argparse.Namespace:
    """What may be set."""
    parser = argparse.ArgumentParser("python -m bench.uploads", description=__doc__)
    parser.add_argument("--uploads", type=int, default=50, help="at the same moment (default %(default)s)")
    parser.add_argument("--tenants", type=int, default=5, help="whose they are (default %(default)s)")
    parser.add_argument("--files", action="store_true", help="store in a folder, and not in S3")
    return parser.parse_args()


def recording(path: Path) -> None:
    """A WAV file of `SIZE` bytes: noise, which nothing compresses."""
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        second = os.urandom(192_000)
        for _ in range(SIZE // len(second)):
            file.writeframes(second)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 18):
            yield piece
            await asyncio.sleep(0)


async def upload(session: aiohttp.ClientSession, url: str, path: Path, tenant: str) -> int:
    """The status of the answer to one upload; as a client does, it asks again when the service is busy."""
    for _ in range(100):
        headers = {"Content-Type": "audio/wav", "Content-Length": str(path.stat().st_size)}
        where = f"{url}/audio/process?tenant={tenant}&filename=call.wav"
        async with session.post(where, data=_pieces(path), headers=headers) as answer:
            await answer.read()
            if answer.status not in (429, 503):
                return answer.status
        await asyncio.sleep(1)
    return 0


class Watched:
    """The most memory of a process and its children, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.own_mb = self.children_mb = 0.0
        self._pid = pid

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.own_mb = max(self.own_mb, resident_mb(self._pid))
            sizes = [peak_mb(pid) for pid in family(self._pid)[1:]]
            self.children_mb = max([self.children_mb, *sizes])
            await asyncio.sleep(0.1)


async def run(wanted: argparse.Namespace, data: Path, s3: S3Server) -> Figures:
    """The one measurement."""
    figures, path = Figures(), data / "call.wav"
    recording(path)
    stored = {} if wanted.files else of_s3(s3)
    settings = from_env({"CONCORD_DATA": str(data), "CONCORD_RECOGNIZERS": RECOGNIZERS})
    async with servers(settings) as complete:
        log = data / "worker.log"
        async with worker(complete, log, TMPDIR=str(data), **stored) as process:
            url = await measure.until_ready(log, process)
            watched, began, cpu = Watched(process.pid), time.monotonic(), cpu_seconds(process.pid)
            figures.add("resident memory of the worker before", f"{resident_mb(process.pid):.0f} MB")
            watching = asyncio.create_task(watched.run())
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=1800)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                sent = [upload(session, url, path, f"tenant-{n % wanted.tenants}") for n in range(wanted.uploads)]
                statuses = Counter(await asyncio.gather(*sent))
            seconds = time.monotonic() - began
            watching.cancel()
            where = "a folder" if wanted.files else "S3, in parts"
            figures.add(f"{wanted.uploads} uploads of {SIZE >> 20} MB to {where}: answers", str(dict(statuses)))
            figures.add("seconds, CPU of the worker", f"{seconds:.0f}, {cpu_seconds(process.pid) - cpu:.0f} s")
            peak = max(watched.own_mb, peak_mb(process.pid))
            figures.add("most memory of the worker's process", f"{peak:.0f} MB", f"{AIM_MB} MB")
            figures.add("of its largest child", f"{watched.children_mb:.0f} MB")
    if not wanted.files:
        figures.add("uploads in parts that are left in the bucket", str(in_parts(s3)), "0")
    return figures


def of_s3(s3: S3Server) -> dict[str, str]:
    """The worker's environment for the bucket."""
    return {
        "S3_BUCKET_NAME": BUCKET,
        "S3_REGION": REGION,
        "S3_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": OWNER["access_key"],
        "AWS_SECRET_ACCESS_KEY": OWNER["secret_key"],
    }


def in_parts(s3: S3Server) -> int:
    """How many uploads in parts have neither been completed nor removed."""
    client = s3.client()
    try:
        return len(client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))
    finally:
        client.close()


def main() -> None:
    """Run and print."""
    wanted = arguments()
    data = Path(tempfile.mkdtemp(prefix="concord-bench-"))
    data.chmod(0o755)
    (data / "s3").mkdir()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}", flush=True)
    s3 = server_in(data / "s3")
    s3.start()
    try:
        client = s3.client()
        client.create_bucket(Bucket=BUCKET)
        client.close()
        print(asyncio.run(run(wanted, data, s3)).table())
    finally:
        s3.kill()
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
