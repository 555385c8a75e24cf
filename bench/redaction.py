"""How much of what is planted in generated calls is hidden, and how much else: `make bench-redaction`."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass

from agents.redaction.detect import detect
from agents.redaction.languages.vocabulary import vocabulary
from bench.planted_abroad import calls_abroad
from bench.planted_calls import KINDS, POLICY, calls
from schemas.accounts.redaction import LANGUAGES

#: By kind, the least share of values that must be hidden as a whole.
LEAST = dict.fromkeys(("card", "iban", "account", "ssn", "phone", "email", "id"), 0.98) | {"name": 0.9}


@dataclass
class Figures:
    """What was found of one kind."""

    planted: int = 0
    hidden: int = 0
    named: int = 0
    found: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        """Share of the values of which every word is hidden."""
        return self.hidden / max(self.planted, 1)

    @property
    def precision(self) -> float:
        """Share of the findings that touch a value, of whatever kind."""
        return self.right / max(self.found, 1)


def measured(count: int, seed: int, *, misses: bool = False, language: str = "en") -> dict[str, Figures]:
    """By kind, and by kind and way of saying it, the figures over generated calls in a language."""
    figures: dict[str, Figures] = defaultdict(Figures)
    made = calls(count, seed) if language == "en" else calls_abroad(language, count, seed)
    for call in made:
        findings = detect(call.words, POLICY, vocabulary(language))
        hidden = {at for one in findings for at in range(one.start, one.end)}
        kind_at = {at: one.kind for one in findings for at in range(one.start, one.end)}
        for value in call.planted:
            is_hidden = hidden.issuperset(range(value.start, value.end))
            for key in (value.kind, f"{value.kind} {'spoken' if value.is_spoken else 'written'}"):
                figures[key].planted += 1
                figures[key].hidden += is_hidden
                figures[key].named += kind_at.get(value.start) == value.kind
            if misses and not is_hidden:
                print("MISSED", value.kind, call.words[max(value.start - 6, 0) : value.end + 2], file=sys.stderr)
        for one in findings:
            is_right = any(value.start < one.end and one.start < value.end for value in call.planted)
            figures[one.kind].found += 1
            figures[one.kind].right += is_right
            if misses and not is_right:
                print("WRONG", one.kind, call.words[max(one.start - 4, 0) : one.end + 2], file=sys.stderr)
    return figures


def main() -> None:
    """Print the figures; exit with 1 if a kind has less than it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--language", choices=sorted(LANGUAGES), default="en")
    parser.add_argument("--misses", action="store_true", help="print what is missed, and what is hidden in vain")
    arguments = parser.parse_args()
    figures = measured(arguments.calls, arguments.seed, misses=arguments.misses, language=arguments.language)
    print(f"{'kind':<16}{'values':>8}{'recall':>8}{'written':>9}{'spoken':>8}{'named':>8}{'precision':>11}")
    for kind in KINDS:
        of, written, spoken = figures[kind], figures[f"{kind} written"], figures[f"{kind} spoken"]
        print(
            f"{kind:<16}{of.planted:>8}{of.recall:>8.3f}{written.recall:>9.3f}{spoken.recall:>8.3f}"
            f"{of.named / max(of.planted, 1):>8.3f}{of.precision:>11.3f}"
        )
    if low := [kind for kind, least in LEAST.items() if figures[kind].recall < least]:
        sys.exit(f"less is hidden than must be: {', '.join(low)}")


if __name__ == "__main__":
    main()
