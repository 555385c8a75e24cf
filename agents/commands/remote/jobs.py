"""`concord jobs`: lists, shows, follows, cancels, reprocesses and deletes jobs over HTTP."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from agents.commands.arguments import confirmed, positive
from agents.commands.remote.client import AWAY, FAILED, INVALID, STATUSES, Api, fail, job_path
from agents.commands.remote.output import print_json, print_json_lines, print_table, time_text
from schemas.printable import printable

DESCRIPTION = f"""Jobs of a fleet, over HTTP: CONCORD_URL (default: the fleet on this machine), CONCORD_API_KEY.
JOB is a job's id or its reference.

  concord jobs list --status failed --limit 20
  concord jobs show order-1234
  concord jobs watch order-1234                       until its run has ended
  concord jobs cancel order-1234
  concord jobs reprocess order-1234 --from reconcile  from what the recognizers have heard already
  concord jobs delete order-1234                      every copy, for good; prints the receipt

{STATUSES}"""

#: Seconds between two questions for the receipt of a deletion, and for which it is waited for.
LOOK_S, DELETED_S = 0.5, 60.0

#: Seconds after which a broken event stream is opened again, and how often in a row.
RECONNECT_S, RECONNECTS = 1.0, 30


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("jobs", description=DESCRIPTION, formatter_class=raw)
    verbs = command.add_subparsers(metavar="VERB", required=True)

    listing = verbs.add_parser("list", help="the newest jobs", description=DESCRIPTION, formatter_class=raw)
    listing.add_argument("--status", metavar="S", help="only jobs in this status")
    listing.add_argument("--limit", type=positive, default=50, help="how many (default: 50)")
    listing.set_defaults(remote=run_list)

    for name, summary, run in (
        ("show", "everything about one job", run_show),
        ("watch", "its statuses until its run has ended", run_watch),
        ("cancel", "end it", run_cancel),
        ("reprocess", "begin its next run", run_reprocess),
        ("delete", "delete every copy of it", run_delete),
    ):
        verb = verbs.add_parser(name, help=summary, description=DESCRIPTION, formatter_class=raw)
        verb.add_argument("job", metavar="JOB", help="its id or its reference")
        verb.set_defaults(remote=run)
        if name == "reprocess":
            verb.add_argument("--from", dest="start", metavar="STEP", help="`reconcile`: ask no recognizer again")
            verb.add_argument("--recognizers", metavar="R", help="comma list of those that are asked again")
        if name == "delete":
            verb.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    for verb in verbs.choices.values():
        verb.add_argument("--tenant", metavar="T", help="whose; an operator's key sees several")
        verb.add_argument("--json", action="store_true", help="JSON as the API answers it")


def run_list(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the newest jobs."""
    api = Api.of_environment(environment)
    path = f"/tenants/{api.tenant(arguments.tenant)}/jobs"
    jobs = api.items(path, "jobs", arguments.limit, status=arguments.status)
    if arguments.json:
        print_json_lines(jobs)
        return 0
    rows = [(j["job_id"], j["status"], time_text(j["created_at"]), j["filename"], j.get("reference")) for j in jobs]
    print_table(("JOB", "STATUS", "CREATED", "FILE", "REFERENCE"), rows)
    return 0


