"""The port of `Idempotency-Key`: requests that were executed, and their answers, for a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

#: Days for which a key is kept.
KEPT_DAYS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it is sent again."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What is known of a key."""

    #: Identifies the request by its content.
    fingerprint: str
    #: Who executes the request, or has executed it.
    claim: UUID
    #: When the key was first used.
    created_at: datetime
    #: The response; None while the request is executed, or after that was interrupted.
    answer: Answer | None


class IdempotencyKeys(Protocol):
    """Keys of one tenant (`*` for operators). A key is unused again after `KEPT_DAYS`."""

    async def claim_key(self, tenant: str, key: str, fingerprint: str, claim: UUID, seconds: float) -> KnownKey:
        """Claim a key that is unused, or whose claim has lapsed with the same fingerprint; what is known of it then.

        The caller has the key if `claim` is its own and there is no answer. A claim that is renewed lasts.
        """

    async def answer_key(self, tenant: str, key: str, claim: UUID, answer: Answer) -> None:
        """Keep the response; no effect if another has claimed the key by now."""

    async def release_key(self, tenant: str, key: str, claim: UUID, *, forget: bool) -> None:
        """End a claim early. `forget`: the request certainly had no effect, and the key is unused again."""
