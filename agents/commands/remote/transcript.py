"""`concord transcript`: a transcript as text, subtitles or a document, over HTTP."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.commands.arguments import positive
from agents.commands.remote.client import INVALID, STATUSES, Api, fail, job_path
from schemas.printable import printable

DESCRIPTION = f"""Prints a job's transcript, or writes it into a file. JOB is its id or its reference.

  concord transcript order-1234                            plain text
  concord transcript order-1234 --format srt -o call.srt   subtitles
  concord transcript order-1234 --format md --mark-disputed

{STATUSES}"""

#: Formats of which the last one is no text.
FORMATS = ("txt", "srt", "vtt", "md", "json", "docx")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("transcript", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("job", metavar="JOB", help="its id or its reference")
    command.add_argument("--format", choices=FORMATS, default="txt", help="default: txt")
    command.add_argument("--run", type=positive, metavar="N", help="of this run; default: the newest")
    command.add_argument("--timestamps", action="store_true", help="with the time of each paragraph")
    command.add_argument("--mark-disputed", action="store_true", help="mark words on which recognizers did not agree")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: standard output")
    command.add_argument("--tenant", metavar="T", help="whose; an operator's key sees several")
    command.set_defaults(remote=run)


def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print or write the transcript."""
    if arguments.format == "docx" and arguments.output is None and sys.stdout.isatty():
        fail("--format docx is no text: add --output FILE", INVALID)
    query = {
        "format": arguments.format,
        "run": arguments.run,
        "tenant": arguments.tenant,
        "timestamps": "true" if arguments.timestamps else None,
        "mark_disputed": "true" if arguments.mark_disputed else None,
    }
    answer = Api.of_environment(environment).call("GET", job_path(arguments.job, "transcript"), query=query)
    if arguments.output is not None:
        _write(arguments.output, answer.data)
    elif sys.stdout.isatty():
        print(printable(answer.data.decode(), lines=True))
    else:
        sys.stdout.buffer.write(answer.data)
        sys.stdout.buffer.flush()
    return 0


def _write(path: Path, content: bytes) -> None:
    """The whole file, or none: what was there stays until it is complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as exc:
        fail(f"{path} cannot be written: {exc.strerror}", INVALID)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
