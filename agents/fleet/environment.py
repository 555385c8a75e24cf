"""Settings from environment variables, and what each variable is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    ValidationError,
)

from agents.fleet.settings import Settings
from schemas.errors import SettingsError

#: Variables with this prefix that no field has are reported as errors, because they are misspelled.
_PREFIX = "CONCORD_"


def from_env(environ: Mapping[str, str]) -> Settings:
    """The settings in an environment. Empty variables count as absent.

    Raises:
        SettingsError: The environment is invalid. The message has a line for each error, and never a secret's value.
    """
    names = {field.alias for field in Settings.model_fields.values() if field.alias}
    ours = {name: value for name, value in environ.items() if value and (name in names or name.startswith(_PREFIX))}
    try:
        return Settings.model_validate(ours)
    except ValidationError as exc:
        lines = [_line(error) for error in exc.errors(include_input=False, include_url=False)]
        raise SettingsError("the environment cannot be used:\n  " + "\n  ".join(lines)) from None


def _line(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if name in Settings.model_fields:  # pydantic reports an invalid default under the field's name
        name = Settings.model_fields[name].alias or name
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such variable (`concord doctor` lists them all)"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message


def variables() -> list[tuple[str, str]]:
    """(environment variable, description) of every setting, for `concord doctor`."""
    return [(field.alias or name, field.description or "") for name, field in Settings.model_fields.items()]
