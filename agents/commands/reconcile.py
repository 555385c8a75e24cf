"""`concord reconcile` and `concord score`: the reconciler on files, without a fleet."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import shutil
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
from pydantic import ValidationError

from agents.commands.jobs import transcript
from agents.llm.adjudicator import RunId, SpanAdjudicator
from agents.text.reconcile import reconcile
from agents.text.score import Score, bootstrap, interval, pooled, score
from schemas.errors import InvalidInput, SettingsError
from schemas.printable import printable, printable_json
from schemas.words import Hypothesis, Reconciliation, Word, adapter
from sinks.memory.database import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agents.fleet.settings import Settings

#: What the row of the result is called; no recognizer can have this name.
RESULT = "= reconciled"

RECONCILE = """Makes one transcript of several recognizers' and shows where they disagreed.

  concord reconcile call.json.gz                         a call in the corpora's format
  concord reconcile whisper-base.json whisper-tiny.json  our own hypotheses of one recording
  concord reconcile STORAGE/acme/JOB_ID                  a job's folder in local storage
  concord reconcile call.json.gz --format html > call.html

A call: {"id", "reference"?, "hypotheses": {recognizer: [[word, start_ms|null, end_ms|null], ...]}}, gzipped or not.
A hypothesis: what Concord keeps as hypotheses/RECOGNIZER.json. A raw_transcript.json is shown as it was decided."""

SCORE = """Compares recognizers, and what is reconciled from them, with what was really said.

  concord score shared/corpora/primock57 --recognizers assemblyai,deepgram
  concord score STORAGE/acme/JOB_ID --reference said.txt

Word error rates on Whisper's English normalisation, pooled over calls, with a 95 % interval (bootstrap over calls)."""


