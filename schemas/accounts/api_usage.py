"""How often keys use the routes of the HTTP interface."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class UsedRoute:
    """What is counted together."""

    #: The key's tenant; `*` for an operator's.
    tenant_id: str
    #: `Caller.id`
    key_id: str
    #: The operation's id in the OpenAPI document.
    route: str
    #: 2 for answers of 200 to 299, and so on.
    status_class: int
    #: The beginning of the minute.
    minute: datetime
