"""What is hidden of a recording's words where redaction is asked for, and what stands in its place."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

#: Kinds of personal data. `security_code`: PINs, passwords in digits, the code on a card. `id`: any other long number
#: or code of digits and letters, such as those of passports, policies and customers.
Kind = Literal[
    "card", "security_code", "iban", "account", "ssn", "phone", "email", "address", "date_of_birth", "name", "id"
]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

#: What becomes of what was not redacted. `keep`: it is kept for keys with the scope `unredacted`. `forget`: it is
#: deleted before the run completes.
Unredacted = Literal["keep", "forget"]

#: Languages whose spoken numbers, names and addresses are known (primary subtags of BCP 47).
LANGUAGES: Final = frozenset({"de", "en", "es", "fr"})

Label = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,30}$")]

#: Bytes that a compiled pattern may take.
_PATTERN_BYTES: Final = 1 << 20

#: A word that stands for what was redacted: `[CARD]`, perhaps with the punctuation that followed it.
PLACEHOLDER: Final = re.compile(r"\[([A-Z][A-Z0-9_]{0,40})\][.,?!;:]*\Z")


@lru_cache(512)
def compiled(pattern: str) -> Any:
    """A regular expression in RE2's syntax, whatever the case, whose time is linear in the text.

    Raises:
        ValueError: It is none. The message says why.
    """
    import re2

    options = re2.Options()
    options.log_errors, options.case_sensitive, options.max_mem = False, False, _PATTERN_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else "it cannot be compiled"
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None


def _is_pattern(pattern: str) -> str:
    compiled(pattern)
    return pattern


class OwnPattern(BaseModel):
    """A regular expression of a tenant's own, in RE2's syntax."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: Label = Field(description="what stands in its place, in brackets")
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(_is_pattern)] = Field(
        description="RE2 syntax, whatever the case; of spoken digits and letters, it sees `KD-4711`"
    )


class RedactionPolicy(BaseModel):
    """What is hidden, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[Kind, ...] = Field(KINDS, max_length=len(KINDS), description="the kinds that are hidden; default: all")
    labels: dict[Kind, Label] = Field(
        default_factory=dict, description="what stands in a kind's place, in brackets; default: `[CARD]` and so on"
    )
    patterns: tuple[OwnPattern, ...] = Field((), max_length=50, description="own patterns, hidden as well")
    region: Annotated[str, StringConstraints(pattern="^[A-Z]{2}$")] = Field(
        "US", description="country (ISO 3166) of telephone numbers without a prefix"
    )

    def label(self, kind: str) -> str:
        """The word that stands for this kind."""
        labels: dict[Any, str] = self.labels
        return f"[{labels.get(kind, kind.upper())}]"


#: What holds where nothing is set.
EVERYTHING: Final = RedactionPolicy()
