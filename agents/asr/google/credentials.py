"""Reads Google Cloud credentials from a key file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import SettingsError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials


def load_credentials(file: Path) -> Credentials:
    """The credentials in a key file of the Google Cloud console or of `gcloud`.

    Raises:
        SettingsError: The file cannot be used; the text contains nothing of the file's content.
    """
    from google.auth.exceptions import GoogleAuthError

    try:
        kind, info = _parsed(file)
        match kind:
            case "service_account":
                from google.oauth2 import service_account

                return service_account.Credentials.from_service_account_info(info)  # type: ignore[no-any-return,no-untyped-call]
            case "authorized_user":
                from google.oauth2 import credentials

                return credentials.Credentials.from_authorized_user_info(info)  # type: ignore[no-any-return,no-untyped-call]
            case "external_account":
                from google.auth import identity_pool

                return identity_pool.Credentials.from_info(info)  # type: ignore[no-any-return,no-untyped-call]
    except (OSError, ValueError, KeyError, GoogleAuthError) as exc:
        problem = f"{file} cannot be used ({exc.strerror if isinstance(exc, OSError) else type(exc).__name__})"
        raise SettingsError(f"GOOGLE_APPLICATION_CREDENTIALS: {problem}") from None
    types = "service_account, authorized_user or external_account"
    raise SettingsError(f"GOOGLE_APPLICATION_CREDENTIALS: {file} is no key file: its type is not {types}")


def _parsed(file: Path) -> tuple[str, dict[str, Any]]:
    info = json.loads(file.read_bytes())
    return (str(info.get("type")), info) if isinstance(info, dict) else ("", {})
