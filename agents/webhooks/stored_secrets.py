"""Encrypts stored secrets of webhooks with the first key: those that earlier versions stored in clear, and those of one
that is being replaced.
"""

from __future__ import annotations

import logging

from schemas.accounts.sealing import CannotOpen, Seals
from sinks.ports.webhooks.secrets import StoredSecret, StoredSecrets

log = logging.getLogger(__name__)


async def encrypt_stored(secrets: StoredSecrets, seals: Seals) -> int:
    """Encrypt what is not encrypted with the first key; how many secrets. Without a key, nothing is done.

    Endpoints that were paused because their newest secret did not decrypt go on, where it does now. Safe to call from
    many workers at once, and after a kill. Raises Unavailable.
    """
    if not seals.keys:
        return 0
    encrypted, seen = 0, set[str]()
    for stored in await secrets.stored_secrets():
        is_newest = stored.webhook_id not in seen
        seen.add(stored.webhook_id)
        try:
            secret = seals.open(stored.text, stored.tenant_id, stored.webhook_id)
        except CannotOpen as exc:
            log.warning("the webhook %s of %s: %s", stored.webhook_id, stored.tenant_id, exc)
            continue
        encrypted += await _encrypt(secrets, seals, stored, secret)
        if is_newest and await secrets.end_unsigned_pause(stored.tenant_id, stored.webhook_id):
            log.info("the webhook %s of %s goes on: its secret decrypts again", stored.webhook_id, stored.tenant_id)
    return encrypted


async def _encrypt(secrets: StoredSecrets, seals: Seals, stored: StoredSecret, secret: str) -> bool:
    if seals.is_current(stored.text):
        return False
    return await secrets.replace_secret(stored, seals.seal(secret, stored.tenant_id, stored.webhook_id))
