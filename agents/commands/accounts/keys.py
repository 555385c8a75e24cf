"""`concord keys`: makes, lists, rotates and revokes API keys."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

import orjson
from pydantic import TypeAdapter, ValidationError

from agents.commands import reach
from agents.commands.remote.client import Api
from schemas.accounts.keys import MOST_KEYS, ApiKey, new_key
from schemas.errors import InvalidInput, NotFound
from schemas.ids import Name
from schemas.printable import printable, printable_json
from web.resources.accounts.key_views import (
    GRACE_S,
    KeyView,
    MadeKey,
    NewOperatorKey,
    NewTenantKey,
    Rotation,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from agents.fleet.settings import Settings
    from sinks.ports.accounts.keys import Keys

DESCRIPTION = """API keys of a tenant, or with --operator of operators. A key is printed once, when it is made.

  concord keys create --tenant acme --name "the console" --scope read --scope write --days 90
  concord keys create --operator --name Prometheus        the first key ends the rule that this machine needs none
  concord keys list --tenant acme
  concord keys rotate ck_5d2c... --tenant acme            the old one stays valid for a day, or for --grace seconds
  concord keys revoke ck_5d2c... --tenant acme            no worker accepts it any more

With CONCORD_URL and CONCORD_API_KEY, over HTTP; otherwise in the database, with DATABASE_URL or a `concord up` here."""

#: Most keys that are listed.
MANY = 10_000

#: Who has made a key with this command in the database.
LOCAL = "local"

Shown = dict[str, Any]
T = TypeVar("T")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "keys",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(metavar="ACTION", required=True, dest="action")
    create = _action(actions, "create", "make a key, and print it")
    create.add_argument("--name", required=True, metavar="TEXT", help="what or who uses it")
    create.add_argument(
        "--scope", action="append", choices=("read", "write", "review", "admin", "unredacted"), help="may be repeated"
    )
    create.add_argument("--days", type=float, metavar="N", help="valid for so long (default: until it is revoked)")
    listing = _action(actions, "list", "all keys, without their secrets")
    rotate = _action(actions, "rotate", "replace a key, and print the new one")
    rotate.add_argument("id", metavar="ID")
    rotate.add_argument("--grace", type=float, default=GRACE_S, metavar="S", help="the old one stays valid (a day)")
    revoke = _action(actions, "revoke", "end a key at once")
    revoke.add_argument("id", metavar="ID")
    for action in (create, listing, rotate, revoke):
        owner = action.add_mutually_exclusive_group(required=True)
        owner.add_argument("--tenant", metavar="T", help="whose key it is")
        owner.add_argument("--operator", action="store_true", help="a key of operators")
        action.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return parser


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Do what the arguments say, over HTTP or in the database."""
    tenant = None if arguments.operator else _checked(TypeAdapter(Name).validate_python, arguments.tenant)
    async with _opened(tenant, settings) as keys:
        match arguments.action:
            case "create":
                _print_made(await keys.create(_wanted(arguments)), as_json=arguments.json)
            case "rotate":
                grace_s = _checked(Rotation.model_validate, {"grace_s": arguments.grace}).grace_s
                _print_made(await keys.rotate(arguments.id, grace_s), as_json=arguments.json)
            case "revoke":
                await keys.revoke(arguments.id)
                print(f"{printable(arguments.id)} is revoked", file=sys.stderr)
            case _:
                _print_list(await keys.list(), as_json=arguments.json)
    return 0


def _wanted(arguments: argparse.Namespace) -> NewOperatorKey:
    """The key that is to be made. Raises InvalidInput."""
    fields: dict[str, Any] = {"name": arguments.name}
    if arguments.days is not None:
        days = min(max(arguments.days, 0.0), 36_500.0)
        fields["expires_at"] = datetime.now(UTC) + timedelta(days=days)
    if not arguments.operator:
        return _checked(NewTenantKey.model_validate, fields | {"scopes": arguments.scope or ()})
    if arguments.scope:
        raise InvalidInput("--scope goes with --tenant: an operator's key permits everything")
    return _checked(NewOperatorKey.model_validate, fields)


def _checked(validate: Callable[[Any], T], value: Any) -> T:
    """The value as its model. Raises InvalidInput with a line for each field that is wrong."""
    try:
        return validate(value)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        raise InvalidInput("; ".join(" ".join(map(str, (*one["loc"], one["msg"]))) for one in errors)) from None


def _print_made(made: Shown, *, as_json: bool) -> None:
    """The key alone goes to standard output, so that a script can take it."""
    if as_json:
        print(orjson.dumps(made).decode())
        return
    print(f"{made['id']}: it is not shown again", file=sys.stderr)
    print(made["key"])


