"""`concord`: the command line. `concord COMMAND --help` explains each command."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from schemas.errors import ConcordError
from schemas.printable import LINE, printable

#: By module of `agents.commands`, in the order of `--help`: its commands, each with a line that says what it does. Only
#: the module of the command that is called is imported: all of them take a second.
COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "demo": {"demo": "the whole fleet on one recording"},
    "serve": {
        "up": "run the whole fleet in this process",
        "worker": "run some stages, any number of copies",
        "servers": "run only the embedded Kafka and PostgreSQL",
    },
    "remote.upload": {"upload": "have recordings transcribed, over HTTP"},
    "remote.jobs": {"jobs": "list, show, follow, cancel, reprocess and delete jobs, over HTTP"},
    "remote.transcript": {"transcript": "a transcript as text, subtitles or a document, over HTTP"},
    "remote.conversation": {"conversation": "have a conversation of a voice agent summarised and mailed, over HTTP"},
    "remote.webhooks": {"webhooks": "have servers told of completions, over HTTP"},
    "remote.voices": {"voices": "list and delete what is kept of speakers' voices, over HTTP"},
    "jobs.publish": {"publish": "have recordings transcribed, by an event on Kafka"},
    "jobs.status": {"status": "a job's status", "watch": "follow a job until it has ended"},
    "jobs.usage": {"usage": "units consumed at providers, and their cost"},
    "operations.enrich": {"enrich": "have an enrichment made of jobs that lack it"},
    "operations.mail": {"mail": "mails with reports: what became of them, and sending one again"},
    "operations.requests": {"requests": "requests that may have been accepted unanswered"},
    "jobs.cancel": {"cancel": "end jobs that have not ended"},
    "operations.dlq": {"dlq": "dead letters: list, show, replay"},
    "operations.skip": {"skip": "exclude a record at which a stage fails or hangs"},
    "operations.outbox": {"outbox": "events that Kafka refused"},
    "operations.retention": {"retention": "what is too old to be kept"},
    "accounts.keys": {"keys": "API keys: create, list, rotate, revoke"},
    "operations.verify": {"verify": "find, and repair, what does not fit together"},
    "operations.rewind": {"rewind": "let stages read all records since a time again"},
    "schema": {"schema": "AsyncAPI document and JSON Schemas"},
    "migrate": {"migrate": "apply the missing migrations of the database schema"},
    "doctor": {"doctor": "check the environment and every server"},
    "reconcile": {
        "reconcile": "reconcile transcripts in files into one",
        "score": "word error rates against the spoken text",
    },
    "completion": {"completion": "completion of commands and options for a shell"},
}

#: Seconds for which tasks may outlive the command, and threads the tasks.
END_S, THREADS_END_S = 2.0, 2.0

DESCRIPTION = """Concord turns call recordings into transcripts. It runs several recognizers, reconciles them word by
word, and publishes exactly one completion event per run."""

EPILOG = """First steps:
  concord demo                      transcribe one recording with a fleet of its own
  concord up                        run a fleet on this machine
  concord upload call.wav --wait    transcribe a recording

Commands over HTTP find a fleet by CONCORD_URL (default: the one on this machine) and CONCORD_API_KEY. Everything is
configured by environment variables; `concord doctor` lists and checks them."""


def main() -> None:
    """Entry point of the `concord` command."""
    status = run(sys.argv[1:])
    threading.Thread(target=_end, args=(status,), daemon=True).start()
    sys.exit(status)


def _end(status: int) -> None:
    """Exit even if a thread hangs: at its end, Python waits for the consumers' threads without a timeout."""
    time.sleep(THREADS_END_S)
    os._exit(status)


def run(argv: list[str]) -> int:
    """Run one command and return its exit status: 2 for wrong arguments, settings or input, 130 after Ctrl-C; those of
    commands over HTTP are in `agents.commands.remote.client`.

    Raises SystemExit, as argparse does, for --help and unknown arguments.
    """
    arguments = parser_of(argv).parse_args(argv)
    if hasattr(arguments, "remote"):
        return completed(lambda: arguments.remote(arguments, os.environ))
    return completed(lambda: _run(arguments))


def completed(command: Callable[[], int]) -> int:
    """The exit status of a command, whose failure is said on standard error."""
    try:
        return command()
    except (ConcordError, ValueError) as exc:
        print(f"concord: {printable(str(exc), lines=True)}", file=sys.stderr)
        return int(getattr(exc, "exit_status", 2))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `concord ... | head`: the reader has closed the pipe, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def parser_of(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these arguments: with the command that they name, or with a line for each command."""
    parser = argparse.ArgumentParser(
        "concord", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="the version, and nothing else")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    named = next((module for module, names in COMMANDS.items() if argv and argv[0] in names), None)
    if named is not None:
        importlib.import_module(f"agents.commands.{named}").add(commands)
        return parser
    for name, summary in chain.from_iterable(names.items() for names in COMMANDS.values()):
        commands.add_parser(name, help=summary)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """The parser with every command, which imports all of their modules."""
    parser = argparse.ArgumentParser("concord", description=DESCRIPTION)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"agents.commands.{name}").add(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version. Its own action, because reading it takes a tenth of a second."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        parser.exit(0, f"concord {version('concord')}\n")


def _run(arguments: argparse.Namespace) -> int:
    """Run a command that works on the fleet's servers themselves, with the settings of the environment."""
    from agents.fleet.environment import from_env
    from agents.fleet.process.malloc import release_freed_memory
    from agents.runtime.failpoints import arm

    release_freed_memory()
    settings = from_env(os.environ)
    # This process forks only to exec. gRPC would restart its threads in the child before that, and may hang there.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    arm(settings.failpoint)
    _log(settings.log_level)
    return _loop(arguments.run(arguments, settings))


def _loop(command: Coroutine[object, object, int]) -> int:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_and_cancel_rest(command))


async def _run_and_cancel_rest(command: Coroutine[object, object, int]) -> int:
    """The command's status, after all other tasks are cancelled; exits the process if one does not end.

    Some tasks of Faust and aiokafka outlive their app after a crash and cancellation, and asyncio waits for all tasks.
    """
    import asyncio

    status = await command
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    _, running = await asyncio.wait(tasks, timeout=END_S) if tasks else ((), ())
    if running:
        logging.getLogger(__name__).debug("%d tasks do not end", len(running))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


class OneLine(logging.Formatter):
    """Formats a log record as one line, whatever texts it contains; a traceback follows indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The record's line."""
        return printable(super().formatMessage(record), limit=LINE)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The exception's traceback, indented."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """The stack, indented."""
        return _indented(stack_info)


def _indented(text: str) -> str:
    return textwrap.indent(printable(text, lines=True, limit=16 * LINE), "  ", lambda _: True)


def _is_relevant(record: logging.LogRecord) -> bool:
    """False for the lines that every Faust service logs at its start and stop, and every Kafka client while a new
    group's coordinator starts: 40 lines at each start of a fleet, without information.
    """
    text = str(record.msg)
    return not (
        (record.levelno == logging.INFO and text.startswith(("[^", "Consumer shutting down")))
        or (text.startswith("Group Coordinator Request failed") and "CoordinatorNotAvailable" in record.getMessage())
    )


def _log(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    if level != "DEBUG":
        handler.addFilter(_is_relevant)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("aiokafka", "faust", "mode", "botocore", "asyncio", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING if level != "DEBUG" else logging.INFO)
    # mode warns of each commit that takes longer than its interval; one that hangs shows in the lag.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
