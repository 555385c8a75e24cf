"""Changes of keys, settings, webhooks and voice prints, as entries of the audit log. No secret is in them."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

from schemas.accounts.settings import AccountSettings
from schemas.ids import EVERY_TENANT
from schemas.jobs.rows import AuditEntry

#: What was changed.
About = Literal["keys", "settings", "webhooks", "voices"]

#: All of these. Other entries without a job are no changes of an account.
ABOUT: Final[tuple[About, ...]] = get_args(About)

#: In place of a job's id, and of its run.
NO_JOB: Final = ""
NO_RUN: Final = 0


def account_change(
    tenant: str | None,
    about: About,
    what: str,
    author: str | None,
    subject: str | None = None,
    details: dict[str, Any] | None = None,
) -> AuditEntry:
    """The entry of one change. `tenant` None: of operators'. `author` None: nobody did it, the fleet itself did."""
    return AuditEntry(
        tenant_id=EVERY_TENANT.value if tenant is None else tenant,
        job_id=NO_JOB,
        run=NO_RUN,
        step=about,
        what=what,
        author=author,
        subject=subject,
        details=details or {},
    )


def voices_deleted(tenant: str, name: str | None, author: str) -> AuditEntry:
    """The entry of the deletion of one voice print, or of all: not the name, which is to be forgotten."""
    return account_change(tenant, "voices", "all deleted" if name is None else "deleted", author)


def changed_settings(before: AccountSettings, after: AccountSettings) -> list[str]:
    """The names of the settings that are not the same."""
    return [name for name in AccountSettings.model_fields if getattr(before, name) != getattr(after, name)]
