"""The port of stored secrets, for what encrypts them anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

#: Begins the reason of a pause because nothing can be signed, which ends when the secret decrypts again.
UNSIGNED: Final = "nothing can be signed: "


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret of an endpoint as it is stored: encrypted (`schemas.accounts.sealing`), or by earlier versions not."""

    tenant_id: str
    webhook_id: str
    text: str = field(repr=False)


class StoredSecrets(Protocol):
    """The secrets of all tenants' endpoints that may still sign."""

    async def stored_secrets(self) -> list[StoredSecret]:
        """All of them, by tenant and endpoint, an endpoint's newest first."""

    async def replace_secret(self, secret: StoredSecret, text: str) -> bool:
        """Store another text in its place; False if it is not stored any more."""

    async def end_unsigned_pause(self, tenant: str, webhook_id: str) -> bool:
        """End the pause of an endpoint whose reason begins with `UNSIGNED`; False if it is not paused, or for another
        reason.
        """
