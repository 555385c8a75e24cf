"""`make bench-long`: a recording of 100 minutes and 96 MB through both vendors' protocols, and the memory that takes.

The recording is made here: an MP3 of tones in sentences of a dozen, under a little noise. Both vendors' doubles hear
tones, so every word of the transcript is known: 15,000, of which AssemblyAI's double gets one in twenty wrong. It goes
from an S3 server to AssemblyAI by a presigned URL, which the double follows, twice through the same worker; then from a
folder by a streamed upload; then from S3 with one worker for every role. Everything but the vendors is real.

Peaks are the kernel's (VmHWM), so none is missed; what a worker and its children have at once is the sum of their PSS,
looked at ten times a second. Figures go to bench/results/long.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import aiokafka
import numpy as np

from agents.fleet.environment import from_env
from agents.fleet.servers import open_store
from bench.__main__ import Figures
from bench.processes import command, family, peak_mb, share_mb
from schemas import blob_names
from schemas.words import Hypothesis, Reconciliation, adapter
from tests.servers.s3 import OWNER, REGION, S3Server, server_in
from tests.system.harness import CLOUD, Site, Worker, roles_with, site

RESULTS = Path(__file__).parent / "results" / "long.md"
BUCKET, TENANT = "recordings", "acme"
ROLES = roles_with(CLOUD)

#: MB that a worker may have resident, at most.
AIM_MB = 300
#: Seconds that the recording may take.
PATIENCE_S = 900.0

#: Hertz, and bits a second, of the recording.
RATE, BITS = 44_100, 128_000
#: Seconds of a word, from word to word, and of a sentence of so many words.
WORD_S, PACE_S, SENTENCE_S, SENTENCE = 0.2, 0.35, 4.8, 12
#: Of so many words, AssemblyAI's double hears one wrong.
SLIP = 20


def script(minutes: float) -> list[str]:
    """What is said: each word a tone's name, of 25 that are well apart."""
    count = SENTENCE * int(minutes * 60 / SENTENCE_S)
    return [f"f{300 + 40 * n}" for n in np.random.default_rng(4711).integers(0, 25, count)]


def record(path: Path, words: list[str]) -> None:
    """An MP3 of the words, a sentence at a time. Takes a second a minute."""
    import av

    chance = np.random.default_rng(42)
    times = np.arange(round(WORD_S * RATE)) / RATE
    with av.open(str(path), "w", format="mp3") as file:
        stream = file.add_stream("libmp3lame", rate=RATE, layout="mono", options={"compression_level": "9"})
        stream.bit_rate = BITS
        for first in range(0, len(words), SENTENCE):
            sound = chance.normal(0.0, 0.002, round(SENTENCE_S * RATE))  # without it, FLAC makes next to nothing of it
            for place, word in enumerate(words[first : first + SENTENCE]):
                begin = round((0.3 + place * PACE_S) * RATE)
                sound[begin : begin + len(times)] += 0.3 * np.sin(2 * np.pi * int(word[1:]) * times)
            frame = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16).reshape(1, -1), "s16", "mono")
            frame.rate = RATE
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


@dataclass
class Memory:
    """Watches workers and their children: the most that each had, and that each worker had with its children, in MB."""

    workers: dict[str, int]
    #: By worker, what runs: "itself" or a child's module.
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)
    together: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """For ever."""
        while True:
            for name, pid in self.workers.items():
                self._look(name, pid)
            await asyncio.sleep(0.1)

    def _look(self, name: str, pid: int) -> None:
        members = {member: command(member) for member in family(pid)}
        peaks = self.peaks.setdefault(name, {})
        for member, line in members.items():
            # A child that has just been forked still looks like its parent, and has its parent's memory.
            if member == pid or (len(line) > 2 and line != members[pid]):
                what = "itself" if member == pid else line[2]
                peaks[what] = max(peaks.get(what, 0.0), peak_mb(member))
        self.together[name] = max(self.together.get(name, 0.0), sum(map(share_mb, members)))


@dataclass(frozen=True)
class Recording:
    """What is transcribed, and what is said in it."""

    path: Path
    words: list[str]
    sha256: str


