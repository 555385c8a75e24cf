"""Carries deletions to their end: rows, tasks, blobs, and what recognizers keep.

A deletion is worked on in passes, each of which may be killed anywhere and is then repeated: it only removes, and what
it has reached is stored at its end. A pass that begins after `Deletion.settled_at` and leaves nothing behind ends the
deletion; an hour later a last one looks for what a process has written that was stopped all the while. A step of a
deleted run that comes late makes another pass due (`Steps`), whenever that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from schemas import blob_names, topics
from schemas.errors import ConcordError, Unavailable
from schemas.jobs.deletion import KEPT, LAST_LOOK_S, RETENTION, Deletion
from schemas.texts import readable
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.jobs import Jobs
from sinks.ports.upkeep.deletions import Deletions

log = logging.getLogger(__name__)

#: Seconds between two queries for due deletions.
POLL_S: Final = 1.0

#: Deletions that are claimed at once, and seconds until one whose worker died is claimed by another.
MANY, CLAIM_S = 10, 30.0

#: Seconds for which tasks of a deleted job get no lease: three renewals (`LEASE_S` / 3 each).
HOLD_S: Final = 60.0

#: Seconds between passes while something cannot be removed: at first, and at most; and after how many a recognizer's
#: copy is reported as kept instead of being tried again.
RETRY_S, SLOWEST_S, PATIENCE_S = 2.0, 600.0, 86_400.0

#: Seconds that deleting one copy may take.
COPY_S: Final = 8.0

#: Characters of a reason in the receipt.
REASON_CHARS: Final = 300


class Database(Clock, Jobs, Deletions, Protocol):
    """What deleting asks of the database."""


class Copies(Protocol):
    """What recognizers keep of requests."""

    async def erase(self, provider: str, copy: Mapping[str, Any]) -> str | None:
        """Delete what this recognizer keeps of a request (its `id`, the `url` of its audio); repeating it is harmless.
        The reason if something stays that cannot be deleted, else None.

        Raises:
            ConcordError: it could not be deleted now.
        """


@dataclass
class Deleter:
    """Works on due deletions; any number of processes may."""

    database: Database
    store: Store
    copies: Copies
    #: By topic, the seconds for which Kafka keeps events about jobs; None where only compaction removes them.
    retention: Callable[[], Awaitable[Mapping[str, float | None]]]
    #: Called at named points, at which tests kill the process.
    passing: Callable[[str], None] = lambda _: None

    async def run(self) -> None:
        """Work on due deletions until cancelled."""
        while True:
            worked = 0
            try:
                worked = await self.round()
            except Unavailable as exc:
                log.debug("no deletions are worked on: %s", exc)
            if not worked:
                await asyncio.sleep(POLL_S)

    async def round(self) -> int:
        """Make the passes that are due; how many. Raises Unavailable."""
        due = await self.database.due_deletions(MANY, CLAIM_S)
        await asyncio.gather(*map(self._try, due))
        return len(due)

    async def _try(self, deletion: Deletion) -> None:
        try:
            async with asyncio.timeout(CLAIM_S - 5):
                await self._pass(deletion)
        except (ConcordError, TimeoutError) as exc:
            await self._put_off(deletion, exc)

    async def _put_off(self, deletion: Deletion, exc: Exception) -> None:
        """Store why the pass failed; the next is due as the claim has it, or sooner. What the pass has stored stays."""
        reason = readable(str(exc) or "it took too long", REASON_CHARS)
        log.warning("the deletion %s is not done yet: %s", deletion.id, reason)
        with contextlib.suppress(Unavailable):
            due_at = await self.database.now() + timedelta(seconds=_wait_s(deletion))
            await self.database.put_off_deletion(deletion, due_at, reason)

    async def _pass(self, deletion: Deletion) -> None:
        began = await self.database.now()
        deletion = await self.database.erase_rows(deletion, HOLD_S)
        self.passing("delete.rows")
        deletion = await self._erase_blobs(deletion)
        self.passing("delete.blobs")
        deletion = await self._erase_copies(deletion, began)
        self.passing("delete.copies")
        await self.database.keep_deletion(await self._next(deletion, began))
        self.passing("delete.kept")

    async def _erase_blobs(self, deletion: Deletion) -> Deletion:
        """Delete the blobs of the deleted runs. Their number is stored before the first goes, so that a pass that is
        killed loses no count.
        """
        prefix = blob_names.job_folder(*deletion.key)
        job = await self.database.job(*deletion.key)
        source = job.audio_uri if job is not None and deletion.scope == "job" else None
        uris = [uri async for uri in self.store.list(prefix) if self._is_erased(uri, deletion, source)]
        if job is None or job.run <= deletion.run:  # else a later run has stored its own under these names
            elsewhere = map(self.store.uri, deletion.blobs)
            uris += [uri for uri in elsewhere if await self.store.size(uri) is not None]
        receipt = deletion.receipt
        found = {**receipt, "blobs": max(receipt["blobs"], receipt["swept"] + len(uris))}
        deletion = replace(deletion, receipt=found)
        if uris and not await self.database.keep_deletion(deletion):
            return deletion  # another pass has been claimed, and does it
        for number, uri in enumerate(uris):
            await self.store.delete(uri)
            if not number:
                self.passing("delete.half")
        return replace(deletion, receipt={**found, "swept": found["blobs"]})

    def _is_erased(self, uri: str, deletion: Deletion, source: str | None) -> bool:
        """Whether the blob is of a deleted run, and not the upload (`source`) of a new job of the same id."""
        return uri != source and blob_names.run_of(self.store.name(uri)) <= deletion.run

    async def _erase_copies(self, deletion: Deletion, now: datetime) -> Deletion:
        """Delete what recognizers have. What cannot be deleted is tried again for a day, and then reported. Each that
        is gone is noted at once, so that a pass that ends early has done something.
        """
        left: list[dict[str, Any]] = []
        errors: list[str] = []
        receipt = deletion.receipt
        gives_up = now > deletion.requested_at + timedelta(seconds=PATIENCE_S)
        for number, copy in enumerate(deletion.copies, 1):
            provider = copy["provider"]
            try:
                async with asyncio.timeout(COPY_S):
                    kept = await self.copies.erase(provider, copy)
            except (ConcordError, TimeoutError) as exc:
                reason = readable(str(exc) or f"{provider} does not answer", REASON_CHARS)
                if not gives_up:
                    left.append(copy)
                    errors.append(reason)
                    continue
                kept = reason
            if kept is None:
                erased = receipt["providers"]
                receipt = {**receipt, "providers": {**erased, provider: erased.get(provider, 0) + 1}}
            else:
                stays = {"what": provider, "why": kept, "until": None}
                receipt = {**receipt, "kept": _with(receipt["kept"], stays)}
            reached = replace(deletion, copies=[*left, *deletion.copies[number:]], receipt=receipt)
            if reached.copies and not await self.database.keep_deletion(reached):
                return reached  # another pass has been claimed, and does it
        return replace(deletion, copies=left, receipt=receipt, error="; ".join(errors)[:REASON_CHARS] or None)

    async def _next(self, deletion: Deletion, began: datetime) -> Deletion:
        """The deletion after a pass that began then: done, or with the time of its next pass."""
        now = await self.database.now()
        if deletion.copies:
            return replace(deletion, due_at=now + timedelta(seconds=_wait_s(deletion)))
        if began < deletion.settled_at:
            return replace(deletion, due_at=max(deletion.settled_at, now))
        if deletion.done_at is not None:
            return replace(deletion, due_at=None)
        kept = [*deletion.receipt["kept"], *await self._kept(deletion, now)]
        if deletion.blobs:  # it is of a conversation
            kept.append(
                {"what": "ElevenLabs", "why": "a conversation is only read there, never deleted", "until": None}
            )
        receipt = {**deletion.receipt, "kept": kept}
        # Nobody has worked on a job whose retention is over.
        last_look = None if deletion.requested_by == RETENTION else now + timedelta(seconds=LAST_LOOK_S)
        return replace(deletion, receipt=receipt, done_at=now, due_at=last_look, error=None)

    async def _kept(self, deletion: Deletion, now: datetime) -> list[dict[str, Any]]:
        """What stays, why, and until when."""
        if deletion.scope == "files":
            return []
        rows = [{"what": table, "why": why, "until": None} for table, why in KEPT.items()]
        return rows + [_topic(name, seconds, now) for name, seconds in sorted((await self.retention()).items())]


def _topic(name: str, seconds: float | None, now: datetime) -> dict[str, Any]:
    if seconds is None:
        why = "a record without a value has taken the place of the job's; Kafka removes the earlier ones by compaction"
        return {"what": f"Kafka topic {name}", "why": why, "until": None}
    why = "events name the job and where its results were; none has words of it. Kafka deletes by time only"
    if name.startswith(topics.CONVERSATION.name):  # with its dead letters
        why = (
            "a conversation that was asked for by an event is named there, with the address to which its report was to "
            "be mailed; no word of it is. Kafka deletes by time only"
        )
    return {"what": f"Kafka topic {name}", "why": why, "until": (now + timedelta(seconds=seconds)).isoformat()}


def _with(kept: list[dict[str, Any]], entry: dict[str, Any]) -> list[dict[str, Any]]:
    return kept if entry in kept else [*kept, entry]


def _wait_s(deletion: Deletion) -> float:
    return float(min(RETRY_S * 2.0 ** min(deletion.attempts, 10), SLOWEST_S))
