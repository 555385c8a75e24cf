"""Changes of webhooks, as entries of the audit log. No secret is in them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from schemas.accounts.changes import account_change
from schemas.jobs.rows import AuditEntry
from schemas.webhooks.rows import Endpoint


def of_webhook(what: str, author: str | None, endpoint: Endpoint, details: dict[str, Any] | None = None) -> AuditEntry:
    """The entry of one change; `author` None: the fleet itself did it."""
    return account_change(endpoint.tenant_id, "webhooks", what, author, endpoint.webhook_id, details)


def told_of(endpoint: Endpoint) -> dict[str, Any]:
    """What is noted of an endpoint that is made or deleted."""
    return {"url": without_query(endpoint.url), "events": list(endpoint.events)}


def changes_of(before: Endpoint, after: Endpoint) -> dict[str, Any]:
    """What is noted of a change: what the fields that changed are now."""
    names = [n for n in ("url", "events", "description", "active") if getattr(before, n) != getattr(after, n)]
    now = {name: getattr(after, name) for name in names}
    if "url" in now:
        now["url"] = without_query(after.url)
    return now | ({"resumed": True} if before.paused_at and not after.paused_at else {})


def without_query(url: str) -> str:
    """A URL as it is noted: what receivers authenticate by is often in its query."""
    parts = urlsplit(url)
    return parts._replace(query="...").geturl() if parts.query else url
