"""Metrics of a finished transcript and of its adjudicator."""

from __future__ import annotations

from dataclasses import asdict
from uuid import uuid4

import pytest

from agents.runtime.metrics import Metrics
from agents.text.reconcile import reconcile
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import Transcript, Usage
from schemas.words import Hypothesis, Word


def transcript(*texts: str) -> Transcript:
    hypotheses = [
        Hypothesis(name, tuple(Word(w, 400 * n, 400 * n + 300, 0.9) for n, w in enumerate(text.split())), "en")
        for name, text in zip("abc", texts, strict=False)
    ]
    decided = reconcile(hypotheses)
    return Transcript(
        tenant_id="t",
        job_id="j",
        run=1,
        text=decided.text,
        words=len(decided.words),
        speakers=[],
        segments=[],
        language="en",
        confidence=decided.quality.confidence,
        agreement=decided.quality.agreement,
        method=decided.method,
        provider_confidences={},
        reconciliation_notes=[],
        quality=asdict(decided.quality),
        raw_transcript_uri="x://a",
        agent_optimized_uri="x://b",
        duration_ms=1000,
    )


def stored(metrics: Metrics, *texts: str) -> dict[str, float | dict]:
    row = transcript(*texts)
    metrics.handled(Step("persist", uuid4(), Outcome(tenant_id="t", job_id="j", transcript=row)))
    return row.quality


def test_a_transcript_says_how_each_recognizer_did_and_what_to_expect():
    metrics = Metrics()
    quality = stored(metrics, "please send the invoice to my house", "please send the invoice to my mouse")
    value = metrics.registry.get_sample_value

    for name in "ab":
        assert (
            value("concord_recognizer_agreement_sum", {"provider": name}) == quality["recognizers"][name]["agreement"]
        )
        assert value("concord_recognizer_coverage_count", {"provider": name}) == 1
    assert value("concord_transcript_agreement_sum") == quality["agreement"]
    assert value("concord_transcript_disputed_spans_sum") == quality["disputed_spans_per_1000_words"] > 100
    assert value("concord_transcript_expected_word_errors_total") == quality["expected_word_errors"] > 0
    assert value("concord_transcript_words_total") == 7
    assert value("concord_transcripts_total", {"method": "calibrated"}) == 1


def test_a_recognizer_alone_says_nothing_about_agreement():
    metrics = Metrics()
    stored(metrics, "please send the invoice")
    value = metrics.registry.get_sample_value

    assert value("concord_transcripts_total", {"method": "single"}) == 1
    assert value("concord_transcript_agreement_count") == 0
    assert value("concord_recognizer_agreement_count", {"provider": "a"}) is None


def test_an_empty_transcript_and_one_of_an_older_version_are_counted_too():
    metrics = Metrics()
    stored(metrics, "", "")
    old = transcript("a", "a").__class__(**{**asdict(transcript("a", "a")), "quality": {}})
    metrics.handled(Step("persist", uuid4(), Outcome(transcript=old)))

    assert metrics.registry.get_sample_value("concord_transcripts_total", {"method": "calibrated"}) == 2


def test_what_is_used_up_is_counted_by_provider_and_unit():
    metrics = Metrics()
    whose = {"tenant_id": "t", "job_id": "j", "run": 1, "provider": "gemini", "ref": "1"}
    metrics.used([Usage(**whose, unit="prompt_tokens", quantity=9), Usage(**whose, unit="requests", quantity=1)])
    metrics.used([Usage(**whose, unit="prompt_tokens", quantity=2)])

    assert (
        metrics.registry.get_sample_value("concord_usage_total", {"provider": "gemini", "unit": "prompt_tokens"}) == 11
    )


def test_what_has_a_price_is_counted_in_money_too():
    metrics = Metrics({"assemblyai:audio_seconds": 0.36 / 3600})
    whose = {"tenant_id": "t", "job_id": "j", "run": 1, "ref": "1", "unit": "audio_seconds"}
    metrics.used([Usage(**whose, provider="assemblyai", quantity=7200), Usage(**whose, provider="google", quantity=9)])
    value = metrics.registry.get_sample_value

    assert value("concord_cost_total", {"provider": "assemblyai"}) == pytest.approx(0.72)
    assert value("concord_cost_total", {"provider": "google"}) is None