def run_show(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one job."""
    job = Api.of_environment(environment).get(job_path(arguments.job), tenant=arguments.tenant)
    if arguments.json:
        print_json(job)
        return 0
    print_job(job)
    return 0


def print_job(job: Mapping[str, Any]) -> None:
    """A job for people: what it is, and a line for each step."""
    for label, name in (("job", "job_id"), ("reference", "reference"), ("file", "filename"), ("status", "status")):
        if job.get(name) is not None:
            print(f"{label:<10} {printable(str(job[name]))}")
    if job.get("reason"):
        print(f"{'reason':<10} {printable(job['reason'])}" + (f" ({job['code']})" if job.get("code") else ""))
    print()
    steps = [*job["steps"].items(), *job.get("enrichment", {}).items()]
    print_table(
        ("STEP", "STATE", "ATTEMPTS", "FINISHED", "NOTE"),
        [(n, s["state"], s.get("attempts", 0), time_text(s.get("finished_at")), s.get("error")) for n, s in steps],
    )


def run_watch(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print each status of a job until its run has ended."""
    return watch(Api.of_environment(environment), arguments.job, arguments.tenant, as_json=arguments.json)


def watch(api: Api, name: str, tenant: str | None, *, as_json: bool) -> int:
    """Print each status of a job until its run has ended; `FAILED` if it failed."""
    status: Mapping[str, Any] = {}
    for status in _statuses(api, name, tenant):
        if as_json:
            print_json_lines([status])
        else:
            stage = f" ({status['stage']})" if status.get("stage") else ""
            at, progress = time_text(status["updated_at"]), status["progress"]
            print(f"{at}  {progress:4.0%}  {status['status']}{stage}", flush=True)
    if status.get("status") != "failed":
        return 0
    if not as_json:
        print(f"failed: {printable(status.get('reason') or '')}", file=sys.stderr)
    return FAILED


def _statuses(api: Api, name: str, tenant: str | None) -> Iterator[Mapping[str, Any]]:
    """The statuses of a job, over as many event streams as it takes."""
    last: str | None = None
    breaks = 0
    while breaks <= RECONNECTS:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        stream = api.call(
            "GET", job_path(name, "events"), query={"tenant": tenant}, headers=headers, preload_content=False
        )
        if stream.status == 204:
            return
        for event in _events(stream):
            breaks, last = 0, str(event["version"])
            yield event
            if event["status"] in ("completed", "failed"):
                return
        breaks += 1
        time.sleep(RECONNECT_S)
    fail("the fleet breaks off every stream of statuses; `concord jobs show` asks once", AWAY)


def _events(stream: Any) -> Iterator[Mapping[str, Any]]:
    """The data of server-sent events named `status`, until the stream ends or breaks."""
    import urllib3

    kind, data = "", ""
    try:
        for line in stream:
            text = line.decode().rstrip("\r\n")
            if text.startswith("event:"):
                kind = text[6:].strip()
            elif text.startswith("data:"):
                data = text[5:].strip()
            elif not text and data:
                if kind == "status":
                    yield json.loads(data)
                kind, data = "", ""
    except urllib3.exceptions.HTTPError:
        return


def run_cancel(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """End a job."""
    answer = _post(arguments, environment, "cancel")
    print_json(answer) if arguments.json else print("cancelled")
    return 0


def run_reprocess(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Begin a job's next run."""
    names = [name.strip() for name in (arguments.recognizers or "").split(",") if name.strip()]
    body = ({"from": arguments.start} if arguments.start else {}) | ({"recognizers": names} if names else {})
    answer = _post(arguments, environment, "reprocess", json=body)
    print_json(answer) if arguments.json else print(f"run {answer['run']} begins")
    return 0


def _post(arguments: argparse.Namespace, environment: Mapping[str, str], verb: str, **more: Any) -> Any:
    api = Api.of_environment(environment)
    return api.call("POST", job_path(arguments.job, verb), query={"tenant": arguments.tenant}, **more).json()


def run_delete(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Delete a job for good, and print what went."""
    api = Api.of_environment(environment)
    if not arguments.yes and not confirmed(f"Delete every copy of {printable(arguments.job)} for good?"):
        fail("nothing was deleted; --yes does it without asking", INVALID)
    answer = api.call("DELETE", job_path(arguments.job), query={"tenant": arguments.tenant})
    deadline = time.monotonic() + DELETED_S
    location = answer.headers.get("Location")
    receipt = answer.json()
    while answer.status == 202 and location and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        answer = api.call("GET", location)
        receipt = answer.json()
    if arguments.json:
        print_json(receipt)
    elif answer.status == 202:
        print(f"the deletion goes on; its receipt will be at {api.url}{location}")
    else:
        print("deleted; the receipt:")
        print_json(receipt)
    return 0
