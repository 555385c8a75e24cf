"""The port of deliveries that are due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from schemas.webhooks.rows import Attempt, Claim

#: Deliveries that one worker makes to one endpoint at once. To one that fails, it makes one.
OF_ENDPOINT = 8


class WebhookQueue(Protocol):
    """Deliveries wait as rows. At one endpoint, a job's are attempted one at a time, in the order of its events."""

    async def claim_deliveries(
        self, tenants: Mapping[str, int], endpoints: Mapping[str, int], free: int, lease_s: float
    ) -> list[Claim]:
        """Claim due deliveries for `lease_s` seconds, after which another worker may claim them.

        `free` is how many more this worker can make, `tenants` and `endpoints` how many it makes at present for each;
        free slots are shared out by `sinks.ports.uploads.fair_share`.
        """

    async def record_attempt(self, claim: Claim, attempt: Attempt, retry_after: float | None = None) -> bool:
        """Store an attempt and what follows from it (`schemas.webhooks.retry`), a pause of the endpoint included; False
        if the delivery is not this claim's any more, which changes nothing.
        """

    async def pause_unsigned(self, claim: Claim, reason: str) -> bool:
        """Pause the endpoint, because nothing can be signed for it; what is claimed waits, as if it had not been. False
        if the delivery is not this claim's any more, which changes nothing.
        """
