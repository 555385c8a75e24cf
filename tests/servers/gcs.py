"""A local Google Cloud Storage, as far as Google Speech needs it to read recordings.

`Storage` is fake-gcs-server (Go, BSD-2), built once into the shared cache. It cannot be made to fail, and needs Go:
for both cases there is `Server`, some routes of the JSON API, which passes the same tests
(`tests/contract/test_google_storage.py`).

    POST   /upload/storage/v1/b/{bucket}/o?uploadType=media&name=...&ifGenerationMatch=0   the object
    GET    /storage/v1/b/{bucket}/o/{object}?alt=media                                    its content
    DELETE /storage/v1/b/{bucket}/o/{object}
    GET    /storage/v1/b/{bucket}/o                                                       all objects
    GET, PUT /switches         its misbehaviour; a PUT replaces all switches, so `{}` resets them

    refuse_429    refuse with 429 and Retry-After: retry_after_s (1)
    error_5xx     fail with 503
    stall         accept the request and never respond
    stop_reading  read no more than the first bytes of an upload
    lose_answer   do it, and cut the connection instead of responding
    forbidden     403, as for an account without a role
    tamper        return other content than was stored
    on            calls to which they apply: put, get, delete (all)

All but `retry_after_s` and `on` are true (until switched off) or a number of calls, counted down.

Checked against fake-gcs-server 1.56.1: paths, parameters, the precondition's 412, 404 for a bucket and for an object
that does not exist. From the vendor's documentation, not checked for want of an account: 401 and 403 and their texts,
and that a 429 may have Retry-After.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aiohttp
from aiohttp import web

from agents.embedded.process import Child, keep_ports
from tests.servers.billing import Billing, Switched, cut
from tests.servers.built import go_built

ROOT = Path(__file__).parents[2]
VERSION = "v1.56.1"
MODULE = "github.com/fsouza/fake-gcs-server"

#: The bucket that exists from the start.
BUCKET = "concord-recordings"


@dataclass
class Switches(Switched):
    """How the server responds; see the module."""

    refuse_429: bool | int = False
    error_5xx: bool | int = False
    stall: bool | int = False
    stop_reading: bool | int = False
    lose_answer: bool | int = False
    forbidden: bool | int = False
    tamper: bool | int = False
    retry_after_s: float = 1.0
    on: list[str] = field(default_factory=lambda: ["put", "get", "delete"])


class Server(Billing):
    """The routes, over a dictionary. It bills nothing; `calls` are the received requests, as (call, headers)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "gcs.jsonl", Switches())
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, dict[str, str]]] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=4 << 30)
        path = "/storage/v1/b/{bucket}/o"
        app.add_routes(
            [
                web.post(f"/upload{path}", self.put),
                web.get(path, self.list_all),
                web.get(f"{path}/{{name}}", self.get),
                web.delete(f"{path}/{{name}}", self.delete),
                *self.operated(),
            ]
        )
        return app

    async def put(self, request: web.Request) -> web.StreamResponse:
        if (bad := await self._misbehaves("put", request)) is not None:
            return bad
        name = request.query["name"]
        if request.query.get("ifGenerationMatch") == "0" and name in self.objects:
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        self.objects[name] = await request.read()
        if self.switches.takes("lose_answer"):
            return cut(request)
        return web.json_response({"kind": "storage#object", "name": name, "size": str(len(self.objects[name]))})

    async def get(self, request: web.Request) -> web.StreamResponse:
        if (bad := await self._misbehaves("get", request)) is not None:
            return bad
        content = self.objects.get(request.match_info["name"])
        if content is None:
            return _error(404, f"No such object: {request.match_info['bucket']}/{request.match_info['name']}")
        return web.Response(body=b"not it" if self.switches.takes("tamper") else content)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        if (bad := await self._misbehaves("delete", request)) is not None:
            return bad
        if self.objects.pop(request.match_info["name"], None) is None:
            return _error(404, f"No such object: {request.match_info['bucket']}/{request.match_info['name']}")
        return web.Response(status=204)

    async def list_all(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "storage#objects", "items": [{"name": name} for name in self.objects]})

    async def _misbehaves(self, call: str, request: web.Request) -> web.StreamResponse | None:
        self.calls.append((call, dict(request.headers)))
        if request.match_info["bucket"] != BUCKET:
            return _error(404, "The specified bucket does not exist.")
        switches = self.switches
        if call not in switches.on:
            return None
        if switches.takes("refuse_429"):
            return _error(429, "The rate of requests is too high.", {"Retry-After": f"{switches.retry_after_s:g}"})
        if switches.takes("error_5xx"):
            return _error(503, "Backend error")
        if switches.takes("forbidden"):
            return _error(403, "concord@our-project does not have storage.objects.create access to the bucket.")
        if switches.takes("stall"):
            await self._changed.wait()
            return cut(request)
        if call == "put" and switches.takes("stop_reading"):
            await request.content.readany()
            await self._changed.wait()
            return cut(request)
        return None


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message}}, status=status, headers=headers)


@contextlib.asynccontextmanager
async def storage_apart() -> AsyncIterator[Storage]:
    """A storage process in a folder of its own, which goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="concord-test-"))
    it = Storage(folder / "storage")
    await it.start()
    try:
        yield it
    finally:
        it.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Storage:
    """A storage process: fake-gcs-server, or `Server` where there is no Go."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "data" / BUCKET).mkdir(parents=True)
        self.port = keep_ports(folder / "ports.json", ["http"], {})["http"]
        self._folder = folder
        self._child = Child("the storage server", folder / "pid.json", folder / "server.log")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it (again), and wait for its first answer."""
        try:
            command = [str(await asyncio.to_thread(go_built, MODULE, VERSION)), "-scheme", "http", "-host", "127.0.0.1"]
            command += ["-port", str(self.port), "-filesystem-root", str(self._folder / "data"), "-log-level", "warn"]
            command += ["-public-host", f"127.0.0.1:{self.port}"]
        except FileNotFoundError:
            command = [sys.executable, "-m", "tests.servers.gcs", "--port", str(self.port)]
        env = {k: v for k, v in os.environ.items() if not k.startswith("CONCORD_")}
        self._child.spawn(command, env=env | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}, cwd=ROOT)
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    await self.names()
                    return
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """`kill -9`."""
        self._child.kill()

    async def names(self) -> list[str]:
        """All objects of the bucket."""
        url = f"{self.endpoint}/storage/v1/b/{BUCKET}/o"
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as answer:
            return [item["name"] for item in (await answer.json()).get("items", ())]


async def fetched(endpoint: str, uri: str) -> bytes | None:
    """What lies at a gs:// URI; None if nothing does."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    url = f"{endpoint}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.read() if answer.status == 200 else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.servers.gcs", description="A local Google Cloud Storage.")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        web.run_app(Server(Path(folder)).app(), host="127.0.0.1", port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
