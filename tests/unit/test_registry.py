"""The list of stages, and what else names stages: the state machine of a run, the sweeper, the topics."""

from __future__ import annotations

import pytest

from agents.stages import registry
from schemas.errors import SettingsError
from schemas.jobs.rows import OPEN, STAGE_OF
from sinks.ports.upkeep.stuck_jobs import AWAITED

RECOGNIZERS = ("a", "b", "kafka-c")


def test_a_run_goes_through_the_stages_in_the_order_of_the_list():
    of_runs = [spec.name for spec in registry.stages(()) if spec.enrichment is None and spec.table is None]
    run = [name for name in of_runs if name != "fetch"]  # of conversations, in place of intake
    run.insert(1, "transcribe")

    assert list(STAGE_OF) == list(OPEN)
    assert list(STAGE_OF.values()) == run


def test_every_stage_has_a_name_a_topic_and_one_way_to_be_built():
    names = [spec.name for spec in registry.stages(RECOGNIZERS)]

    assert len(names) == len(set(names))
    for spec in registry.stages(RECOGNIZERS):
        assert spec.inputs
        assert (spec.build is None) == (spec.table is not None) == (spec.due is None)


def test_what_the_sweeper_looks_for_is_read_by_the_stage_that_it_waits_for():
    readers = registry.read_by(RECOGNIZERS)
    for status, topics in AWAITED.items():
        stages = {stage for topic in topics for stage in readers[topic]}
        assert STAGE_OF[status] in stages


def test_what_a_stage_publishes_for_others_has_a_topic():
    names = {topic.name for topic in registry.all_topics(RECOGNIZERS)}

    assert {topic.name for spec in registry.STAGES for topic in (*spec.inputs, *spec.publishes)} <= names
    assert {"asr.requests.a", "asr.requests.b", "asr.requests.kafka-c", "job.status", "job.failed"} <= names
    assert {topic.name for topic in registry.all_topics(RECOGNIZERS) if topic.public} >= {"asr.requests.c"}


def test_answers_over_kafka_are_read_only_where_a_recognizer_sends_them():
    assert "hypotheses" in registry.roles(RECOGNIZERS)
    assert "hypotheses" not in registry.roles(("a", "b"))
    assert "asr.hypotheses" not in registry.read_by(("a", "b"))


def test_enrichments_are_chosen_by_name():
    assert "document" in registry.roles(RECOGNIZERS)
    assert "document" in registry.roles(RECOGNIZERS, ["document"])
    assert "document" not in registry.roles(RECOGNIZERS, [])
    with pytest.raises(SettingsError, match="there are document, summary, index, report, mail, or none"):
        registry.roles(RECOGNIZERS, ["nonsense"])


def test_what_kafka_refuses_of_an_enrichment_fails_it_and_not_the_run():
    assert set(registry.refusals()) == {"intake.due", "fetch.due", *(f"{kind}.due" for kind in registry.enrichments())}
