"""Speakers' labels: letters in the order of first words."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, count
from string import ascii_uppercase
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from schemas.words import Decision

Speaker = TypeVar("Speaker", bound=Hashable)


def letters(speakers: Iterable[Speaker]) -> dict[Speaker, str]:
    """By speaker, its letter: A for the first one that occurs; numbers after Z."""
    names = chain(ascii_uppercase, map(str, count(27)))
    return dict(zip(dict.fromkeys(speakers), names, strict=False))


def labelled(decisions: Sequence[Decision], speakers: Sequence[Speaker]) -> tuple[Decision, ...]:
    """The decisions with a letter for each one's speaker, in order of their first words in the transcript."""
    spoken = (speaker for one, speaker in zip(decisions, speakers, strict=True) if one.chosen.text is not None)
    names = letters(chain(spoken, speakers))
    return tuple(replace(one, speaker=names[speaker]) for one, speaker in zip(decisions, speakers, strict=True))
