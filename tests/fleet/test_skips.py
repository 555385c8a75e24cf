"""What happens to a record that an operator has skipped."""

from __future__ import annotations

import orjson

from agents.runtime.skips import refusing
from agents.runtime.stage import step
from agents.stages import registry
from schemas import topics
from schemas.operations import Skip
from tests.fleet.conftest import JOB, FakeRecognizer


async def test_its_job_ends_with_the_reason_and_the_record_is_kept(make_scenario):
    it = make_scenario(FakeRecognizer("a"))
    record = await it.upload()
    stage = next(stage for stage in it.fleet.stages if stage.name == "intake")
    skip = Skip(record.topic, record.partition, record.offset, "passed over by an operator: it kills the prober")
    await it.fleet.database.commit([await step(refusing(stage, skip), record)])
    await it.fleet.run()

    (failed,) = it.fleet.events("job.failed")
    assert (failed["code"], failed["error"]) == ("skipped", skip.reason)
    letters = it.fleet.log["audio.uploaded.dlq"]
    assert [(letter.value, letter.header("dlq-reason")) for letter in letters] == [(record.value, skip.reason)]
    assert orjson.loads(record.value)["job_id"] == JOB


async def test_every_topic_that_a_stage_reads_is_known_by_its_stage(make_scenario):
    it = make_scenario(FakeRecognizer("a"), FakeRecognizer("b"))
    read = {topic: (stage.name,) for stage in it.fleet.stages for topic in stage.topics}

    readers = registry.read_by(("a", "b"))
    assert read.items() <= readers.items()
    assert readers.keys() - read.keys() == {
        topics.STATUS.name,
        topics.CONVERSATION.name,
        topics.FETCH_DUE.name,
        *(topic.name for spec in registry.STAGES if spec.enrichment for topic in spec.reads),
    }
