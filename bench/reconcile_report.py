"""The figures of bench/reconcile.py as Markdown and as a plot."""

from __future__ import annotations

from agents.text.score import NORMALISER

HEAD = f"""# Reconciliation: word errors, relative to the best single recognizer of each set

By `make bench-reconcile`, on the shared corpora; every call is scored by a calibration fitted without it (five folds by
call). Pooled over calls. Normaliser: {NORMALISER}. Positive is fewer errors; the
interval is a bootstrap over calls, 95 %; `lowest` is the set of recognizers that gains least.

| recognizers | sets | ROVER | longest word | **ours** | interval | lowest | oracle |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

PROBABILITIES = """
## Probabilities

| recognizers | words | expected calibration error | share of the wrong words in the 10 % least probable |
| --- | --- | --- | --- |
"""

LEFT_OUT = """
## A recognizer that was left out of the fit

Fitted on three folds of calls without it, measured on the other two; beside it the same sets and calls with it known.

| recognizers | left out | known |
| --- | --- | --- |
"""

COST = """
## An hour of speech

| recognizers | seconds | process at most |
| --- | --- | --- |
"""

SETS = """
## Every set

Word error rates in percent.

| set | each recognizer | ROVER | longest | **ours** | oracle | gain |
| --- | --- | --- | --- | --- | --- | --- |
"""


def report(found: dict) -> str:
    """The tables as Markdown."""
    summary = [
        (group, s["sets"], *(_percent(s[way]) for way in ("ROVER", "longest")), f"**{_percent(s['ours'])}**",
         " to ".join(map(_percent, s["interval"])), _percent(s["lowest"]), _percent(s["oracle"]))
        for group, s in found["summary"].items()
    ]  # fmt: skip
    reliability = [
        (group, n, f"{error:.3f}", _percent(share)) for group, (n, error, share) in found["reliability"].items()
    ]
    left_out = [(group, _percent(out), _percent(known)) for group, (out, known) in found["left out"].items()]
    cost = [(size, f"{seconds:.3f}", f"{mb:.0f} MB") for size, seconds, mb in found["cost"]]
    sets = [
        (s["set"], " / ".join(map(_rate, s["single"])), _rate(s["ROVER"]), _rate(s["longest"]),
         f"**{_rate(s['ours'])}**", _rate(s["oracle"]), _percent(s["gain"]))
        for s in found["sets"]
    ]  # fmt: skip
    parts = ((HEAD, summary), (PROBABILITIES, reliability), (LEFT_OUT, left_out), (COST, cost), (SETS, sets))
    return "".join(head + "".join(map(_row, rows)) for head, rows in parts)


def _row(cells: tuple[object, ...]) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rate(share: float) -> str:
    return f"{100 * share:.2f}"


#: The plot's measures: where bars start, height of a row, width of one percent.
LEFT, STEP, SCALE = 430, 17, 9.0
TITLE = "fewer word errors than the best recognizer of the set, in %: reconciled (dark), perfect choice (light)"


def plot(found: dict) -> str:
    """The gain of every set as SVG: a bar each, on the oracle's."""
    sets = found["sets"]
    height = STEP * len(sets) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="940" height="{height}" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18">{TITLE}</text>',
    ]
    for at in (0, 10, 20, 30, 40, 50):
        x = LEFT + at * SCALE
        parts.append(f'<line x1="{x}" y1="30" x2="{x}" y2="{height - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{height - 6}">{at}</text>')
    for number, s in enumerate(sets):
        y = 32 + number * STEP
        parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{s["set"]}</text>')
        parts.append(_bar(y, STEP - 4, 1 - s["oracle"] / min(s["single"]), "#cfe3f3"))
        parts.append(_bar(y + 2, STEP - 8, s["gain"], "#1f6fb2"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(y: int, height: int, share: float, colour: str) -> str:
    return f'<rect x="{LEFT}" y="{y}" width="{max(100 * share * SCALE, 0):.1f}" height="{height}" fill="{colour}"/>'
