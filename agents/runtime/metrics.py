"""The Prometheus metrics of a worker, on a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.jobs.outcome import Step
from schemas.jobs.rows import Transcript, Usage, cost
from sinks.ports.providers.slots import Traffic

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)

#: Finer where the coverage and agreement of recognizers usually are.
_SHARES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 1)


class Metrics:
    """All metrics of a worker, on `registry`."""

    def __init__(self, prices: Mapping[str, float] | None = None) -> None:
        """`prices` as for `schemas.jobs.rows.cost`."""
        self._prices = prices or {}
        self.registry = CollectorRegistry()
        self._add_stages()
        self._add_outbox()
        self._add_providers()
        self._add_recognizers()
        self._add_transcripts()
        self.webhook_attempts = self._counter(
            "concord_webhook_attempts", "Requests to tenants' webhooks, by result", "result"
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, documentation, labels, buckets=buckets, registry=self.registry)

    def _add_stages(self) -> None:
        self.events = self._counter("concord_events", "Events handled", "stage", "outcome")
        self.seconds = self._histogram("concord_step_seconds", "Time to handle an event", "stage", buckets=_SECONDS)
        self.retries = self._counter("concord_retries", "Events retried after an error", "stage")
        self.dead_letters = self._counter("concord_dead_letters", "Dead letters written", "topic")
        self.oldest_event = self._gauge(
            "concord_oldest_event_seconds", "Age of the oldest event that is being handled", "stage"
        )
        self.oldest_step = self._gauge(
            "concord_oldest_step_seconds", "Time for which the oldest step has waited to be stored"
        )
        self.steps_abandoned = self._counter(
            "concord_steps_abandoned", "Events for which PostgreSQL refused even the dead letter", "stage"
        )
        self.lag = self._gauge("concord_consumer_lag", "Records not yet committed", "stage", "topic", "partition")
        self.jobs = self._gauge("concord_jobs", "Jobs whose runs have not ended, by status", "status")
        self.restarts = self._counter(
            "concord_app_restarts", "How often a stage, or another task of the worker, failed and was restarted", "app"
        )
        self.lost_positions = self._counter(
            "concord_lost_positions",
            "How often a stage's position was beyond the end of its topic, which is then read from its beginning",
            "topic",
        )
        self.crash_looping = self._gauge(
            "concord_app_crash_looping",
            "1 while a stage or another task fails repeatedly; /readyz has the record and the error",
            "app",
        )

    def _add_outbox(self) -> None:
        self.batches = self._counter("concord_relay_batches", "Outbox batches published", "shard")
        self.relayed_rows = self._counter("concord_relay_rows", "Outbox rows published", "shard")
        self.refused_rows = self._counter(
            "concord_outbox_refused", "Outbox rows that Kafka refused for good, by topic", "topic"
        )
        self.set_aside = self._gauge(
            "concord_outbox_set_aside_rows", "Refused rows that were neither retried nor dropped yet", "topic"
        )
        self.overdue = self._gauge(
            "concord_outbox_overdue_rows", "Outbox rows that have been due for more than a minute", "shard", "topic"
        )
        self.outbox = self._gauge("concord_outbox_rows", "Rows in the outbox", "shard", "state")
        self.oldest = self._gauge(
            "concord_outbox_oldest_due_seconds", "Age of the oldest outbox row that is due", "shard"
        )

    def _add_providers(self) -> None:
        self.requests = self._counter("concord_provider_requests", "Provider requests ended", "provider", "state")
        self.under_way = self._gauge(
            "concord_provider_under_way", "Requests that hold a slot at the provider", "provider"
        )
        self.queued = self._gauge(
            "concord_provider_queued", "Requests that wait for a slot at the provider", "provider"
        )
        self.parked = self._gauge(
            "concord_provider_parked",
            "Requests that may have been accepted, and that an operator has to decide about",
            "provider",
        )
        self.circuit = self._gauge(
            "concord_provider_paused",
            "1 while all workers pause calls to the provider, after failures or at its request",
            "provider",
        )
        self.failures = self._gauge(
            "concord_provider_failures",
            "Failed calls since the last successful one, without those during a pause",
            "provider",
        )
        self.usage = self._counter("concord_usage", "Units consumed at providers", "provider", "unit")
        self.cost = self._counter("concord_cost", "Cost of these units, at CONCORD_PRICES", "provider")
        self.adjudicated = self._counter(
            "concord_judged_spans", "Disputed spans sent to an adjudicator", "provider", "result"
        )

    def _add_recognizers(self) -> None:
        self.confidence = self._histogram(
            "concord_recognizer_confidence",
            "A recognizer's own confidence per recording",
            "provider",
            buckets=tuple(n / 20 for n in range(1, 21)),
        )
        self.coverage = self._histogram(
            "concord_recognizer_coverage",
            "Share of a recording's words that a recognizer returned",
            "provider",
            buckets=_SHARES,
        )
        self.agreement = self._histogram(
            "concord_recognizer_agreement",
            "Share of a recording's slots in which a recognizer agrees with the result",
            "provider",
            buckets=_SHARES,
        )

    def _add_transcripts(self) -> None:
        self.transcripts = self._counter("concord_transcripts", "Transcripts stored", "method")
        self.words = self._counter("concord_transcript_words", "Words in transcripts stored")
        self.word_errors = self._counter(
            "concord_transcript_expected_word_errors", "Expected wrong words in transcripts stored"
        )
        self.unanimity = self._histogram(
            "concord_transcript_agreement",
            "Share of a recording's slots in which all recognizers agree",
            buckets=_SHARES,
        )
        self.disputes = self._histogram(
            "concord_transcript_disputed_spans",
            "Disputed spans per 1000 words of a transcript",
            buckets=(1, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500),
        )

    def used(self, rows: Iterable[Usage]) -> None:
        """Count units consumed at providers, and their cost where there is a price."""
        for row in rows:
            self.usage.labels(row.provider, row.unit).inc(row.quantity)
            if (amount := cost(row, self._prices)) is not None:
                self.cost.labels(row.provider).inc(amount)

    def handled(self, step: Step) -> None:
        """Count one committed step."""
        outcome = step.outcome
        self.events.labels(step.stage, outcome.audit or "none").inc()
        self.seconds.labels(step.stage).observe(step.seconds)
        if outcome.audit == "retried":
            self.retries.labels(step.stage).inc()
        for message, _ in outcome.raw:
            if message.topic.endswith(".dlq"):
                self.dead_letters.labels(message.topic).inc()
        change = outcome.request
        if change is not None and change.columns.get("state") in ("submitted", "done", "failed"):
            self.requests.labels(change.provider, change.columns["state"]).inc()
            if change.columns.get("confidence") is not None:
                self.confidence.labels(change.provider).observe(change.columns["confidence"])
        self.used(outcome.usage)
        if outcome.transcript is not None:
            self._stored(outcome.transcript)

    def _stored(self, transcript: Transcript) -> None:
        """Count a finished transcript and its quality; see `schemas.words.Quality`."""
        quality = transcript.quality
        self.transcripts.labels(transcript.method).inc()
        self.words.inc(transcript.words)
        self.word_errors.inc(quality.get("expected_word_errors") or 0.0)
        recognizers: dict[str, dict[str, float | None]] = quality.get("recognizers") or {}
        if len(recognizers) < 2:  # a single recognizer always agrees with the result
            return
        if quality.get("agreement") is not None:
            self.unanimity.observe(quality["agreement"])
        if quality.get("disputed_spans_per_1000_words") is not None:
            self.disputes.observe(quality["disputed_spans_per_1000_words"])
        for name, figures in recognizers.items():
            for figure, histogram in (("coverage", self.coverage), ("agreement", self.agreement)):
                share = figures.get(figure)
                if share is not None:
                    histogram.labels(name).observe(share)

    def abandoned(self, step: Step) -> None:
        """Count a step for which not even a dead letter could be stored."""
        self.steps_abandoned.labels(step.stage).inc()

    def traffic(self, provider: str, traffic: Traffic) -> None:
        """Set the gauges of an external recognizer."""
        self.under_way.labels(provider).set(traffic.under_way)
        self.queued.labels(provider).set(traffic.queued)
        self.parked.labels(provider).set(traffic.parked)
        self.circuit.labels(provider).set(traffic.paused_until is not None)
        self.failures.labels(provider).set(traffic.failures)

    def tracked(self) -> None:
        """Count one record of `job.status`."""
        self.events.labels("track", "completed").inc()

    def relayed(self, shard: int, rows: int) -> None:
        """Count one published batch."""
        self.batches.labels(str(shard)).inc()
        self.relayed_rows.labels(str(shard)).inc(rows)
