"""Speakers' labels: letters in the order of first words."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from string import ascii_uppercase
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from schemas.words import Decision

Speaker = TypeVar("Speaker", bound=Hashable)

#: Labels that say no more than a letter: "A", "1", "speaker_01". Outside services may tell roles and names.
MERE: Final = re.compile(r"((speaker|spk|channel)[\s_#-]*)?([a-z]|\d{1,3})?", re.IGNORECASE)


def letters(speakers: Iterable[Speaker]) -> dict[Speaker, str]:
    """By speaker, its letter: A for the first one that occurs; numbers after Z."""
    names = chain(ascii_uppercase, map(str, count(27)))
    return dict(zip(dict.fromkeys(speakers), names, strict=False))


def labelled(
    decisions: Sequence[Decision], speakers: Sequence[Speaker], names: Mapping[Speaker, str] | None = None
) -> tuple[Decision, ...]:
    """The decisions with each one's speaker: its name, or a letter, in order of first words in the transcript."""
    spoken = (speaker for one, speaker in zip(decisions, speakers, strict=True) if one.chosen.text is not None)
    labels = {**letters(chain(spoken, speakers)), **(names or {})}
    return tuple(replace(one, speaker=labels[speaker]) for one, speaker in zip(decisions, speakers, strict=True))
