"""The scripted recognizer and its server, which other tests use: disagreements, charges, and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from pathlib import Path

import aiohttp
from aiohttp.test_utils import unused_port

from agents.asr.scripted import Scripted, hear
from tests.contract.test_recognizers import Sound, over_http
from tests.transcripts import is_a_transcript, request

ROOT = Path(__file__).parents[2]


async def test_two_scripted_recognizers_disagree_in_about_a_tenth_of_a_hundred_words():
    pairs = [(hear("scripted-a", f"job-{n}").words, hear("scripted-b", f"job-{n}").words) for n in range(200)]

    different = sum(a.text != b.text for one, two in pairs for a, b in zip(one, two, strict=True))
    total = sum(len(one) for one, _ in pairs)
    assert 80 <= total / len(pairs) <= 120
    assert 0.05 < different / total < 0.15


async def test_a_script_costs_almost_nothing():
    recognizer = Scripted("scripted-a")
    began = time.process_time()

    for n in range(1000):
        await recognizer.submit(request(f"job-{n}"), Sound())

    assert time.process_time() - began < 0.2


async def test_the_server_charges_a_second_submission_with_the_same_marker_too(tmp_path):
    async with over_http(tmp_path) as bench:
        await bench.recognizer.submit(request(), Sound())
        await bench.recognizer.submit(request(), Sound())

        assert bench.charges() == ["job-1/1", "job-1/1"]


async def test_a_killed_server_has_forgotten_nothing(tmp_path):
    port, ledger = unused_port(), tmp_path / "ledger.jsonl"
    recognizer = Scripted("scripted-a", f"http://127.0.0.1:{port}")
    ids = []
    for job in ("job-1", "job-2"):
        process = await started(port, ledger)
        ids.append(await recognizer.submit(request(job), Sound()))
        process.send_signal(signal.SIGKILL)
        await process.wait()
    process = await started(port, ledger)

    assert [await recognizer.find(request(job)) for job in ("job-1", "job-2")] == ids
    is_a_transcript(await recognizer.poll(ids[0]), recognizer)
    assert [json.loads(line)["id"] for line in ledger.read_text().splitlines()] == ids
    await recognizer.close()
    process.kill()
    await process.wait()


async def started(port, ledger):
    """A server process that answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.servers.scripted", "--port", str(port), "--ledger", str(ledger)), cwd=ROOT
    )
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{port}/ledger"):
                    return process
            await asyncio.sleep(0.05)
