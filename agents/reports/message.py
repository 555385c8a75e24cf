"""A report as the bytes of a mail."""

from __future__ import annotations

from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from schemas.mail.rows import Mail

#: Standard names of the parts of a mail that was made by a program and wants no answer of one (RFC 3834).
_AUTOMATIC = "auto-generated"


def message(mail: Mail, sender: str, parts: Mapping[str, str], report: bytes | None, filename: str) -> bytes:
    """The mail with text and HTML, and with the report attached if it is given. Each attempt has the same identity."""
    made = EmailMessage(SMTP)
    made["From"] = sender
    made["To"] = ", ".join(sorted({*mail.waiting, *mail.accepted, *mail.refused}))
    made["Subject"] = parts["subject"] or "Report"
    made["Message-ID"] = f"<{mail.message_id}>"
    if mail.created_at is not None:
        made["Date"] = format_datetime(mail.created_at)
    made["Auto-Submitted"] = _AUTOMATIC
    made.set_content(parts["text"])
    made.add_alternative(parts["html"], subtype="html")
    if report is not None:
        made.add_attachment(report, maintype="application", subtype="pdf", filename=filename)
    return made.as_bytes()
