"""Prompts of text models: files with a version, to which a tenant may add what matters in its calls, or in place of
which it may put its own. How the message and the answer are made stands behind a tenant's own prompt, too: it cannot
know that, and an answer without what is required is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from schemas.accounts.settings import AccountSettings

#: The upload's metadata that names the kind of a call, by which templates are chosen.
KIND: Final = "call_kind"

_ADDED: Final = "\n\nWhat matters in these calls:\n\n"


@dataclass(frozen=True, slots=True)
class Template:
    """The instructions for one purpose, and their name with the version: another text is another version."""

    name: str
    instructions: str


def template(
    purpose: str,
    version: str,
    settings: AccountSettings,
    metadata: Mapping[str, Any],
    kind_of_ours: str | None = None,
) -> Template:
    """The prompt for a purpose: the tenant's for the call's kind (`summary.support`), or else for all (`summary`), or
    ours; with what the tenant adds, which is chosen in the same way. `kind_of_ours` is the kind where the metadata name
    none: we add something of our own to it (`summary-conversation.v1.txt`) where the tenant has neither.
    """
    kind = metadata.get(KIND) or kind_of_ours
    own, addition = (_chosen(purpose, texts or {}, kind) for texts in (settings.prompts, settings.templates))
    chosen = [one for one in (own, addition) if one is not None]
    instructions = prompt(purpose, version) if own is None else f"{own[1]}\n\n{prompt(f'{purpose}_frame', version)}"
    if not chosen and kind_of_ours is not None and kind == kind_of_ours:
        ours = prompt(f"{purpose}-{kind_of_ours}", version)
        return Template(f"{kind_of_ours}/{version}", f"{instructions}{_ADDED}{ours}")
    if addition is not None:
        instructions += f"{_ADDED}{addition[1]}"
    if not chosen:
        return Template(f"default/{version}", instructions)
    texts = "\0".join(text for _, text in chosen)
    digest = hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return Template(f"{chosen[0][0]}/{'own-' if own else ''}{version}-{digest}", instructions)


def _chosen(purpose: str, texts: Mapping[str, str], kind: object) -> tuple[str, str] | None:
    """The name and the text of the one for this kind of call, or of the one for all."""
    of_kind = f"{purpose}.{kind}" if isinstance(kind, str) else purpose
    name = of_kind if of_kind in texts else purpose
    return (name, texts[name]) if name in texts else None


@cache
def prompt(purpose: str, version: str) -> str:
    """The text of a file of this folder."""
    return files("agents.llm.texts").joinpath(f"{purpose}.{version}.txt").read_text("utf-8")
