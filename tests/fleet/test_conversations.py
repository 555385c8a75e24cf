"""Conversations of voice agents: each becomes a stored transcript, a summary, a PDF and a mail, once, whatever fails."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fleet.conftest import FakeRecognizer, ProbeHere
from tests.fleet.conversations import ACCOUNT, ANN, CONVERSATION, JOB, calls, mp3
from tests.servers.elevenlabs import Scripted, elevenlabs_server
from tests.servers.smtp import smtp_server

TEXT = """\
AI: Thank you for calling Harbour Dental. How can I help you?
User: I would like to move my appointment on Tuesday.
AI: Of course. Would Thursday at ten suit you?
User: Yes, Thursday at ten is fine.
"""


@pytest.fixture
async def fleet(make_scenario, monkeypatch):
    scenario = make_scenario(FakeRecognizer("a", "yes thursday"), FakeRecognizer("b", "yes thursday"))
    async with elevenlabs_server() as elevenlabs, smtp_server() as smtp:
        elevenlabs.conversations[CONVERSATION] = Scripted(audio=mp3())
        async with calls(scenario, elevenlabs, smtp, ProbeHere(processes=0), monkeypatch) as it:
            yield it


async def test_a_conversation_becomes_a_transcript_a_summary_a_report_and_a_mail(fleet):
    await fleet.start()
    fleet.request()
    await fleet.fleet.run()

    state, job = await fleet.processing(), await fleet.job()
    assert (state.status, state.progress, state.error) == ("completed", 100, None)
    assert (await fleet.blob(f"{ACCOUNT}/transcripts/{CONVERSATION}.txt")).decode() == TEXT
    assert await fleet.blob(f"{ACCOUNT}/audio/{CONVERSATION}.mp3") == mp3()
    assert (await fleet.blob(f"{ACCOUNT}/reports/{CONVERSATION}.pdf")).startswith(b"%PDF")
    assert (job.duration_ms, job.content_type, job.reference) == (16_000, "audio/mpeg", f"elevenlabs:{CONVERSATION}")
    [mailed] = fleet.smtp.messages
    assert (mailed["To"], len(fleet.smtp.taken)) == (ANN, 1)
    [attached] = mailed.iter_attachments()
    assert attached.get_filename() == f"{CONVERSATION}.pdf"
    assert [len(fleet.fleet.events(topic)) for topic in ("persisted", "report.generated", "report.delivered")] == [1, 1, 1]
    [ended] = fleet.fleet.events("persisted")
    assert (ended["word_count"], ended["job_id"]) == (len(TEXT.split()) - 4, JOB)
    report = fleet.renderer.reports[CONVERSATION]
    assert [turn.speaker for turn in report.turns] == ["AI", "User", "AI", "User"]
