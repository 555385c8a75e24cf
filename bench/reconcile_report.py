"""The figures of bench/reconcile.py as Markdown and as a plot."""

from __future__ import annotations

from agents.text.score import NORMALISER

HEAD = f"""# Reconciliation: word errors, relative to the best single recognizer of each set

By `make bench-reconcile`, on the shared corpora: random sets of recognizers, good with bad. In three rotations, a third
of the calls is scored by a calibration that was fitted on the others, without a third of the recognizers of `primock57`
(those of `earnings21` are all known). Pooled over calls. Normaliser: {NORMALISER}.
Positive is fewer errors; the interval is a bootstrap over calls, 95 %. `close` is the mean of sets whose second best
recognizer has at most 20 % more errors than the best; `worse` is the share of sets with over 1 % more errors than the
best recognizer, `lowest` the set that gains least. `rover` is NIST's own program (SCTK) on the same tokens; a dash says
that it was not installed. `voting` is its rule over our alignment, `longest word` crowd-kit's way with ties over our
alignment.

| recognizers | sets | rover | voting | longest word | **ours** | interval | aim | close | worse | lowest | oracle |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

#: What was wanted: mean gain.
AIMS = {
    "earnings21, 2 recognizers": "no loss",
    "primock57, 2 recognizers": "5.0 %",
    "primock57, 3 recognizers": "10.0 %",
    "primock57, 5 recognizers": "14.0 %",
}

PROBABILITIES = """
## Probabilities

| recognizers | words | expected calibration error | share of the wrong words in the 10 % least probable |
| --- | --- | --- | --- |
"""

MIXING = """
## Disputes of several words

How many are decided for the whole reading of one recognizer; and of those that mix several, in how many the mixture has
more right words than the best of them, as many, and fewer.

| recognizers | disputes | of one recognizer | mixed: better | equal | worse |
| --- | --- | --- | --- | --- | --- |
"""

CURVE = """
## Learning curve

Gain on the calls of the first rotation, by the number of calls fitted on.

"""

REMAINING = """
## What remains

Errors over all sets of a corpus. Answers are yes, okay, oh and their like; names are what the reference capitalises;
common words are said more than once in a thousand.

| corpus | what happened | to a | share of the errors |
| --- | --- | --- | --- |
"""

TRIED = """
## What was tried and left out

Mean gain of 110 pairs, and the pair that gains least, on ten consultations, by a fit that did not know a third of the
recognizers (an earlier stage of this calibration, measured once): what each idea changed.

| idea | before | with it |
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

| set | each recognizer | rover | voting | longest | **ours** | oracle | gain |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


#: Ideas that did not help: mean gain and lowest before, and with them.
IDEAS = [
    ("features of how a recognizer punctuates and capitalises", "5.2 %, -2.9 %", "4.8 %, -5.0 %"),
    ("a third pass", "4.8 %, -5.0 %", "4.8 %, -7.0 %"),
    ("smaller trees: 12 leaves of 500 readings or more", "4.8 %, -5.0 %", "4.8 %, -6.3 %"),
    ("a feature for the name of each recognizer (one pass)", "4.1 %, -11.6 %", "3.9 %, -12.7 %"),
]


def report(found: dict) -> str:
    """The tables as Markdown."""
    summary = [
        (group, s["sets"], *(_share(s, way) for way in ("rover", "ROVER", "longest")), f"**{_percent(s['ours'])}**",
         " to ".join(map(_percent, s["interval"])), AIMS.get(group, "-"),
         "-" if s["close"] is None else _percent(s["close"]), _percent(s["worse"]), _percent(s["lowest"]),
         _percent(s["oracle"]))
        for group, s in found["summary"].items()
    ]  # fmt: skip
    reliability = [
        (group, n, f"{error:.3f}", _percent(share)) for group, (n, error, share) in found["reliability"].items()
    ]
    mixing = [
        (group, sum(c.values()), *(_percent(c.get(kind, 0) / max(sum(c.values()), 1))
                                   for kind in ("one", "better", "equal", "worse")))
        for group, c in found["mixing"].items()
    ]  # fmt: skip
    cost = [(size, f"{seconds:.3f}", f"{mb:.0f} MB") for size, seconds, mb in found["cost"]]
    sets = [
        (s["set"], " / ".join(map(_rate, s["single"])), _rate(s["rover"]) if "rover" in s else "-", _rate(s["ROVER"]),
         _rate(s["longest"]), f"**{_rate(s['ours'])}**", _rate(s["oracle"]), _percent(s["gain"]))
        for s in found["sets"]
    ]  # fmt: skip
    less = f"\nThe fits drew {_percent(found['share'])} of the sets that the shipped one draws (`--share`).\n"
    parts = (
        (HEAD, summary), (less if found["share"] < 1 else "", []), (PROBABILITIES, reliability), (MIXING, mixing),
        (CURVE if found["curve"] else "", _curve(found["curve"])), (REMAINING, _remaining(found["remaining"])),
        (TRIED, IDEAS), (COST, cost), (SETS, sets),
    )  # fmt: skip
    return "".join(head + "".join(map(_row, rows)) for head, rows in parts)


def _share(summary: dict, way: str) -> str:
    return _percent(summary[way]) if way in summary else "-"


def _curve(curve: list) -> list[tuple[object, ...]]:
    if not curve:
        return []
    groups = list(curve[0][1])
    rows: list[tuple[object, ...]] = [("calls", *groups), ("---",) * (len(groups) + 1)]
    return rows + [(count, *(_percent(gains[group]) for group in groups)) for count, gains in curve]


def _remaining(found: dict, most: int = 9) -> list[tuple[object, ...]]:
    words = {"replace": "wrong", "delete": "missing", "insert": "too much"}
    return [
        (corpus, words[what], kind, _percent(count / sum(row[2] for row in rows)))
        for corpus, rows in found.items()
        for what, kind, count in rows[:most]
    ]


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
