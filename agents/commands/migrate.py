"""`concord migrate`: applies the missing migrations of the database schema, and encrypts stored secrets."""

from __future__ import annotations

import argparse
from typing import Any

from agents.commands import reach
from agents.commands.serve import with_addresses
from agents.fleet.servers import dsn_of
from agents.fleet.settings import Settings
from agents.webhooks.stored_secrets import encrypt_stored
from sinks.postgres.migrate import migrate


def add(commands: Any) -> None:
    """Add the command to the parser. Workers migrate at their start, too; the command is for deployments that do it
    before.
    """
    command = commands.add_parser("migrate")
    command.set_defaults(run=run)


async def run(_: argparse.Namespace, settings: Settings) -> int:
    """Apply the missing migrations, encrypt secrets that lie there in clear or by an older key, and print what was
    done.
    """
    complete = with_addresses(settings)
    done = [f"applied {name}" for name in await migrate(dsn_of(complete))]
    async with reach.database(complete) as database:
        if encrypted := await encrypt_stored(database, complete.seals):
            done.append(f"encrypted {encrypted} secrets of webhooks")
    print("\n".join(done) or "nothing to do")
    return 0