def add(commands: Any) -> None:
    """The two commands."""
    raw = argparse.RawDescriptionHelpFormatter
    one = commands.add_parser(
        "reconcile", help="make one transcript of several, from files", description=RECONCILE, formatter_class=raw
    )
    one.add_argument(
        "files", nargs="+", metavar="FILE", type=Path, help="a call, hypotheses of one recording, or a job's folder"
    )
    one.add_argument("--recognizers", metavar="A,B", type=_names, help="only these (default: all)")
    one.add_argument(
        "--format", choices=("text", "json", "html"), default="text", help="text (default), the apparatus, or a page"
    )
    one.add_argument(
        "--adjudicate", action="store_true", help="ask Gemini about disputed words (GEMINI_API_KEY; bills)"
    )
    one.set_defaults(run=run)
    many = commands.add_parser(
        "score", help="word error rates against what was said", description=SCORE, formatter_class=raw
    )
    many.add_argument("files", nargs="+", metavar="FILE", type=Path, help="calls, or folders of calls")
    many.add_argument(
        "--recognizers", metavar="A,B", type=_names, help="only these (default: all that heard every call)"
    )
    many.add_argument("--reference", metavar="TEXT", type=Path, help="what was said, for files that do not hold it")
    many.add_argument("--json", action="store_true", help="the figures as JSON")
    many.set_defaults(run=run_score)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class Call:
    """One recording: what was heard, perhaps what was said, perhaps what was decided earlier."""

    name: str
    hypotheses: tuple[Hypothesis, ...] = ()
    reference: str | None = None
    decided: Reconciliation | None = None

    def only(self, recognizers: Sequence[str] | None) -> Call:
        """The call as these recognizers heard it."""
        if recognizers is None:
            return self
        heard = {h.provider: h for h in self.hypotheses}
        missing = [name for name in recognizers if name not in heard]
        if missing:
            raise InvalidInput(f"{self.name}: no hypothesis of {', '.join(missing)}; there are {', '.join(heard)}")
        return replace(self, hypotheses=tuple(heard[name] for name in recognizers))

    def result(self) -> Reconciliation:
        """The reconciled transcript."""
        if self.decided is not None:
            return self.decided
        if not self.hypotheses:
            raise InvalidInput(f"{self.name}: there is no hypothesis in it")
        return reconcile(self.hypotheses)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Reconcile one recording and show the result."""
    call = one_call(arguments.files).only(arguments.recognizers)
    decided = await asyncio.to_thread(call.result)
    if arguments.adjudicate:
        decided = await _adjudicated(decided, settings)
        print("\n".join(map(printable, decided.notes)), file=sys.stderr)
    if arguments.format == "json":
        dumped = orjson.dumps(adapter(Reconciliation).dump_python(decided, mode="json"), option=orjson.OPT_INDENT_2)
        print(printable_json(dumped.decode()))
    elif arguments.format == "html":
        print(transcript.page(decided, call.name))
    else:
        width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        print(transcript.plain(decided, color=sys.stdout.isatty(), width=width))
        print(f"\n{textwrap.fill(transcript.facts(decided), width)}")
    return 0


async def _adjudicated(decided: Reconciliation, settings: Settings) -> Reconciliation:
    from agents.fleet.build import open_adjudicator

    adjudicator = open_adjudicator(settings)
    if adjudicator is None:
        raise SettingsError("--adjudicate: GEMINI_API_KEY is not set")
    try:
        spans = SpanAdjudicator(adjudicator, MemoryDatabase(), settings.gemini_spans)
        return await spans.adjudicated(decided, RunId("local", "local", 1))
    finally:
        await adjudicator.close()


async def run_score(arguments: argparse.Namespace, _: Settings) -> int:
    """Score recognizers and the result over some calls."""
    calls = [call for path in arguments.files for call in load(path)]
    if arguments.reference is not None:
        calls = [replace(_merged(calls), reference=_text(arguments.reference))]
    scores = await asyncio.to_thread(scored, calls, arguments.recognizers)
    if arguments.json:
        print(
            printable_json(
                orjson.dumps({name: figures(s) for name, s in scores.items()}, option=orjson.OPT_INDENT_2).decode()
            )
        )
    else:
        print(table(scores))
    return 0


def one_call(paths: Sequence[Path]) -> Call:
    """The one recording that these files are about."""
    calls = [call for path in paths for call in load(path)]
    return _merged(calls)


def _merged(calls: Sequence[Call]) -> Call:
    """Several files with a hypothesis each are one call."""
    if len(calls) == 1:
        return calls[0]
    if any(len(call.hypotheses) != 1 for call in calls):
        raise InvalidInput(
            f"these are {len(calls)} calls; give one, or hypotheses of one recording (`concord score` takes many)"
        )
    heard = tuple(h for call in calls for h in call.hypotheses)
    names = [h.provider for h in heard]
    if len(set(names)) != len(names):
        raise InvalidInput(f"a recognizer is there twice: {', '.join(sorted(names))}")
    return Call(calls[0].name, heard)


def load(path: Path) -> list[Call]:
    """The calls in a file or a folder."""
    if path.is_dir():
        return _load_folder(path)
    try:
        packed = path.read_bytes()
        data = orjson.loads(gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed)
    except OSError as exc:
        raise InvalidInput(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    except (ValueError, EOFError) as exc:
        raise InvalidInput(f"{path}: is not JSON ({exc})") from exc
    try:
        return [_call(path, data)]
    except (ValidationError, TypeError, KeyError, ValueError) as exc:
        raise InvalidInput(
            f"{path}: neither a call, a hypothesis nor a raw transcript: see `concord reconcile --help`"
        ) from exc


def _load_folder(path: Path) -> list[Call]:
    folder = path / "hypotheses"
    inside = sorted(
        file for file in (folder if folder.is_dir() else path).iterdir() if file.name.endswith((".json", ".json.gz"))
    )
    if not inside:
        raise InvalidInput(f"{path}: no .json or .json.gz file in this folder")
    calls = [call for file in inside for call in load(file)]
    return [replace(_merged(calls), name=path.name)] if folder.is_dir() else calls


def _call(path: Path, data: dict[str, Any]) -> Call:
    if "decisions" in data:
        return Call(path.name, decided=cast("Reconciliation", adapter(Reconciliation).validate_python(data)))
    if "words" in data:
        heard = cast("Hypothesis", adapter(Hypothesis).validate_python(data))
        return Call(heard.provider, (heard,))
    hypotheses = tuple(
        Hypothesis(name, tuple(Word(str(text), start, end) for text, start, end in words))
        for name, words in data["hypotheses"].items()
    )
    return Call(str(data.get("id") or path.name.partition(".")[0]), hypotheses, data.get("reference"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"{path}: is no text that can be read ({exc})") from exc


def scored(calls: Sequence[Call], recognizers: Sequence[str] | None = None) -> dict[str, list[Score]]:
    """Scores of each recognizer and of the result, a call each."""
    nameless = [call.name for call in calls if call.reference is None]
    if nameless:
        raise InvalidInput(f"{nameless[0]}: what was said is not in it; give it with --reference TEXT")
    common = set.intersection(*({h.provider for h in call.hypotheses} for call in calls))
    names = recognizers or sorted(common)
    if not names:
        raise InvalidInput("no recognizer heard every one of these calls; name some with --recognizers")
    found: dict[str, list[Score]] = {name: [] for name in (*names, RESULT)}
    for call in (call.only(names) for call in calls):
        for heard in call.hypotheses:
            found[heard.provider].append(score(call.reference or "", " ".join(word.text for word in heard.words)))
        found[RESULT].append(score(call.reference or "", call.result().text))
    return found


def figures(scores: Sequence[Score]) -> dict[str, Any]:
    """Pooled figures, for JSON."""
    total = pooled(scores)
    low, high = interval(scores)
    return {
        "wer": round(total.rate, 5),
        "low": round(low, 5),
        "high": round(high, 5),
        "substitutions": total.substitutions,
        "insertions": total.insertions,
        "deletions": total.deletions,
        "words": total.words,
        "calls": len(scores),
        "normaliser": total.normaliser,
    }


def table(scores: dict[str, list[Score]]) -> str:
    """Word error rates for people, the relative gain below."""
    rows = [f"{'':<24} {'WER':>8}   {'95 % interval':<17} {'subst.':>7} {'insert.':>7} {'delet.':>7}"]
    for name, some in scores.items():
        total, (low, high) = pooled(some), interval(some)
        counts = f"{total.substitutions:7} {total.insertions:7} {total.deletions:7}"
        rows.append(f"{name:<24} {total.rate:8.2%}   {f'{low:.2%} to {high:.2%}':<17} {counts}")
    result = scores[RESULT]
    calls = f"{len(result)} call{'s' if len(result) != 1 else ''}"
    rows += ["", f"{calls}, {pooled(result).words} words; normaliser: {result[0].normaliser}"]
    if len(scores) > 2:
        rows.append(gain(scores))
    return "\n".join(rows)


def gain(scores: dict[str, list[Score]]) -> str:
    """How the result compares with the best recognizer."""
    best = min((name for name in scores if name != RESULT), key=lambda name: pooled(scores[name]).rate)
    ours, theirs = ([s.errors for s in scores[name]] for name in (RESULT, best))

    def relative(draw: Iterable[int]) -> float:
        errors = sum(theirs[i] for i in draw)
        return (sum(ours[i] for i in draw) - errors) / max(errors, 1)

    low, high = bootstrap(relative, len(ours))
    return f"against the best recognizer ({best}): {relative(range(len(ours))):+.1%} errors ({low:+.1%} to {high:+.1%})"
