"""Whether the secrets of tenants' webhooks are encrypted in PostgreSQL, and decrypt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agents.commands import reach
from agents.commands.checks.finding import Finding
from schemas.accounts.sealing import VARIABLE, CannotOpen, is_sealed
from schemas.errors import ConcordError

if TYPE_CHECKING:
    from agents.fleet.settings import Settings
    from sinks.ports.webhooks.secrets import StoredSecret

SUBJECT: Final = "secrets of webhooks"

#: Endpoints that are named.
NAMED: Final = 10


async def webhooks(settings: Settings) -> list[Finding]:
    """A finding for those in clear, and one for each reason why others do not decrypt. Raises nothing."""
    if settings.database_url is None:
        return []
    try:
        async with reach.database(settings) as database:
            stored = await database.stored_secrets()
    except ConcordError:  # the check of PostgreSQL reports what is wrong with the database
        return []
    findings = [*_in_clear(settings, stored), *_lost(settings, stored)]
    if findings:
        return findings
    if settings.secret_key is None:
        advice = f"set {VARIABLE} for all workers (`openssl rand -base64 32`), and keep it apart from backups"
        return [Finding(SUBJECT, "warn", f"{VARIABLE} is not set: no webhook can be made", advice)]
    return [Finding(SUBJECT, "ok", f"{len(stored)}, all of them encrypted, and they decrypt")]


def _in_clear(settings: Settings, stored: list[StoredSecret]) -> list[Finding]:
    clear = [one for one in stored if not is_sealed(one.text)]
    if not clear:
        return []
    first = "" if settings.secret_key else f"set {VARIABLE} (`openssl rand -base64 32`), then "
    advice = f"{first}run `concord migrate`; older backups have them in clear, until they are rotated"
    return [Finding(SUBJECT, "warn", f"in clear: {_names(clear)}", advice)]


def _lost(settings: Settings, stored: list[StoredSecret]) -> list[Finding]:
    reasons: dict[str, list[StoredSecret]] = {}
    for one in stored:
        try:
            settings.seals.open(one.text, one.tenant_id, one.webhook_id)
        except CannotOpen as exc:
            reasons.setdefault(str(exc), []).append(one)
    advice = f"bring the key back into {VARIABLE}; where it is lost, rotate the secrets and send `active: true`"
    return [Finding(SUBJECT, "fail", f"{_names(lost)}: {reason}", advice) for reason, lost in reasons.items()]


def _names(secrets: list[StoredSecret]) -> str:
    names = list(dict.fromkeys(f"{one.webhook_id} of {one.tenant_id}" for one in secrets))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
