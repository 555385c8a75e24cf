"""Whether the mail server takes our connection and our password; no mail is sent."""

from __future__ import annotations

from agents.commands.checks.finding import Finding
from agents.fleet.settings import Settings
from schemas.errors import Transient


async def mail(settings: Settings) -> list[Finding]:
    """One finding."""
    if "mail" not in settings.enrichments and settings.smtp_host is None:
        return [Finding("mail", "ok", "not configured: no reports are mailed")]
    service = settings.mail_service(settings.public_url)
    if service is None:
        advice = "set SMTP_HOST and SMTP_FROM_EMAIL, or take `mail` out of CONCORD_ENRICHMENTS"
        return [Finding("mail", "fail", "no mail server is configured", advice)]
    subject = f"mail {settings.smtp_host}"
    try:
        await service.server.check(service.sender)
    except Transient as exc:
        advice = "check SMTP_HOST, SMTP_PORT, SMTP_SECURITY, SMTP_USERNAME and SMTP_PASSWORD; mails wait for a day"
        return [Finding(subject, "fail", str(exc), advice)]
    said = "accepts the password" if settings.smtp_username else "answers"
    only = f"; mail goes to {', '.join(sorted(service.domains))} only" if service.domains else ""
    return [Finding(subject, "ok", f"{said}, by {settings.smtp_security} (no mail was sent){only}")]
