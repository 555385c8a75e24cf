"""`concord webhooks`: a tenant's endpoints, to which events are sent, over HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from agents.commands.arguments import positive
from agents.commands.remote.client import STATUSES, Api
from agents.commands.remote.output import print_json, print_json_lines, print_table, time_text

DESCRIPTION = f"""A tenant's webhooks (Standard Webhooks): servers that are told of completions and other events.

  concord webhooks create https://example.com/calls --event job.completed --event job.failed
  concord webhooks list
  concord webhooks test ID                     send the event webhook.test
  concord webhooks deliveries ID --status failed
  concord webhooks replay ID                   send again what has failed
  concord webhooks rotate ID                   another secret; for a day both sign
  concord webhooks delete ID

The secret is printed once, when an endpoint is created or its secret rotated. They need a key with the scope `admin`.

{STATUSES}"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("webhooks", description=DESCRIPTION, formatter_class=raw)
    verbs = command.add_subparsers(metavar="VERB", required=True)

    create = verbs.add_parser("create", help="add an endpoint", description=DESCRIPTION, formatter_class=raw)
    create.add_argument("url", metavar="URL", help="an https:// URL")
    create.add_argument("--event", action="append", metavar="E", help="default: all; may be repeated")
    create.add_argument("--description", metavar="TEXT", default="", help="what it is for")
    create.set_defaults(remote=run_create)

    verbs.add_parser("list", help="all endpoints", description=DESCRIPTION, formatter_class=raw).set_defaults(
        remote=run_list
    )
    for name, summary, run in (
        ("test", "send webhook.test", run_test),
        ("deliveries", "the newest deliveries", run_deliveries),
        ("replay", "send again what has failed", run_replay),
        ("rotate", "another secret", run_rotate),
        ("delete", "delete it with its history", run_delete),
    ):
        verb = verbs.add_parser(name, help=summary, description=DESCRIPTION, formatter_class=raw)
        verb.add_argument("id", metavar="ID", help="as `list` shows it")
        verb.set_defaults(remote=run)
        if name == "deliveries":
            verb.add_argument("--status", metavar="S", help="only those in this state, such as failed")
            verb.add_argument("--limit", type=positive, default=50, help="how many (default: 50)")
    for verb in verbs.choices.values():
        verb.add_argument("--tenant", metavar="T", help="whose; an operator's key sees several")
        verb.add_argument("--json", action="store_true", help="JSON as the API answers it")


def _opened(arguments: argparse.Namespace, environment: Mapping[str, str]) -> tuple[Api, str]:
    """The API, and the path of the tenant's endpoints, or of the one that is named."""
    api = Api.of_environment(environment)
    path = f"/tenants/{api.tenant(arguments.tenant)}/webhooks"
    return api, f"{path}/{quote(arguments.id, safe='')}" if hasattr(arguments, "id") else path


def run_create(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Add an endpoint, and print its secret."""
    api, path = _opened(arguments, environment)
    body = {"url": arguments.url, "events": arguments.event or ["*"], "description": arguments.description}
    made = api.call("POST", path, json=body).json()
    print_json(made) if arguments.json else print(f"{made['id']}\nsecret: {made['secret']}   (it is not shown again)")
    return 0


def run_list(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the endpoints."""
    api, path = _opened(arguments, environment)
    endpoints = api.get(path)["webhooks"]
    if arguments.json:
        print_json_lines(endpoints)
        return 0
    rows = [(e["id"], e["status"], ", ".join(e["events"]), e["url"]) for e in endpoints]
    print_table(("ID", "STATUS", "EVENTS", "URL"), rows)
    return 0


def run_deliveries(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the newest deliveries."""
    api, path = _opened(arguments, environment)
    deliveries = api.items(f"{path}/deliveries", "deliveries", arguments.limit, status=arguments.status)
    if arguments.json:
        print_json_lines(deliveries)
        return 0
    names = ("id", "status", "type", "job_id", "failures")
    rows = [(*(delivery[name] for name in names), time_text(delivery["created_at"])) for delivery in deliveries]
    print_table(("ID", "STATUS", "EVENT", "JOB", "FAILURES", "CREATED"), rows)
    return 0


def run_test(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Send a test event."""
    return _done(arguments, environment, "POST", "/test", "webhook.test is on its way")


def run_replay(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Send again what has failed."""
    return _done(arguments, environment, "POST", "/replay", "what has failed is sent again")


def run_delete(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Delete an endpoint."""
    return _done(arguments, environment, "DELETE", "", "deleted")


def run_rotate(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Make another secret, and print it."""
    api, path = _opened(arguments, environment)
    made = api.call("POST", f"{path}/secret").json()
    print_json(made) if arguments.json else print(f"secret: {made['secret']}   (it is not shown again)")
    return 0


def _done(arguments: argparse.Namespace, environment: Mapping[str, str], method: str, suffix: str, text: str) -> int:
    api, path = _opened(arguments, environment)
    answer = api.call(method, f"{path}{suffix}")
    print_json(answer.json()) if arguments.json and answer.data else print(text)
    return 0
