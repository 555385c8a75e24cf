"""`concord migrate`: applies the missing migrations of the database schema."""

from __future__ import annotations

import argparse
from typing import Any

from agents.commands.serve import with_addresses
from agents.fleet.servers import dsn_of
from agents.fleet.settings import Settings
from sinks.postgres.migrate import migrate


def add(commands: Any) -> None:
    """Add the command to the parser. Workers migrate at their start, too; the command is for deployments that do it
    before.
    """
    command = commands.add_parser("migrate")
    command.set_defaults(run=run)


async def run(_: argparse.Namespace, settings: Settings) -> int:
    """Apply the missing migrations, and print their names."""
    applied = await migrate(dsn_of(with_addresses(settings)))
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do")
    return 0
