"""Which language a recording is in, and which hypotheses are in another one and must not be mixed with the rest.

A recognizer that hears one language only writes that language whatever was spoken: an English-only model made "Guten,
my namest letzten Monat" of a German call together with a recognizer that had it right.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from agents.text.normalisation.normalise import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.words import Hypothesis

#: Probability below which a recognizer's detection alone is not believed, and the one assumed where it tells none.
BELIEVED, UNTOLD = 0.5, 0.75
#: Zipf frequency from which a word is one of the commonest of English, and the share of them from which a text is taken
#: for English. Measured: English calls 0.67 to 0.87, single sentences from 0.6; German, French and Spanish 0.08 to
#: 0.18, a Dutch sentence made of words that English has, too, 0.53.
COMMON, ENGLISH = 5.0, 0.58
#: Languages that recognizers take for each other, under one name.
_SAME = {
    "nb": "no", "nn": "no", "da": "no", "sr": "hr", "bs": "hr", "ms": "id", "cmn": "zh", "yue": "zh", "fil": "tl",
    "iw": "he", "gl": "pt", "sk": "cs", "be": "ru",
}  # fmt: skip


def primary(tag: str) -> str:
    """The language of a BCP 47 tag without region or script; close ones that are taken for each other are one."""
    code = tag.replace("_", "-").split("-", maxsplit=1)[0].lower()
    return _SAME.get(code, code)


def spoken(hypotheses: Sequence[Hypothesis], frequency: Mapping[str, float]) -> str | None:
    """The tag of the language of the recording, None if nobody tells. `frequency` has English words' Zipf frequencies.

    Told by the recognizers that can tell one from another: by how many, then by how sure they are, then by how much
    they heard. One that is not sure, or whose words are English all the same, is not believed against the others.
    """
    tellers = [h for h in hypotheses if h.language and h.tells_language and h.words] or [
        h for h in hypotheses if h.language
    ]
    votes: dict[str, list[Hypothesis]] = defaultdict(list)
    for hypothesis in tellers:
        votes[primary(hypothesis.language or "")].append(hypothesis)
    if not votes:
        return None
    most = max(votes.values(), key=lambda some: (len(some), sum(map(_sure, some)), sum(len(h.words) for h in some)))
    tag = min(str(h.language) for h in most)
    others = [str(h.language) for h in hypotheses if h.language and primary(h.language) == "en"]
    if primary(tag) != "en" and others and (max(map(_sure, most)) < BELIEVED or _english(most[0], frequency)):
        return min(others)
    return tag


def of_one_language(
    hypotheses: Sequence[Hypothesis], frequency: Mapping[str, float]
) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses that can be compared, and a note about each that is left out because it is in another language."""
    tag = spoken(hypotheses, frequency)
    if tag is None:
        return list(hypotheses), []
    kept = [h for h in hypotheses if not h.language or primary(h.language) == primary(tag)]
    left = sorted((h for h in hypotheses if h not in kept), key=lambda h: h.provider)
    return kept or list(hypotheses), [_note(h, tag) for h in left] if kept else []


def _note(hypothesis: Hypothesis, tag: str) -> str:
    only = "" if hypothesis.tells_language else ", the only language that it hears"
    return f"{hypothesis.provider} is left out: it wrote {hypothesis.language}{only}; the recording is in {tag}."


def _sure(hypothesis: Hypothesis) -> float:
    told = (hypothesis.details.get(name) for name in ("language_probability", "language_confidence"))
    return next((float(p) for p in told if isinstance(p, int | float)), UNTOLD)


def _english(hypothesis: Hypothesis, frequency: Mapping[str, float]) -> bool:
    names = normalised(" ".join(word.text for word in hypothesis.words[:2000]), "en")
    common = sum(frequency.get(name, 0.0) >= COMMON for name in names)
    return bool(frequency) and common >= ENGLISH * max(1, len(names))
