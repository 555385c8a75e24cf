"""The templates of mails: subject, text and HTML, by default or as a tenant writes them.

A tenant's template runs in Jinja's sandbox, in the subprocess that makes PDFs, within its memory and time. In HTML,
what a call says is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import InvalidInput
from schemas.printable import printable

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

#: Characters of a subject, and of a rendered text or page.
SUBJECT_CHARS, BODY_CHARS = 200, 500_000

#: What templates can show: the fields of `agents.reports.content.Report`, names of the job, and how the report comes.
NAMES: Final = frozenset(
    {
        *("title", "language", "facts", "speakers", "about", "sections", "quality", "notes"),
        *("tenant_id", "job_id", "reference", "filename", "run", "version", "attached", "link"),
    }
)

_FOLDER: Final = Path(__file__).parent / "mail"

#: By part of a mail: its default.
DEFAULTS: Final[Mapping[str, str]] = {
    "subject": "{{ title }}",
    "text": (_FOLDER / "report.v1.txt").read_text(),
    "html": (_FOLDER / "report.v1.html").read_text(),
}


def _environment(part: str) -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        autoescape=part == "html", undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def check(part: str, source: str) -> None:
    """Check a tenant's template without running it.

    Raises:
        InvalidInput: It is none, or it shows what does not exist.
    """
    from jinja2 import TemplateError, nodes

    try:
        tree = _environment(part).parse(source)
    except TemplateError as exc:
        raise InvalidInput(f"is no template: {exc}") from exc
    except RecursionError as exc:
        raise InvalidInput("is nested too deeply") from exc
    used = list(tree.find_all(nodes.Name))
    own = {name.name for name in used if name.ctx != "load"} | {"loop"}
    if unknown := sorted({name.name for name in used} - own - NAMES - _environment(part).globals.keys()):
        raise InvalidInput(f"there is no {', '.join(unknown)}; there are {', '.join(sorted(NAMES))}")


def rendered(templates: Mapping[str, str | None], values: Mapping[str, Any]) -> dict[str, str]:
    """Subject, text and HTML of a mail; where there is no template of its own, by default.

    Raises:
        InvalidInput: A template fails on these values.
    """
    from jinja2 import TemplateError

    parts = {}
    for part, default in DEFAULTS.items():
        try:
            parts[part] = _environment(part).from_string(templates.get(part) or default).render(values)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as exc:
            raise InvalidInput(f"the template mail_{part} fails: {type(exc).__name__}: {exc}") from exc
        if len(parts[part]) > BODY_CHARS:
            raise InvalidInput(f"the template mail_{part} makes more than {BODY_CHARS} characters")
    parts["subject"] = printable(" ".join(parts["subject"].split()), limit=None)[:SUBJECT_CHARS]
    return parts
