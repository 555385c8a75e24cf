"""`concord reconcile` and `concord score`: reconcile and score transcripts in files, without a fleet."""

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
from agents.text.calibration.calibrate import shipped
from agents.text.reconcile import reconcile
from agents.text.score import Score, bootstrap, interval, pooled, score
from schemas.errors import InvalidInput, SettingsError
from schemas.printable import printable, printable_json
from schemas.texts import joined
from schemas.words import Hypothesis, Reconciliation, Word, adapter
from sinks.memory.database import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agents.fleet.settings import Settings
    from agents.text.spelling import Spelling

#: The name of the result's row; no recognizer can have it.
RESULT = "= reconciled"

RECONCILE = """Reconciles the transcripts of several recognizers into one, and shows where they disagree.

  concord reconcile call.json.gz                         a call in the corpora's format
  concord reconcile whisper-base.json whisper-tiny.json  our own hypotheses of one recording
  concord reconcile STORAGE/acme/JOB_ID                  a job's folder in local storage
  concord reconcile call.json.gz --format html > call.html

A call: {"id", "reference"?, "hypotheses": {recognizer: [[word, start_ms|null, end_ms|null], ...]}}, gzipped or not.
A hypothesis: the format of Concord's hypotheses/RECOGNIZER.json. A raw_transcript.json is shown without being
reconciled again."""

SCORE = """Compares the transcripts of recognizers, and the reconciled one, with the spoken text.

  concord score shared/corpora/primock57 --recognizers assemblyai,deepgram
  concord score STORAGE/acme/JOB_ID --reference said.txt

Word error rates on Whisper's English normalisation, pooled over calls, with a 95 % interval (bootstrap over calls)."""


def add(commands: Any) -> None:
    """Add the two commands to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    one = commands.add_parser("reconcile", description=RECONCILE, formatter_class=raw)
    one.add_argument(
        "files", nargs="+", metavar="FILE", type=Path, help="a call, hypotheses of one recording, or a job's folder"
    )
    one.add_argument("--recognizers", metavar="A,B", type=_names, help="only these (default: all)")
    one.add_argument(
        "--format", choices=("text", "json", "html"), default="text", help="text (default), the apparatus, or a page"
    )
    one.add_argument(
        "--adjudicate", action="store_true", help="have Gemini adjudicate disputed words (GEMINI_API_KEY; billed)"
    )
    one.set_defaults(run=run)
    many = commands.add_parser("score", description=SCORE, formatter_class=raw)
    many.add_argument("files", nargs="+", metavar="FILE", type=Path, help="calls, or folders of calls")
    many.add_argument(
        "--recognizers", metavar="A,B", type=_names, help="only these (default: all that transcribed every call)"
    )
    many.add_argument("--reference", metavar="TEXT", type=Path, help="the spoken text, for files without it")
    many.add_argument("--json", action="store_true", help="the figures as JSON")
    many.set_defaults(run=run_score)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class Call:
    """One recording: its hypotheses, or a reconciliation that was stored earlier; and the spoken text, if known."""

    name: str
    hypotheses: tuple[Hypothesis, ...] = ()
    reference: str | None = None
    stored: Reconciliation | None = None

    def only(self, recognizers: Sequence[str] | None) -> Call:
        """The call with the hypotheses of these recognizers; None for all. Raises InvalidInput if one is missing."""
        if recognizers is None:
            return self
        by_name = {h.provider: h for h in self.hypotheses}
        missing = [name for name in recognizers if name not in by_name]
        if missing:
            raise InvalidInput(f"{self.name}: no hypothesis of {', '.join(missing)}; there are {', '.join(by_name)}")
        return replace(self, hypotheses=tuple(by_name[name] for name in recognizers))

    def result(self, spelling: Spelling = "recognizer", rates: Mapping[str, float] | None = None) -> Reconciliation:
        """The transcript, with numbers in this spelling, by recognizers with these word error rates (0 to 1, by name).
        Raises InvalidInput for a call without hypotheses.
        """
        if self.stored is not None:
            return self.stored
        if not self.hypotheses:
            raise InvalidInput(f"{self.name}: there is no hypothesis in it")
        return reconcile(self.hypotheses, shipped().with_rates(rates or {}), spelling)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Reconcile one recording and print the result."""
    call = one_call(arguments.files).only(arguments.recognizers)
    result = await asyncio.to_thread(call.result, settings.numbers, settings.error_rates)
    if arguments.adjudicate:
        result = await _adjudicated(result, settings)
        print("\n".join(map(printable, result.notes)), file=sys.stderr)
    if arguments.format == "json":
        document = orjson.dumps(adapter(Reconciliation).dump_python(result, mode="json"), option=orjson.OPT_INDENT_2)
        print(printable_json(document.decode()))
    elif arguments.format == "html":
        print(transcript.page(result, call.name))
    else:
        width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        print(transcript.plain(result, color=sys.stdout.isatty(), width=width))
        print(f"\n{textwrap.fill(transcript.facts(result), width)}")
    return 0


async def _adjudicated(result: Reconciliation, settings: Settings) -> Reconciliation:
    """The result after adjudication. Raises SettingsError without a key."""
    from agents.fleet.models.opening import open_adjudicator

    adjudicator = open_adjudicator(settings)
    if adjudicator is None:
        raise SettingsError("--adjudicate: GEMINI_API_KEY is not set")
    try:
        spans = SpanAdjudicator(adjudicator, MemoryDatabase(), settings.gemini_spans)
        return await spans.adjudicated(result, RunId("local", "local", 1))
    finally:
        await adjudicator.close()


