"""`concord voices`: what is kept of the voices of a tenant's named speakers, over HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from agents.commands.remote.client import INVALID, STATUSES, Api, fail
from agents.commands.remote.output import print_json, print_table, time_text

DESCRIPTION = f"""The voice prints of a tenant's named speakers, by which they are recognised in later recordings. They
are kept only while the tenant's setting `voice_prints` is true.

  concord voices list
  concord voices delete 'Ann Miller'
  concord voices delete --all

They need a key with the scope `admin`.

{STATUSES}"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("voices", description=DESCRIPTION, formatter_class=raw)
    verbs = command.add_subparsers(metavar="VERB", required=True)
    listed = verbs.add_parser("list", help="all voice prints", description=DESCRIPTION, formatter_class=raw)
    listed.add_argument("--json", action="store_true", help="JSON as the API answers it")
    listed.set_defaults(remote=run_list)
    deleted = verbs.add_parser("delete", help="delete one, or all", description=DESCRIPTION, formatter_class=raw)
    deleted.add_argument("name", metavar="NAME", nargs="?", help="as `list` shows it")
    deleted.add_argument("--all", action="store_true", help="all that is kept of the tenant's voices")
    deleted.set_defaults(remote=run_delete)
    for verb in verbs.choices.values():
        verb.add_argument("--tenant", metavar="T", help="whose; an operator's key sees several")


def run_list(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the voice prints."""
    api = Api.of_environment(environment)
    answer = api.get(_path(api, arguments))
    if arguments.json:
        print_json(answer)
        return 0
    rows = [
        (voice["name"], voice["recordings"], *map(time_text, (voice["created_at"], voice["recognised_at"])))
        for voice in answer["voices"]
    ]
    print_table(("NAME", "RECORDINGS", "SINCE", "LAST RECOGNISED"), rows)
    return 0


def run_delete(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Delete one voice print, or all."""
    if (arguments.name is None) is not arguments.all:
        fail("say whose voice is deleted, or --all", INVALID)
    api = Api.of_environment(environment)
    path = _path(api, arguments)
    api.call("DELETE", path if arguments.all else f"{path}/{quote(arguments.name, safe='')}")
    print("deleted")
    return 0


def _path(api: Api, arguments: argparse.Namespace) -> str:
    return f"/tenants/{quote(api.tenant(arguments.tenant), safe='')}/voices"