def _print_list(keys: Sequence[Shown], *, as_json: bool) -> None:
    for key in keys:
        if as_json:
            print(printable_json(orjson.dumps(key).decode()))
            continue
        state = "revoked" if key["revoked_at"] else f"until {key['expires_at'][:10]}" if key["expires_at"] else "valid"
        used = (key["last_used_at"] or "never")[:16]
        columns = [key["id"], ",".join(key["scopes"]), state, f"used {used}", key["name"]]
        print("  ".join(map(printable, columns)))


class _Managed(Protocol):
    """The keys of one owner."""

    async def create(self, wanted: NewOperatorKey) -> Shown: ...

    async def list(self) -> list[Shown]: ...

    async def rotate(self, key_id: str, grace_s: float) -> Shown: ...

    async def revoke(self, key_id: str) -> None: ...


@contextlib.asynccontextmanager
async def _opened(tenant: str | None, settings: Settings) -> AsyncIterator[_Managed]:
    if settings.url is not None:
        key = settings.api_key.get_secret_value() if settings.api_key else None
        yield OverHttp(Api(settings.url, key), f"/tenants/{tenant}/keys" if tenant else "/operator/keys")
        return
    async with reach.database(reach.addressed(settings)) as database:
        yield InDatabase(database.acting_as(tenant) if tenant else database, tenant)


class OverHttp(_Managed):
    """Keys over HTTP."""

    def __init__(self, api: Api, path: str) -> None:
        self._api, self._path = api, path

    async def _call(self, method: str, path: str, **more: Any) -> Any:
        return await asyncio.to_thread(self._api.call, method, f"{self._path}{path}", **more)

    async def create(self, wanted: NewOperatorKey) -> Shown:
        """Make a key."""
        made: Shown = (await self._call("POST", "", json=wanted.model_dump(mode="json"))).json()
        return made

    async def list(self) -> list[Shown]:
        """All keys."""
        return await asyncio.to_thread(lambda: list(self._api.items(self._path, "keys", MANY)))

    async def rotate(self, key_id: str, grace_s: float) -> Shown:
        """Replace a key."""
        answer = await self._call("POST", f"/{quote(key_id, safe='')}/rotate", json={"grace_s": grace_s})
        made: Shown = answer.json()
        return made

    async def revoke(self, key_id: str) -> None:
        """Revoke a key."""
        await self._call("DELETE", f"/{quote(key_id, safe='')}")


class InDatabase(_Managed):
    """Keys in the database, for the first key and for when no worker answers."""

    def __init__(self, keys: Keys, tenant: str | None) -> None:
        self._keys, self._tenant = keys, tenant

    async def create(self, wanted: NewOperatorKey) -> Shown:
        """Make a key."""
        new = new_key()
        key = ApiKey(
            id=new.id,
            tenant_id=self._tenant,
            name=wanted.name,
            prefix=new.prefix,
            hash=new.hash,
            scopes=wanted.granted,
            created_by=LOCAL,
            expires_at=wanted.expires_at,
        )
        stored = await self._keys.add_key(key)
        if stored is None:
            raise InvalidInput(f"there are {MOST_KEYS} valid keys already; revoke one first")
        return _made(stored, new.text)

    async def list(self) -> list[Shown]:
        """All keys."""
        keys, before = [], None
        while page := await self._keys.keys(self._tenant, 200, before):
            keys += [KeyView.model_validate(shown(key)).model_dump(mode="json") for key in page]
            last = page[-1]
            before = (last.created_at or datetime.now(UTC), last.id)
        return keys

    async def rotate(self, key_id: str, grace_s: float) -> Shown:
        """Replace a key."""
        new = new_key()
        stored = await self._keys.rotate_key(self._tenant, key_id, new, grace_s, LOCAL)
        if stored is None:
            old = await self._keys.key(self._tenant, key_id)
            if old is not None and old.is_valid(datetime.now(UTC)):
                raise InvalidInput(f"there are {MOST_KEYS} valid keys already; revoke one first, or use --grace 0")
            raise NotFound(f"there is no valid key {key_id} of this owner")
        return _made(stored, new.text)

    async def revoke(self, key_id: str) -> None:
        """Revoke a key."""
        if not await self._keys.revoke_key(self._tenant, key_id, LOCAL):
            raise NotFound(f"there is no key {key_id} of this owner")


def _made(key: ApiKey, text: str) -> Shown:
    return MadeKey.model_validate(shown(key) | {"key": text}).model_dump(mode="json")
