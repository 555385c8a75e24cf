"""The port through which stages write: many outcomes, one transaction, each event once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.jobs.outcome import Step
from schemas.jobs.transitions import Written


class Steps(Protocol):
    """Applies `schemas.jobs.transitions.advance` to the locked rows of each step's job, in order.

    Raises:
        Unavailable: the database cannot be reached. All of the call is written, or nothing.
        Contended: another transaction holds one of the rows, or the blob `held` is held no more. Nothing is written.
        StorageRefused: a value is one that the database does not store. Nothing is written.
    """

    async def commit(self, steps: Sequence[Step], *, held: str | None = None) -> list[Written | None]:
        """All steps in one transaction, with the events that they produce; None for a step whose event was committed
        before. A step whose guard does not hold writes nothing but its event's id.

        `held` is the URI of a blob that they need (`BlobIntents.hold_blob`): it stays while its job is `uploaded`, or
        as long as a file refers to it.
        """
