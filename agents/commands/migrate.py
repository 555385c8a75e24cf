"""`concord migrate`: bring the database to the newest schema."""

from __future__ import annotations

import argparse
from typing import Any

from agents.commands.serve import with_addresses
from agents.fleet.servers import dsn_of
from agents.fleet.settings import Settings
from sinks.postgres.migrate import migrate


def add(commands: Any) -> None:
    """The command; workers do the same at their start, so it is for deployments that want it done before."""
    command = commands.add_parser("migrate", help="bring the database to the newest schema")
    command.set_defaults(run=run)


async def run(_: argparse.Namespace, settings: Settings) -> int:
    """Apply what is missing."""
    applied = await migrate(dsn_of(with_addresses(settings)))
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do")
    return 0
