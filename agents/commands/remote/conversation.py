"""`concord conversation`: has a conversation of an ElevenLabs agent processed, over HTTP, and follows it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from agents.commands.remote.client import FAILED, STATUSES, Api, again
from agents.commands.remote.output import print_json_lines, time_text
from schemas.printable import printable

DESCRIPTION = f"""Has a conversation of an ElevenLabs agent fetched, stored, summarised, and its report mailed:
CONCORD_URL (default: the fleet on this machine), CONCORD_API_KEY. ID is ElevenLabs' id of the conversation.

  concord conversation conv_01k2m3 --account acme --email ann@example.com --wait
  concord conversation conv_01k2m3 --email ann@example.com --verify

Asked for again, it is the same one: it goes on where it failed, and nothing is mailed twice.

{STATUSES}"""

PATH: Final = "/api/v1/postprocess"

#: Seconds between two questions how far it is.
LOOK_S: Final = 1.0

#: The account of a fleet that has none yet, where an operator names none.
FIRST_ACCOUNT: Final = "demo"

#: Statuses from which nothing goes on, and those that are a success.
_ENDED: Final = ("completed", "archived", "failed", "cancelled")
_DONE: Final = _ENDED[:2]


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("conversation", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("conversation", metavar="ID", help="as ElevenLabs names it")
    command.add_argument("--account", metavar="A", help="whose; default: the tenant of the API key")
    command.add_argument("--email", metavar="E", required=True, help="whom the report is mailed to")
    command.add_argument("--verify", action="store_true", help="have the recording heard by the recognizers, too")
    command.add_argument("--wait", action="store_true", help="follow it until it has ended")
    command.add_argument("--json", action="store_true", help="JSON as the API answers it, one document a line")
    command.set_defaults(remote=run)


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Ask for the conversation, and follow it if that is wanted."""
    api = Api.of_environment(environment)
    body: dict[str, Any] = {
        "email_id": arguments.email,
        "account_id": api.tenant(arguments.account, first=FIRST_ACCOUNT, option="--account"),
        "conversation_id": arguments.conversation,
    }
    if arguments.verify:
        body["options"] = {"verify": True}
    answer = _ask(api, body)
    if arguments.json:
        print_json_lines([answer])
    else:
        print(f"{answer['data']['processing_id']}  {answer['message']}", flush=True)
    return _follow(api, answer["data"]["processing_id"], as_json=arguments.json) if arguments.wait else 0


def _ask(api: Api, body: Mapping[str, Any]) -> Any:
    # With one key for all of them, a request that is sent again after a broken connection is one.
    headers = {"Idempotency-Key": uuid4().hex}
    return again(lambda: api.call("POST", f"{PATH}/conversation", headers=headers, json=body).json())


def _follow(api: Api, id: str, *, as_json: bool) -> int:
    """Print each change until it has ended; `FAILED` if it failed or was cancelled."""
    shown: tuple[Any, ...] = ()
    while True:
        answer = api.get(f"{PATH}/{id}")
        data = answer["data"]
        state = (data["status"], data["current_step"], data["progress"])
        if state != shown:
            shown = state
            _print(answer, as_json=as_json)
        if data["status"] in _ENDED:
            return _end(api, data, as_json=as_json)
        time.sleep(LOOK_S)


def _print(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json_lines([answer])
        return
    data = answer["data"]
    step = f" ({data['current_step']})" if data["current_step"] else ""
    print(f"{time_text(data['updated_at'])}  {data['progress']:3}%  {data['status']}{step}", flush=True)


def _absolute(api: Api, url: str) -> str:
    """The URL for another program; the fleet's own are told without its address."""
    return f"{api.url}{url}" if url.startswith("/") else url


def _end(api: Api, data: Mapping[str, Any], *, as_json: bool) -> int:
    """Print what there is, or what can be done; the exit status."""
    is_done = data["status"] in _DONE
    if as_json:
        return 0 if is_done else FAILED
    for note in data["notes"]:
        print(printable(note))
    if is_done:
        for name, file in data["files"].items():
            if file is not None:
                print(f"{name:<10} {printable(_absolute(api, file['url']))}")
        return 0
    print(f"{data['status']}: {printable(data['error'] or '')}", file=sys.stderr)
    for number, failure in enumerate(data["failures"]):
        if number:
            print(f"{printable(failure['step'])}: {printable(failure['error'] or '')}", file=sys.stderr)
        print(printable(failure["what_to_do"]), file=sys.stderr)
    return FAILED