@contextlib.asynccontextmanager
async def working(here: Site, storage: dict[str, str], *, apart: bool = False) -> AsyncIterator[list[Worker]]:
    """Workers on that storage, all in one process or each role in its own; at the end they are told to stop."""
    here.common = storage
    number = len(here.workers)
    groups = [(role,) for role in ROLES] if apart else [ROLES]
    workers = [here.worker(*group, name=f"{'all' if group == ROLES else group[0]}-{number}") for group in groups]
    for worker in workers:
        await worker.start_plain()
    await asyncio.gather(*(worker.ready(120) for worker in workers))
    yield workers
    for worker in workers:
        worker.signal(signal.SIGTERM)
    for worker in workers:
        await worker.ended(30)


async def transcribed(here: Site, uri: str, patience_s: float) -> tuple[dict[str, Any], float]:
    """Announce a recording; the event that says where its transcript is, and the seconds until it came."""
    job, kafka = str(uuid.uuid4()), here.kafka.bootstrap_servers
    topics = ("persisted", "job.failed")
    consumer = aiokafka.AIOKafkaConsumer(*topics, bootstrap_servers=kafka, isolation_level="read_committed")
    upload = {"tenant_id": TENANT, "job_id": job, "audio_uri": uri, "filename": "long.mp3"}
    async with consumer, aiokafka.AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        began = time.monotonic()
        await producer.send_and_wait("audio.uploaded", json.dumps(upload).encode(), key=job.encode())
        async with asyncio.timeout(patience_s):
            async for end in consumer:
                event = json.loads(end.value)
                if event["job_id"] == job and end.topic == "persisted":
                    return event, time.monotonic() - began
                if event["job_id"] == job:
                    raise RuntimeError(f"the recording was not transcribed: {event}")
    raise RuntimeError("the consumer has ended")