async def run_score(arguments: argparse.Namespace, _: Settings) -> int:
    """Score the recognizers and the result over some calls, and print the rates."""
    calls = [call for path in arguments.files for call in load(path)]
    if arguments.reference is not None:
        calls = [replace(_merged(calls), reference=_text(arguments.reference))]
    scores = await asyncio.to_thread(all_scores, calls, arguments.recognizers)
    if arguments.json:
        document = {name: figures(by_call) for name, by_call in scores.items()}
        print(printable_json(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()))
    else:
        print(table(scores))
    return 0


def one_call(paths: Sequence[Path]) -> Call:
    """The one recording that these files are about. Raises InvalidInput if there are several, or as `load`."""
    calls = [call for path in paths for call in load(path)]
    return _merged(calls)


def _merged(calls: Sequence[Call]) -> Call:
    """One call of several files with one hypothesis each. Raises InvalidInput for several calls."""
    if len(calls) == 1:
        return calls[0]
    if any(len(call.hypotheses) != 1 for call in calls):
        raise InvalidInput(
            f"these are {len(calls)} calls; give one, or hypotheses of one recording (`concord score` takes many)"
        )
    hypotheses = tuple(h for call in calls for h in call.hypotheses)
    names = [h.provider for h in hypotheses]
    if len(set(names)) != len(names):
        raise InvalidInput(f"a recognizer is there twice: {', '.join(sorted(names))}")
    return Call(calls[0].name, hypotheses)


def load(path: Path) -> list[Call]:
    """The calls in a file or a folder. Raises InvalidInput for what cannot be read as one."""
    if path.is_dir():
        return _load_folder(path)
    try:
        contents = path.read_bytes()
        data = orjson.loads(gzip.decompress(contents) if contents[:2] == b"\x1f\x8b" else contents)
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
    files = sorted(
        file for file in (folder if folder.is_dir() else path).iterdir() if file.name.endswith((".json", ".json.gz"))
    )
    if not files:
        raise InvalidInput(f"{path}: no .json or .json.gz file in this folder")
    calls = [call for file in files for call in load(file)]
    return [replace(_merged(calls), name=path.name)] if folder.is_dir() else calls


def _call(path: Path, data: dict[str, Any]) -> Call:
    if "decisions" in data:
        return Call(path.name, stored=cast("Reconciliation", adapter(Reconciliation).validate_python(data)))
    if "words" in data:
        hypothesis = cast("Hypothesis", adapter(Hypothesis).validate_python(data))
        return Call(hypothesis.provider, (hypothesis,))
    hypotheses = tuple(
        Hypothesis(name, tuple(Word(str(text), start, end) for text, start, end in words))
        for name, words in data["hypotheses"].items()
    )
    return Call(str(data.get("id") or path.name.partition(".")[0]), hypotheses, data.get("reference"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"{path}: cannot be read as text ({exc})") from exc


def all_scores(calls: Sequence[Call], recognizers: Sequence[str] | None = None) -> dict[str, list[Score]]:
    """By name of a recognizer, or `RESULT`, its score of each call.

    Raises InvalidInput if a call has no reference, or lacks a recognizer's hypothesis.
    """
    for call in calls:
        if call.reference is None:
            raise InvalidInput(f"{call.name}: it has no spoken text; give it with --reference TEXT")
    names = recognizers or _common_recognizers(calls)
    if not names:
        raise InvalidInput("no recognizer has transcribed all of these calls; name some with --recognizers")
    by_call = [_scores(call.only(names)) for call in calls]
    return {name: [scores[name] for scores in by_call] for name in (*names, RESULT)}


def _scores(call: Call) -> dict[str, Score]:
    """The score of each hypothesis of a call, and of the result."""
    texts = {h.provider: joined(word.text for word in h.words) for h in call.hypotheses}
    texts[RESULT] = call.result().text
    return {name: score(call.reference or "", text) for name, text in texts.items()}


def _common_recognizers(calls: Sequence[Call]) -> list[str]:
    """The recognizers that have transcribed all of these calls."""
    return sorted(set.intersection(*({h.provider for h in call.hypotheses} for call in calls)))


def figures(scores: Sequence[Score]) -> dict[str, Any]:
    """The pooled score with its interval and counts, as a JSON document."""
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
    """Word error rates as a table, with the relative gain of the result below."""
    rows = [f"{'':<24} {'WER':>8}   {'95 % interval':<17} {'subst.':>7} {'insert.':>7} {'delet.':>7}"]
    for name, by_call in scores.items():
        total, (low, high) = pooled(by_call), interval(by_call)
        counts = f"{total.substitutions:7} {total.insertions:7} {total.deletions:7}"
        rows.append(f"{name:<24} {total.rate:8.2%}   {f'{low:.2%} to {high:.2%}':<17} {counts}")
    result = scores[RESULT]
    calls = f"{len(result)} call{'s' if len(result) != 1 else ''}"
    rows += ["", f"{calls}, {pooled(result).words} words; normaliser: {result[0].normaliser}"]
    if len(scores) > 2:
        rows.append(gain(scores))
    return "\n".join(rows)


def gain(scores: dict[str, list[Score]]) -> str:
    """The result's relative change of errors against the best recognizer, with its interval, in one sentence."""
    best = min((name for name in scores if name != RESULT), key=lambda name: pooled(scores[name]).rate)
    of_result, of_best = ([s.errors for s in scores[name]] for name in (RESULT, best))

    def relative(draw: Iterable[int]) -> float:
        errors = sum(of_best[i] for i in draw)
        return (sum(of_result[i] for i in draw) - errors) / max(errors, 1)

    low, high = bootstrap(relative, len(of_result))
    change = relative(range(len(of_result)))
    return f"against the best recognizer ({best}): {change:+.1%} errors ({low:+.1%} to {high:+.1%})"
