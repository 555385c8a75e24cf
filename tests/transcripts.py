"""Requests for recognizers, and the checks that every transcript must pass."""

from __future__ import annotations

from agents.asr.protocols import Request
from schemas.words import Hypothesis, adapter


def request(job_id="job-1", *, marker="", language="auto", duration_ms=None):
    return Request(
        tenant_id="acme",
        job_id=job_id,
        run=1,
        marker=marker or f"{job_id}/1",
        language=language,
        content_type="audio/wav",
        duration_ms=duration_ms,
    )


def is_a_transcript(hypothesis, recognizer):
    """Check the rules that every recognizer's transcript must follow."""
    assert isinstance(hypothesis, Hypothesis)
    assert hypothesis.provider == recognizer.name
    assert hypothesis.words
    assert hypothesis.duration_ms > 0
    assert hypothesis.confidence is None or 0 <= hypothesis.confidence <= 1
    assert hypothesis.language is None or hypothesis.language[:2].isalpha()
    assert all(word.text == word.text.strip() != "" for word in hypothesis.words)
    assert all(word.confidence is None or 0 <= word.confidence <= 1 for word in hypothesis.words)
    timed = [word for word in hypothesis.words if word.start_ms is not None]
    assert all(0 <= word.start_ms <= word.end_ms <= hypothesis.duration_ms for word in timed)
    assert [word.start_ms for word in timed] == sorted(word.start_ms for word in timed)
    assert adapter(Hypothesis).validate_json(adapter(Hypothesis).dump_json(hypothesis)) == hypothesis