async def complete(worker: Worker, event: dict[str, Any], words: list[str]) -> int:
    """How many words of the transcript are as they were said. RuntimeError where one is missing, invented, out of its
    place, or where a recognizer's are.
    """
    store = open_store(from_env(worker.env))
    try:
        uris = [store.uri(blob_names.hypothesis(TENANT, event["job_id"], 1, name)) for name in CLOUD]
        said = [adapter(Hypothesis).validate_json(await store.get(uri)).words for uri in uris]
        decided = adapter(Reconciliation).validate_json(await store.get(event["raw_transcript_uri"]))
    finally:
        await store.close()
    wrong, right = ([word.text for word in heard] for heard in said)
    chosen = [decision.chosen.text for decision in decided.decisions if decision.chosen.text is not None]
    slips = sum(a != b for a, b in zip(wrong, words, strict=False))
    if right != words or (len(wrong), slips) != (len(words), len(words) // SLIP):
        raise RuntimeError(f"not heard as it was said: {len(right)} and {len(wrong)} of {len(words)}, {slips} wrong")
    if len(chosen) != len(words) or any(a not in pair for a, *pair in zip(chosen, wrong, right, strict=True)):
        raise RuntimeError(f"the transcript has words missing, or that nobody heard there: {len(chosen)}")
    return sum(a == b for a, b in zip(chosen, words, strict=True))


async def fetched(here: Site) -> list[dict[str, Any]]:
    """What AssemblyAI's double got from URLs."""
    url = f"http://127.0.0.1:{here.assemblyai.port}/fetched"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        found: list[dict[str, Any]] = await answer.json()
        return found


async def measured(
    figures: Figures,
    here: Site,
    recording: Recording,
    uri: str,
    storage: dict[str, str],
    what: str,
    *,
    times: int = 1,
    apart: bool = False,
) -> None:
    """The recording, one or more times through the same workers."""
    whole, pieces, got = len(here.assemblyai.lines()), len(here.google.lines()), len(await fetched(here))
    async with working(here, storage, apart=apart) as workers:
        memory = Memory({worker.name.rpartition("-")[0]: worker.pid for worker in workers})
        before = {name: peak_mb(pid) for name, pid in memory.workers.items()}
        watching = asyncio.create_task(memory.run())
        for number in range(times):
            event, seconds = await transcribed(here, uri, PATIENCE_S)
            right = await complete(workers[0], event, recording.words)
            figures.add(f"{what}{', again' * number}: announced to persisted", f"{seconds:.0f} s")
            figures.add("words; as they were said", f"{event['word_count']}; {right}", f"{len(recording.words)}; -")
            if not apart:
                _memory(figures, memory, before)
        watching.cancel()
    if apart:
        _memory(figures, memory, before)
    charged = here.google.lines()[pieces:]
    most = max(Counter(line["sha256"] for line in charged).values())
    figures.add("charges: AssemblyAI", f"{len(here.assemblyai.lines()) - whole}", f"{times}")
    figures.add("charges: Google, of each piece at most", f"{len(charged)}, {most}", f"-, {times}")
    figures.add("billed by Google", f"{sum(line['billed'] for line in charged)} s")
    for answer in (await fetched(here))[got:]:
        same = "the recording" if answer["sha256"] == recording.sha256 else "NOT the recording"
        figures.add("AssemblyAI got by the presigned URL", f"{answer['bytes'] / 1e6:.1f} MB, {same}", "the recording")


def _memory(figures: Figures, memory: Memory, before: dict[str, float]) -> None:
    for name, peaks in memory.peaks.items():
        whose = "the worker" if name == "all" else name
        for part, most in peaks.items():
            if part == "itself":
                aim = f"{AIM_MB} MB"
                figures.add(f"most resident so far: {whose} (when idle)", f"{most:.0f} MB ({before[name]:.0f})", aim)
            else:
                figures.add(f"most resident so far: its child {part}", f"{most:.0f} MB")
        if len(peaks) > 1:
            figures.add(f"{whose} and its children together (PSS)", f"{memory.together[name]:.0f} MB", f"{AIM_MB} MB")


async def run(minutes: float, folder: Path) -> Figures:
    """The measurements, one after the other on the same servers."""
    figures, words, path = Figures(), script(minutes), folder / "long.mp3"
    await asyncio.to_thread(record, path, words)
    with path.open("rb") as file:
        recording = Recording(path, words, hashlib.file_digest(file, "sha256").hexdigest())
    size = path.stat().st_size
    figures.add("the recording, an MP3", f"{minutes:.0f} min, {size / 1e6:.1f} MB")
    s3 = server_in(folder)
    s3.start()
    try:
        remote, uri = bucket(s3, path)
        async with site(recognizers=CLOUD) as here:
            await here.assemblyai.switch(fetch=True, tones=True, slip=SLIP)
            await measured(figures, here, recording, uri, remote, "S3, presigned URL", times=2)
            local = {"CONCORD_AUDIO_ROOTS": str(folder)}
            await measured(figures, here, recording, path.as_uri(), local, "a folder, streamed upload")
            await measured(figures, here, recording, uri, remote, "S3, a worker for each role", apart=True)
    finally:
        s3.kill()
    return figures


def bucket(s3: S3Server, path: Path) -> tuple[dict[str, str], str]:
    """A new bucket with the recording in it: the environment of workers that store there, and the recording's URI."""
    client, key = s3.client(), f"{TENANT}/incoming/{path.name}"
    client.create_bucket(Bucket=BUCKET)
    with path.open("rb") as file:
        client.put_object(Bucket=BUCKET, Key=key, Body=file)
    client.close()
    keys = {"AWS_ACCESS_KEY_ID": OWNER["access_key"], "AWS_SECRET_ACCESS_KEY": OWNER["secret_key"]}
    where = {"S3_BUCKET_NAME": BUCKET, "S3_REGION": REGION, "S3_ENDPOINT_URL": s3.endpoint}
    return where | keys, f"s3://{BUCKET}/{key}"


def main() -> None:
    """Run, print, write down."""
    parser = argparse.ArgumentParser(
        "python -m bench.long", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=100.0, help="of the recording (default %(default)s)")
    wanted = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="concord-bench-") as folder:
        Path(folder).chmod(0o755)
        figures = asyncio.run(run(wanted.minutes, Path(folder)))
    RESULTS.write_text(
        f"`make bench-long`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, a load of {load:.1f} by others.\n\n"
        f"{figures.table()}\n"
    )


if __name__ == "__main__":
    main()
