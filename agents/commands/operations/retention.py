"""`concord retention`: what is older than it should be kept, by tenant, and its deletion."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from agents.commands import reach
from agents.fleet.settings import account_defaults
from agents.upkeep.job_retention import JobRetention, TenantRetentions
from agents.upkeep.retention import Retention
from schemas.printable import printable
from sinks.accounts import Accounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents.fleet.settings import Settings
    from sinks.ports.upkeep.retention import Expired, Kind, Retentions
    from sinks.postgres.database import Postgres

DESCRIPTION = """Lists what is older than it should be kept, by tenant: jobs, files of jobs, entries of the audit log. A
running fleet deletes it by itself, within minutes; jobs with every copy and a receipt (`GET /deletions/{id}`).

  CONCORD_RETENTION_FILES_DAYS       recordings and other files of ended jobs; their transcripts stay
  CONCORD_RETENTION_COMPLETED_DAYS   completed jobs with everything
  CONCORD_RETENTION_FAILED_DAYS      failed jobs with everything
  CONCORD_CONVERSATION_FILES_DAYS    files of conversations of voice agents (90)
  CONCORD_CONVERSATION_FAILED_DAYS   such conversations that have failed, with everything (30)
  CONCORD_AUDIT_DAYS                 entries of the audit log (365)

What is not set is kept for ever. A tenant's settings go before these.

  concord retention --dry-run        what would go now
  concord retention                  have it go now, and not within minutes"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "retention",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--dry-run", action="store_true", help="list it, and delete nothing")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """List what is due, and begin its deletion unless it is a dry run."""
    async with reach.database(reach.addressed(settings)) as database:
        accounts = Accounts(database, account_defaults(settings))
        retentions = TenantRetentions(accounts, settings.conversation_files_days, settings.conversation_failed_days)
        total = 0
        async for tenant, kind, expired in expired_of(database, retentions):
            total += expired.jobs
            print(f"{printable(tenant):24} {kind:20} {expired.jobs:9} jobs {expired.size_bytes:15,} bytes")
        entries = await database.count_expired_entries(settings.audit_days)
        for tenant, count in entries.items():
            print(f"{printable(tenant):24} {'audit':20} {count:9} entries")
        if not total and not entries:
            print("nothing is older than it should be kept")
        elif not arguments.dry_run:
            print(f"{await JobRetention(database, retentions).round(_to_the_end)} deletions have begun")
            forgotten = await Retention(database, {"audit_log": settings.audit_days}).round()
            print(f"{forgotten} entries of the audit log are deleted")
    return 0


async def _to_the_end() -> bool:
    return True


async def expired_of(database: Postgres, retentions: Retentions) -> AsyncIterator[tuple[str, Kind, Expired]]:
    """What is due, by tenant and kind; kinds of which nothing is due are left out."""
    for tenant in await database.tenants():
        for kind, days in (await retentions.retention(tenant)).days.items():
            expired = await database.count_expired(tenant, kind, days)
            if expired.jobs:
                yield tenant, kind, expired
