"""Runs schemathesis against a site, and counts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import aiohttp

from bench.api_fuzz.seed import KEYS
from bench.api_fuzz.site import Site

CHECKS = files("bench.api_fuzz") / "checks.toml"


def dictionaries(ids: dict[str, dict[str, list[str]]]) -> str:
    """The seeded ids as schemathesis reads them: those of acme, and one in five of bolt."""
    acme, bolt = ids["acme"], ids["bolt"]
    named = {name: values[:8] + bolt[name][:2] for name, values in acme.items() if name != "token"}
    named |= {
        "tenant": ["acme"],
        "etag": ["*", '"1"', '"0"'],
        # What is deleted is not asked for by others.
        "spare_job": acme["job"][8:],
        "spare_key": acme["key"][8:],
        "spare_webhook": acme["webhook"][8:],
        "spare_schedule": acme["schedule"][8:],
        "spare_operator_key": ids["*"]["key"],
        "sent_upload": acme["upload"][8:9],
        "token": acme["token"][8:9],
        "waiting_job": ids["carl"]["job"],
        "carl": ["carl"],
        "delivering_webhook": acme["webhook"][:1],
        "delivery": acme["delivery"][:1],
        "problem": ["not_found", "rate_limited"],
    }
    return "".join(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n" for name, values in named.items())


async def fuzz(site: Site, tenant: str, examples: int, seed: int, *more: str) -> dict:
    """Send arbitrary requests with this tenant's key."""
    config, report = site.folder / "schemathesis.toml", site.folder / "report.json"
    config.write_text(f"{CHECKS.read_text()}\n{dictionaries(site.ids)}")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{site.url}/openapi.json"),
        *("--checks", "all", "--mode", "all", "--max-examples", str(examples)),
        *("--seed", str(seed), "--report-json-path", str(report), "--no-color", *more),
    ]
    environment = os.environ | {"FUZZED_KEY": KEYS[tenant], "PYTHONPATH": str(Path.cwd())}
    process = await asyncio.create_subprocess_exec(*command, cwd=site.folder, env=environment)
    await process.wait()
    return json.loads(report.read_text())


async def operations(site: Site) -> int:
    """How many operations the API's document has."""
    async with aiohttp.ClientSession(site.url) as session, session.get("/openapi.json") as answer:
        return sum(map(len, (await answer.json())["paths"].values()))


def server_errors(site: Site) -> Counter[str]:
    """Answers with 5xx by operation, as the service logs them. A worker that starts is not ready, and says so."""
    lines = map(json.loads, (site.folder / "access.log").read_text().splitlines())
    return Counter(line["operation"] for line in lines if line["status"] >= 500 and line["operation"] != "readyz")
