"""`concord upload`: sends recordings to a fleet over HTTP, and follows them."""

from __future__ import annotations

import argparse
import io
import json
import mimetypes
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import uuid4

from agents.commands.remote.client import INVALID, STATUSES, Api, again, fail
from agents.commands.remote.jobs import watch
from agents.commands.remote.output import print_json_lines
from schemas.printable import printable

DESCRIPTION = f"""Sends recordings to a fleet, which transcribes them: CONCORD_URL (default: the fleet on this machine),
CONCORD_API_KEY. Prints the id of each job.

  concord upload call.wav --wait
  concord upload call.mp3 --reference order-1234 --language de --metadata '{{"agent": "Zoe"}}'
  concord upload calls/*.wav --json

Sent again with the same reference, a recording is the same job.

{STATUSES}"""

#: Whose recordings an operator's are, on a fleet without any tenant.
FIRST_TENANT: Final = "demo"

#: Bytes that are read and sent at a time, and between two lines of progress.
CHUNK: Final = 1 << 16


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("upload", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("audio", metavar="FILE", nargs="+", type=Path, help="recordings, in any audio format")
    command.add_argument("--reference", metavar="R", help="your own name for the job, unique within the tenant")
    command.add_argument("--language", metavar="TAG", help="`auto` (default), or a tag such as en or de-CH")
    command.add_argument(
        "--priority", type=int, choices=range(10), metavar="0-9", help="9 is the most urgent; default: 5"
    )
    command.add_argument("--not-before", metavar="TIME", help="have it wait until then, as 2026-05-01T22:00:00+02:00")
    command.add_argument("--metadata", metavar="JSON", help="an object of your own, which every result repeats")
    command.add_argument("--options", metavar="JSON", help="an object, such as '{\"diarize\": true}'")
    command.add_argument("--tenant", metavar="T", help="whose; an operator's key sees several")
    command.add_argument("--wait", action="store_true", help="follow each job until it has ended")
    command.add_argument("--json", action="store_true", help="JSON as the API answers it, one document a line")
    command.set_defaults(remote=run)


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Send the recordings."""
    if arguments.reference and len(arguments.audio) > 1:
        fail("--reference names one recording: send the others by commands of their own", INVALID)
    for name in ("metadata", "options"):
        _check_object(name, getattr(arguments, name))
    api = Api.of_environment(environment)
    tenant = api.tenant(arguments.tenant, first=FIRST_TENANT)
    jobs = [_send(api, tenant, path, arguments) for path in arguments.audio]
    if not arguments.wait:
        return 0
    # The worst of the statuses: 1 if one of the jobs has failed.
    return max(watch(api, job["job_id"], job.get("tenant_id"), as_json=arguments.json) for job in jobs)


def _check_object(name: str, text: str | None) -> None:
    try:
        is_object = text is None or isinstance(json.loads(text), dict)
    except ValueError:
        is_object = False
    if not is_object:
        fail(f'--{name} is no JSON object: write it as \'{{"key": "value"}}\'', INVALID)


def _send(api: Api, tenant: str, path: Path, arguments: argparse.Namespace) -> Any:
    fields = {
        name: str(value)
        for name in ("reference", "language", "priority", "not_before", "metadata", "options")
        if (value := getattr(arguments, name)) is not None
    }
    # With one key for all of them, an upload that is sent again after a broken connection is one job.
    key = uuid4().hex
    answer = again(lambda: _post(api, tenant, path, fields, key))
    if arguments.json:
        print_json_lines([answer])
    else:
        print(f"{printable(path.name)}  {answer['job_id']}", flush=True)
    return answer


def _post(api: Api, tenant: str, path: Path, fields: Mapping[str, str], key: str) -> Any:
    try:
        with path.open("rb") as audio:
            form = Form(fields, path.name, audio, path.stat().st_size)
            headers = {
                "Content-Type": form.content_type,
                "Content-Length": str(form.length),
                "Idempotency-Key": key,
            }
            return api.call("POST", "/audio/process", query={"tenant": tenant}, headers=headers, body=form).json()
    except OSError as exc:
        fail(f"{path}: {exc.strerror}", INVALID)


class Form(io.RawIOBase):
    """A multipart/form-data body (RFC 7578) with some fields and one file, which is read while it is sent.

    On a terminal it shows how much is sent.
    """

    def __init__(self, fields: Mapping[str, str], filename: str, audio: BinaryIO, size: int) -> None:
        boundary = uuid4().hex
        kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{_escaped(filename)}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )
        head, tail = "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.length = len(head) + size + len(tail)
        self._parts: list[BinaryIO] = [io.BytesIO(head), audio, io.BytesIO(tail)]
        self._name, self._sent = printable(filename), 0

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the body; at most `CHUNK`, none at its end."""
        while self._parts:
            data = self._parts[0].read(CHUNK if size < 0 else min(size, CHUNK))
            if data:
                self._sent += len(data)
                self._show()
                return data
            self._parts.pop(0)
        return b""

    def _show(self) -> None:
        if sys.stderr.isatty():
            end = "\n" if self._sent >= self.length else ""
            print(f"\r{self._name}  {self._sent / self.length:4.0%}", end=end, file=sys.stderr, flush=True)


def _escaped(filename: str) -> str:
    """A file name inside quotes, as browsers escape it (the HTML standard, multipart/form-data)."""
    return filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
