"""What cannot be handled is said no to in a way that cannot fail itself: a dead letter, and one terminal event."""

from __future__ import annotations

import pytest

from tests.fleet.conftest import J, Speaker


@pytest.mark.parametrize("content_type", ["a\x00b", "audio/wav\x1b[2J", "\x00" * 255])
async def test_a_refused_file_with_an_odd_content_type_ends_its_job(story, content_type):
    told = story(Speaker("a"))
    await told.upload(content=b"<html>not a recording</html>", content_type=content_type)
    await told.fleet.run()

    [failed] = told.fleet.events("job.failed")
    assert failed["code"] == "refused_media"
    assert failed["failed_at"]
    assert len(told.fleet.log["audio.uploaded.dlq"]) == 1
    assert (await told.fleet.database.job("t", J)).status == "failed"


async def test_an_odd_content_type_does_not_keep_a_recording_from_being_transcribed(story):
    told = story(Speaker("a"))
    await told.upload(content_type="audio/\x00wav")
    await told.fleet.run()

    assert told.terminal() == [("persisted", J, 1)]
