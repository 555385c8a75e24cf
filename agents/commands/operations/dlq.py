"""`concord dlq`: lists dead letters, shows one, and replays them."""

from __future__ import annotations

import argparse
import contextlib
import re
from typing import TYPE_CHECKING, Any

from agents.commands import reach
from agents.commands.arguments import positive
from agents.commands.operations.dead_letters import DeadLetterTopics, job_id_of, job_key_of, open_dead_letters
from agents.commands.operations.record_text import letter_json, letter_rows, letter_text, position_text
from agents.commands.operations.replay import plan_replay
from agents.runtime.kafka import client as clients
from schemas.errors import InvalidInput
from schemas.ids import EVERY_TENANT
from schemas.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.fleet.settings import Settings
    from agents.runtime.kafka.client import Kafka
    from schemas.envelope import Record
    from schemas.jobs.rows import Job
    from schemas.messages import Message
    from sinks.postgres.database import Postgres
    from sinks.postgres.reader import Reader

DESCRIPTION = """Records that could not be handled are kept, byte for byte, on `<topic>.dlq`, with the reason.

  concord dlq list                                 the newest of every dead letter topic
  concord dlq show audio.uploaded 17               one of them, whole
  concord dlq replay audio.uploaded 17 18          put two back
  concord dlq replay intake.due --all              put all back whose job has not been completed meanwhile"""

REPLAY = """Puts dead letters back: key, value and headers unchanged, on their original topic.

A record of a job that has failed is not put back; that job is run again instead (a new run, on `intake.due`).
Safe to repeat: a dead letter that is replayed twice is handled once.

  concord dlq replay audio.uploaded 17
  concord dlq replay asr.results --all --dry-run"""


def add(commands: Any) -> None:
    """Add the command and its three verbs to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("dlq", description=DESCRIPTION, formatter_class=raw)
    verbs = command.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the newest dead letters", description=DESCRIPTION, formatter_class=raw)
    listing.add_argument("--topic", metavar="T", help="only those of this topic")
    listing.add_argument("--limit", type=positive, default=20, help="how many of each topic, newest last (default: 20)")
    listing.add_argument("--json", action="store_true", help="one JSON object for each dead letter")
    listing.set_defaults(run=run_list)
    show = verbs.add_parser("show", help="one dead letter, whole", description=DESCRIPTION, formatter_class=raw)
    show.add_argument("topic", metavar="TOPIC", help="e.g. audio.uploaded (or audio.uploaded.dlq)")
    show.add_argument("offset", metavar="OFFSET", type=position, help="as `list` shows it")
    show.add_argument("--json", action="store_true", help="as JSON, key and value in base64")
    show.set_defaults(run=run_show)
    replay = verbs.add_parser("replay", help="put dead letters back", description=REPLAY, formatter_class=raw)
    replay.add_argument("topic", metavar="TOPIC", help="e.g. audio.uploaded (or audio.uploaded.dlq)")
    replay.add_argument("offset", metavar="OFFSET", nargs="*", type=position, help="as `list` shows them")
    replay.add_argument("--all", action="store_true", help="all whose job has not been completed meanwhile")
    replay.add_argument("--dry-run", action="store_true", help="only print what would be done")
    replay.set_defaults(run=run_replay)


def position(text: str) -> tuple[int, int]:
    """Partition and offset from OFFSET or PARTITION/OFFSET. Concord creates dead letter topics with one partition,
    operators may have more. Raises ArgumentTypeError.
    """
    match = re.fullmatch(r"(?:(\d+)/)?(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no offset; `concord dlq list` shows them")
    return int(match[1] or 0), int(match[2])


async def run_list(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the newest dead letters of each topic."""
    where = reach.kafka(reach.addressed(settings))
    count = 0
    async with open_dead_letters(where) as dead_letters:
        for topic in [dead_letters.resolve(arguments.topic)] if arguments.topic else dead_letters.names:
            letters = await dead_letters.newest(topic, arguments.limit)
            count += len(letters)
            if letters:
                rows = [letter_json(letter) for letter in letters] if arguments.json else letter_rows(topic, letters)
                print("\n".join(rows), flush=True)
    if not count and not arguments.json:
        print("no dead letters")
    return 0


async def run_show(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print one dead letter, whole."""
    where = reach.kafka(reach.addressed(settings))
    async with open_dead_letters(where) as dead_letters:
        letter = await dead_letters.at(dead_letters.resolve(arguments.topic), *arguments.offset)
    print(letter_json(letter, whole=True) if arguments.json else letter_text(letter))
    return 0


async def run_replay(arguments: argparse.Namespace, settings: Settings) -> int:
    """Replay dead letters, and print what became of each."""
    if bool(arguments.offset) == arguments.all:
        raise InvalidInput("say which: offsets as `concord dlq list` shows them, or --all")
    settings = reach.addressed(settings)
    where = reach.kafka(settings)
    async with contextlib.AsyncExitStack() as stack:
        database, reader = await stack.enter_async_context(reach.both(settings))
        dead_letters = await stack.enter_async_context(open_dead_letters(where))
        topic = dead_letters.resolve(arguments.topic)
        letters = await _selected(dead_letters, topic, arguments.offset)
        replays = [
            plan_replay(letter, await _job(letter, database, reader), skip_completed=arguments.all)
            for letter in letters
        ]
        if not arguments.dry_run:
            await _send([replay.message for replay in replays if replay.message is not None], where)
    suffix = " (dry run)" if arguments.dry_run else ""
    for letter, replay in zip(letters, replays, strict=True):
        print(f"{letter.topic} {position_text(letter)}: {printable(replay.summary)}{suffix}")
    if not letters:
        print(f"{topic} is empty")
    return 0


async def _selected(dead_letters: DeadLetterTopics, topic: str, positions: Sequence[tuple[int, int]]) -> list[Record]:
    """The dead letters at these positions; all of the topic if there is none."""
    if positions:
        return [await dead_letters.at(topic, *position) for position in positions]
    return await dead_letters.everything(topic)


async def _send(messages: Sequence[Message], where: Kafka) -> None:
    async with reach.started(where, clients.producer(where)) as producer:
        for message in messages:
            headers = list(message.headers)
            await producer.send_and_wait(message.topic, value=message.value, key=message.key, headers=headers)


async def _job(letter: Record, database: Postgres, reader: Reader) -> Job | None:
    """The job that a dead letter is about. A name that only the record's key has must be that of one tenant's job."""
    key, name = job_key_of(letter), job_id_of(letter)
    if key is not None or not name:
        return await database.job(*key) if key else None
    jobs = await reader.find(EVERY_TENANT, name)
    return jobs[0] if len(jobs) == 1 else None
