"""What is hidden of a recording's words where redaction is asked for, and what stands in its place."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: Kinds of personal data. `security_code`: PINs, passwords in digits, the code on a card. `id`: any other long number or
#: code of digits and letters, such as those of passports, policies and customers.
Kind = Literal[
    "card", "security_code", "iban", "account", "ssn", "phone", "email", "address", "date_of_birth", "name", "id"
]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

#: What becomes of what was not redacted. `keep`: it is kept for keys with the scope `unredacted`. `forget`: it is
#: deleted before the run completes.
Unredacted = Literal["keep", "forget"]

#: Languages whose spoken numbers, names and addresses are known (primary subtags of BCP 47).
LANGUAGES: Final = frozenset({"en"})

Label = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,30}$")]

#: A word that stands for what was redacted: `[CARD]`, perhaps with the punctuation that followed it.
PLACEHOLDER: Final = re.compile(r"\[([A-Z][A-Z0-9_]{0,40})\][.,?!;:]*\Z")


class OwnPattern(BaseModel):
    """A regular expression of a tenant's own, in RE2's syntax."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: Label = Field(description="what stands in its place, in brackets")
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(
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
