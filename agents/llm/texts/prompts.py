"""Prompts of text models: files with a version, to which a tenant may add what matters in its calls."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

#: The upload's metadata that names the kind of a call, by which templates are chosen.
KIND: Final = "call_kind"


@dataclass(frozen=True, slots=True)
class Template:
    """The instructions for one purpose, and their name with the version: another text is another version."""

    name: str
    instructions: str


def template(
    purpose: str,
    version: str,
    own: Mapping[str, str] | None,
    metadata: Mapping[str, Any],
    kind_of_ours: str | None = None,
) -> Template:
    """Our prompt for a purpose, with what the tenant adds for the call's kind (`summary.support`), or else for all
    (`summary`). The rules of our own stand before that. `kind_of_ours` is the kind where the metadata name none: there
    may be a prompt of ours for it (`summary-conversation.v1.txt`), to which the tenant adds nothing.
    """
    instructions = prompt(purpose, version)
    kind, own = metadata.get(KIND) or kind_of_ours, own or {}
    name = f"{purpose}.{kind}" if isinstance(kind, str) and f"{purpose}.{kind}" in own else purpose
    addition = own.get(name)
    if addition is None and kind_of_ours is not None and kind == kind_of_ours:
        ours = prompt(f"{purpose}-{kind_of_ours}", version)
        return Template(f"{kind_of_ours}/{version}", f"{instructions}\n\nWhat matters in these calls:\n\n{ours}")
    if addition is None:
        return Template(f"default/{version}", instructions)
    digest = hashlib.sha256(addition.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return Template(f"{name}/{version}-{digest}", f"{instructions}\n\nWhat matters in these calls:\n\n{addition}")


@cache
def prompt(purpose: str, version: str) -> str:
    """The text of a file of this folder."""
    return files("agents.llm.texts").joinpath(f"{purpose}.{version}.txt").read_text("utf-8")
