"""Mutants: Concord with one safeguard removed. The checker must report each of them, or it proves nothing.

`python -m tests.system.mutants NAME COMMAND...` is `concord COMMAND...`, mutated.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from faust.transport.drivers import aiokafka as driver

import agents.__main__
from agents.runtime import faust_binding, offsets
from agents.runtime.outbox import relay
from schemas.jobs import transitions
from schemas.jobs.outcome import Outcome
from schemas.jobs.rows import Job
from sinks.postgres.sql.queries import SQL


def stock_consumer() -> None:
    """Faust's own offset tracking instead of Concord's."""

    class Stock(driver.Consumer):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.offsets = offsets.Offsets()

    _put(offsets.Transport, "Consumer", Stock)


def no_inbox() -> None:
    """Every delivery counts as new."""
    _edit("insert_inbox", "RETURNING stage, event_id", "")
    sql = SQL["insert_inbox"].rstrip("; \n")
    SQL["insert_inbox"] = (
        f"WITH kept AS ({sql} RETURNING 1) SELECT * FROM unnest($1::text[], $2::uuid[]) AS e (stage, event_id)"
    )


def no_fencing() -> None:
    """Any worker gets a claim, and the holder of an old one may still write."""
    _edit("claim", "WHERE state = 'waiting'", "WHERE state IN ('waiting', 'intended')")
    allowed = transitions._request_allowed

    def without_token(outcome: Outcome, job: Job, rows: transitions.Rows) -> bool:
        change = outcome.request
        return allowed(outcome if change is None else replace(outcome, request=replace(change, token=None)), job, rows)

    _put(transitions, "_request_allowed", without_token)


def early_ack() -> None:
    """An event is acknowledged when it arrives, before its outcome is durable."""
    take = faust_binding.Driver.take

    async def acked(self: faust_binding.Driver, record: Any, ack: Callable[[], Any]) -> None:
        await ack()

        async def nothing() -> None:
            pass

        await take(self, record, nothing)

    _put(faust_binding.Driver, "take", acked)


def relay_repeats() -> None:
    """After a crash the relay publishes the newest batch, whether it was published or not."""

    async def position(self: relay.Relay) -> int:
        return 0

    _put(relay.Relay, "_published_batch", position)


def relay_forgets() -> None:
    """After a crash the relay assumes that the newest batch was published."""

    async def position(self: relay.Relay) -> int:
        return time.time_ns()  # above every number that was used before

    _put(relay.Relay, "_published_batch", position)


def failing_once() -> None:
    """All safeguards, and a fault: a few seconds after its start the consumer of every stage fails once."""
    receive, crashed, began = offsets.KeepingConsumer._receive, set[str](), time.monotonic()

    async def failing(self: offsets.KeepingConsumer, message: Any) -> None:
        if self.app.conf.id not in crashed and time.monotonic() - began > 6:
            crashed.add(self.app.conf.id)
            raise RuntimeError(f"an injected failure of {self.app.conf.id}")
        await receive(self, message)

    _put(offsets.KeepingConsumer, "_receive", failing)


def failing_on_marker() -> None:
    """All safeguards, and a bug: the consumer of a stage fails on every record that contains a marker."""
    receive = offsets.KeepingConsumer._receive

    async def failing(self: offsets.KeepingConsumer, message: Any) -> None:
        if b"a poison marker" in (message.value or b""):
            self.offsets.received(message.tp, message.offset)
            raise RuntimeError("a failure at the marker")
        await receive(self, message)

    _put(offsets.KeepingConsumer, "_receive", failing)


MUTANTS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    **{f.__name__: f for f in (stock_consumer, no_inbox, no_fencing, early_ack, relay_repeats, relay_forgets)},
    "failing_once": failing_once,
    "failing_on_marker": failing_on_marker,
}


def _put(owner: Any, name: str, value: Any) -> None:
    """Replace an existing attribute. If it has moved, this fails instead of leaving a mutant without effect."""
    getattr(owner, name)
    setattr(owner, name, value)


def _edit(query: str, old: str, new: str) -> None:
    if old not in SQL[query]:
        raise LookupError(f"the query {query} no longer contains {old!r}")
    SQL[query] = SQL[query].replace(old, new)


def run(name: str, argv: list[str]) -> int:
    """Run a command of Concord as this mutant ("" is Concord itself)."""
    MUTANTS[name]()
    return agents.__main__.run(argv)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
