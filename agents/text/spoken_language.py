"""Decides the language of a recording, and leaves out hypotheses in other languages.

A recognizer for one language writes that language whatever is spoken: reconciled with a correct German hypothesis, that
of an English-only model gave "Guten, my namest letzten Monat".
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from agents.text.normalisation.normalise import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.words import Hypothesis

#: Probability from which a detected language is accepted against an English hypothesis; and the assumed one, if a
#: recognizer reports none.
BELIEVED, UNTOLD = 0.5, 0.75
#: Zipf frequency of the most common English words, and the share of them from which a text is English. Measured:
#: English calls 0.67 to 0.87, single sentences from 0.6; German, French and Spanish 0.08 to 0.18; a Dutch sentence of
#: words that are English, too, 0.53; what English-only models make of German 0.19 to 0.56. Below the last share, a text
#: of at least so many words is in another language.
COMMON, ENGLISH = 5.0, 0.58
FOREIGN, FOREIGN_WORDS = 0.3, 10
#: Languages that recognizers confuse, mapped to one of them.
_SAME = {
    "nb": "no", "nn": "no", "da": "no", "sr": "hr", "bs": "hr", "ms": "id", "cmn": "zh", "yue": "zh", "fil": "tl",
    "iw": "he", "gl": "pt", "sk": "cs", "be": "ru",
}  # fmt: skip


def primary(tag: str) -> str:
    """The language of a BCP 47 tag, without region or script. Languages that recognizers confuse are the same."""
    code = tag.replace("_", "-").split("-", maxsplit=1)[0].lower()
    return _SAME.get(code, code)


def spoken(hypotheses: Sequence[Hypothesis], frequency: Mapping[str, float]) -> str | None:
    """The tag of the recording's language, None if no hypothesis has one.

    `frequency` has the Zipf frequencies of English words. The language is decided by the recognizers that distinguish
    languages: by their number, then by their probabilities, then by their words. If they are unsure, or their words are
    English, an English hypothesis of any recognizer overrules them; but not if they are unsure, what they wrote is
    certainly not English, and no hypothesis is (Whisper gave 0.455 to a German voice, of which an English-only model
    made words).
    """
    tagged = [h for h in hypotheses if h.language]
    if not tagged:
        return None
    winners = _winners(tagged)
    tag = _tag(winners)
    english = [h for h in tagged if primary(_tag([h])) == "en"]
    if primary(tag) == "en" or not english:
        return tag
    share = _english_share(winners[0], frequency)
    is_foreign = share < FOREIGN and len(winners[0].words) >= FOREIGN_WORDS
    if _is_unsure(winners):
        believed = is_foreign and not any(_english_share(h, frequency) >= ENGLISH for h in english)
    else:
        believed = share < ENGLISH
    return tag if believed else _tag(english)


def surely_another(hypotheses: Sequence[Hypothesis], one: str, frequency: Mapping[str, float]) -> str | None:
    """The tag of the recording's language if these hypotheses leave no doubt that it is not `one`, a primary subtag.

    Decided as by `spoken`, which would take a hypothesis in English if there were one.
    """
    telling = [h for h in hypotheses if h.language and h.tells_language and h.words]
    if not telling or any(primary(_tag([h])) == one for h in telling):
        return None
    winners = _winners(telling)
    return (
        None
        if _is_unsure(winners) or (one == "en" and _english_share(winners[0], frequency) >= ENGLISH)
        else _tag(winners)
    )


def _winners(tagged: Sequence[Hypothesis]) -> list[Hypothesis]:
    """The hypotheses in the language for which most recognizers vote."""
    votes: dict[str, list[Hypothesis]] = defaultdict(list)
    for hypothesis in [h for h in tagged if h.tells_language and h.words] or tagged:
        votes[primary(_tag([hypothesis]))].append(hypothesis)
    return max(votes.values(), key=lambda hs: (len(hs), sum(map(_probability, hs)), sum(len(h.words) for h in hs)))


def _tag(hypotheses: Sequence[Hypothesis]) -> str:
    """The tag of hypotheses in one language; the first in alphabetical order, if they name several regions."""
    return min(str(h.language) for h in hypotheses)


def of_one_language(
    hypotheses: Sequence[Hypothesis], frequency: Mapping[str, float]
) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses in the recording's language, and a note about each one in another language, which is left out."""
    tag = spoken(hypotheses, frequency)
    if tag is None:
        return list(hypotheses), []
    kept = [h for h in hypotheses if not h.language or primary(h.language) == primary(tag)]
    left = sorted((h for h in hypotheses if h not in kept), key=lambda h: h.provider)
    return kept or list(hypotheses), [_note(h, tag) for h in left] if kept else []


def _note(hypothesis: Hypothesis, tag: str) -> str:
    only = "" if hypothesis.tells_language else ", the only language that it hears"
    return f"{hypothesis.provider} is left out: it wrote {hypothesis.language}{only}; the recording is in {tag}."


def _probability(hypothesis: Hypothesis) -> float:
    """The reported probability of the hypothesis' language, or `UNTOLD`."""
    reported = (hypothesis.details.get(name) for name in ("language_probability", "language_confidence"))
    return next((float(p) for p in reported if isinstance(p, int | float)), UNTOLD)


def _is_unsure(winners: Sequence[Hypothesis]) -> bool:
    return max(map(_probability, winners)) < BELIEVED


def _english_share(hypothesis: Hypothesis, frequency: Mapping[str, float]) -> float:
    """The share of its words that are among the most common ones of English; 0 without frequencies."""
    names = normalised(" ".join(word.text for word in hypothesis.words[:2000]), "en")
    return sum(frequency.get(name, 0.0) >= COMMON for name in names) / max(1, len(names))
