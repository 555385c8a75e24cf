"""What the API is asked about: jobs of two tenants from upload to transcript, and everything else that has an id."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field

import aiohttp

from bench.load import tone

#: Keys of the worker, by the tenant; `*` is the operator's.
KEYS = {
    name: f"{word}-key-of-the-fuzzer"
    for name, word in {"acme": "acme", "bolt": "bolt", "carl": "carl", "*": "any"}.items()
}

#: What signs transcripts of the outside service `stt`, for whose answers the jobs of carl wait.
SECRET = "secret-of-the-fuzzer"

#: Seconds within which the seeded recordings must be transcribed.
PATIENCE_S = 240.0


@dataclass
class Seeded:
    """The ids of one tenant's things, by what they are."""

    tenant: str
    session: aiohttp.ClientSession
    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    async def call(self, method: str, path: str, status: int, **more: object) -> dict:
        """The answer, which must have this status."""
        async with self.session.request(method, path, **more) as answer:
            if answer.status != status:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def jobs(self, count: int) -> None:
        """Upload so many recordings."""
        for number in range(count):
            form = aiohttp.FormData()
            form.add_field("file", tone(), filename=f"call-{number}.wav", content_type="audio/wav")
            form.add_field("reference", f"call {number}")
            job = await self.call("POST", "/audio/process", 202, data=form)
            self.ids["job"].append(job["job_id"])

    async def transcribed(self) -> None:
        """Wait for the transcripts of all recordings."""
        give_up = time.monotonic() + PATIENCE_S
        for job in self.ids["job"]:
            while (await self.call("GET", f"/jobs/{job}/status", 200))["status"] != "completed":
                if time.monotonic() > give_up:
                    raise RuntimeError(f"{job} is not transcribed after {PATIENCE_S:.0f} s")
                await asyncio.sleep(0.2)

    async def others(self, count: int) -> None:
        """Keys, webhooks with a delivery each, uploads that have begun, schedules, conversations; and the review items
        of the jobs.
        """
        own = f"/tenants/{self.tenant}"
        for number in range(count):
            key = await self.call("POST", f"{own}/keys", 201, json={"name": f"k{number}", "scopes": ["read"]})
            self.ids["key"].append(key["id"])
            hook = await self.call("POST", f"{own}/webhooks", 201, json={"url": f"https://example.com/{number}"})
            self.ids["webhook"].append(hook["id"])
            sent = await self.call("POST", f"{own}/webhooks/{hook['id']}/test", 202)
            self.ids["delivery"].append(sent["id"])
            upload = await self.call("POST", "/audio/uploads", 201, json={"filename": "a.wav", "size_bytes": 4})
            self.ids["upload"].append(upload["upload_id"])
            self.ids["token"].append(upload["url"].partition("token=")[2])
            nightly = {"name": f"s{number}", "cron": "0 3 * * *", "enrichment": "document"}
            self.ids["schedule"].append((await self.call("POST", f"{own}/schedules", 201, json=nightly))["id"])
            asked = {"account_id": self.tenant, "conversation_id": f"conv_{number}", "email_id": "ann@example.com"}
            conversation = await self.call("POST", "/api/v1/postprocess/conversation", 202, json=asked)
            self.ids["processing_id"].append(conversation["data"]["processing_id"])
        self.ids["name"] = ["report"]
        for job in self.ids["job"][-2:]:
            self.ids["deletion"].append((await self.call("DELETE", f"/jobs/{job}", 202))["id"])
        queue = await self.call("GET", f"{own}/review?limit=200", 200)
        self.ids["item"] = [item["id"] for item in queue["items"]]


async def seed(url: str, jobs: int, others: int) -> dict[str, dict[str, list[str]]]:
    """Make the things of the tenants, and operators' keys; their ids, by tenant."""
    seeded = {}
    for tenant in ("acme", "bolt", "carl"):
        async with aiohttp.ClientSession(url, headers={"X-API-Key": KEYS[tenant]}) as session:
            one = Seeded(tenant, session)
            if tenant != "carl":
                heard = {"recognizers": ["scripted-a", "scripted-b"]}
                await one.call("PUT", f"/tenants/{tenant}/settings", 200, json=heard, headers={"If-Match": "*"})
            await one.jobs(jobs)
            if tenant != "carl":
                await one.transcribed()
                await one.others(others)
            seeded[tenant] = dict(one.ids)
    async with aiohttp.ClientSession(url, headers={"X-API-Key": KEYS["*"]}) as session:
        one = Seeded("*", session)
        for number in range(others):
            key = await one.call("POST", "/operator/keys", 201, json={"name": f"k{number}"})
            one.ids["key"].append(key["id"])
        seeded["*"] = dict(one.ids)
    return seeded
