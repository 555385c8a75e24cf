"""What operators watch, in Prometheus' terms; one registry a process, nothing global."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.jobs import Step

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class Metrics:
    """All of a worker's metrics, on `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        new = self.registry
        self.events = Counter("concord_events", "Events handled", ["stage", "outcome"], registry=new)
        self.seconds = Histogram(
            "concord_step_seconds", "Time to handle an event", ["stage"], buckets=_SECONDS, registry=new
        )
        self.retries = Counter("concord_retries", "Events that come again after an error", ["stage"], registry=new)
        self.dead_letters = Counter("concord_dead_letters", "Records given up", ["topic"], registry=new)
        self.batches = Counter("concord_relay_batches", "Outbox batches published", ["shard"], registry=new)
        self.relayed_rows = Counter("concord_relay_rows", "Outbox rows published", ["shard"], registry=new)
        self.outbox = Gauge("concord_outbox_rows", "Rows in the outbox", ["shard", "state"], registry=new)
        self.oldest = Gauge(
            "concord_outbox_oldest_due_seconds", "Age of the oldest row that is due", ["shard"], registry=new
        )
        self.lag = Gauge(
            "concord_consumer_lag", "Records not yet committed", ["stage", "topic", "partition"], registry=new
        )
        self.jobs = Gauge("concord_jobs", "Jobs whose runs have not ended, by status", ["status"], registry=new)
        self.requests = Counter(
            "concord_provider_requests", "Provider requests ended", ["provider", "state"], registry=new
        )
        self.confidence = Histogram(
            "concord_recognizer_confidence",
            "A recognizer's own confidence per recording",
            ["provider"],
            buckets=tuple(n / 20 for n in range(1, 21)),
            registry=new,
        )

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

    def tracked(self) -> None:
        """Count one record of `job.status`."""
        self.events.labels("track", "completed").inc()

    def relayed(self, shard: int, rows: int) -> None:
        """Count one published batch."""
        self.batches.labels(str(shard)).inc()
        self.relayed_rows.labels(str(shard)).inc(rows)
