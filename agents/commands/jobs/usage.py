"""`concord usage`: adds up the units consumed at recognizers and adjudicators, and their cost."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from agents.commands import reach
from agents.commands.arguments import moment
from schemas.errors import NotFound
from schemas.ids import EVERY_TENANT
from schemas.jobs.rows import cost
from schemas.printable import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agents.fleet.settings import Settings
    from sinks.postgres.reader import Reader, Used

DESCRIPTION = """Adds up the units consumed at recognizers and adjudicators: seconds of audio, requests, tokens.

  concord usage                                       this month, by tenant
  concord usage --tenant acme --by job                each of a tenant's jobs
  concord usage --job order-1234 --since 2026-01-01   one job, by its id or reference
  concord usage --since 2026-10-01 --until 2026-11-01 --json

With prices, also their cost at the current prices:

  export CONCORD_PRICES=assemblyai:audio_seconds=0.21/3600,gemini:prompt_tokens=0.30/1000000"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "usage",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--tenant", metavar="T", help="only this tenant's")
    command.add_argument("--by", choices=("tenant", "job"), default="tenant", help="a row for each (default: tenant)")
    command.add_argument("--job", metavar="JOB", help="only this job's, named by its id or reference")
    command.add_argument("--since", metavar="TIME", type=moment, help="in UTC (default: the first of this month)")
    command.add_argument("--until", metavar="TIME", type=moment, help="in UTC, itself not included (default: now)")
    command.add_argument("--json", action="store_true", help="one JSON object for each row")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the rows of usage as a table, or as JSON."""
    until = arguments.until or datetime.now(UTC)
    since = arguments.since or datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    async with reach.reader(reach.addressed(settings)) as reader:
        if arguments.job is None:
            rows = await reader.usage(arguments.tenant or EVERY_TENANT, since, until, by_job=arguments.by == "job")
        else:
            rows = await _of_job(arguments.job, arguments.tenant, since, until, reader)
    if arguments.json:
        for row in rows:
            print(printable_json(orjson.dumps(asdict(row) | {"cost": cost(row, settings.prices)}).decode()))
    else:
        print(table(rows, settings.prices) if rows else f"nothing was used up since {since:%Y-%m-%d %H:%M} UTC")
    return 0


async def _of_job(name: str, tenant: str | None, since: datetime, until: datetime, reader: Reader) -> list[Used]:
    job = await reach.job_named(name, tenant, reader)
    if job is None:
        raise NotFound(f"there is no job {name!r} in the database")
    rows = await reader.usage(job.tenant_id, since, until, by_job=True)
    return [row for row in rows if row.job_id == job.job_id]


def table(rows: Sequence[Used], prices: Mapping[str, float]) -> str:
    """A line for each row, and a total where there are prices; `rows` must not be empty."""
    width = 38 if rows[0].job_id is not None else 0

    def line(tenant: str, job: str, provider: str, unit: str, quantity: str, money: str) -> str:
        tenant, job, provider, unit = map(printable, (tenant, job, provider, unit))
        return f"{tenant:<20} {job:<{width}}{provider:<24} {unit:<18} {quantity:>14} {money:>10}"

    costs = [cost(row, prices) for row in rows]
    lines = [line("tenant", "job" if width else "", "provider", "unit", "quantity", "cost")]
    lines += [
        line(row.tenant_id, row.job_id or "", row.provider, row.unit, f"{row.quantity:,.0f}", _money(amount))
        for row, amount in zip(rows, costs, strict=True)
    ]
    if prices:
        lines.append(line("total", "", "", "", "", _money(sum(amount or 0 for amount in costs))))
    return "\n".join(lines)


def _money(amount: float | None) -> str:
    return "" if amount is None else f"{amount:,.2f}" if amount >= 1 else f"{amount:.4f}"
