"""`gateway keys list`: the keys that are linked here, as our database has them. Asks Unkey nothing, changes nothing."""

import json
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.commands.database import database
from gateway.core.config import Settings
from gateway.core.errors import OptionError
from gateway.core.instants import rfc3339
from gateway.edges.accounts import Accounts, KeyRow

GONE: Final = ("revoked", "expired")
"""States that a key does not come back from; such keys are listed only when asked for."""


async def list_keys(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    user: str | None = None,
    every: bool = False,
    as_json: bool = False,
) -> list[KeyRow]:
    """Prints the keys of `user` (e-mail address or UUID), or of everybody, and returns them, oldest first.

    Without `every`, revoked and expired ones are left out, and how many is said. Raises OptionError when there is
    no such user, ConfigError, DependencyDown.
    """
    async with database(settings, "the keys are listed from PostgreSQL") as pool:
        accounts = Accounts(pool)
        owner = None if user is None else await accounts.find(user.strip())
        if user is not None and owner is None:
            raise OptionError(f"user: there is no user {user}; `gateway users list` has them")
        found = await accounts.keys(None if owner is None else owner.id)
    keys = [key for key in found if every or state_of(key, now) not in GONE]
    if as_json:
        # Not through the console, which wraps and colours.
        console.file.write(json.dumps([plain(key, now) for key in keys], indent=2, ensure_ascii=False) + "\n")
        return keys
    if keys:
        console.print(_table(keys, now))
    hidden = len(found) - len(keys)
    if hidden:
        console.print(f"{hidden} revoked or expired not shown; --all shows them", style="dim", highlight=False)
    elif not keys:
        console.print("No keys. `gateway keys create --user EMAIL` makes one.", markup=False, highlight=False)
    return keys


def state_of(key: KeyRow, now: datetime) -> str:
    """What our database says of a key: `revoked`, `expired`, `user disabled` or `active`."""
    if not key.is_active:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "active" if key.user_is_active else "user disabled"


def plain(key: KeyRow, now: datetime) -> dict[str, Any]:
    """A key for JSON, named as `keys create --json` names it: `key_id` is Unkey's id, `api_key_id` ours."""
    return {
        "key_id": key.unkey_key_id,
        "api_key_id": key.id,
        "name": key.name,
        "description": key.description,
        "user_id": key.user_id,
        "email": key.email,
        "state": state_of(key, now),
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
        "last_used_at": rfc3339(key.last_used_at),
        "usage_count": key.usage_count,
        "created_at": rfc3339(key.created_at),
    }


def minute(at: datetime | None) -> str:
    """An instant for a table, UTC to the minute."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _table(keys: list[KeyRow], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for name in ("key id", "name", "user", "state", "expires", "last used"):
        table.add_column(name, overflow="fold")
    table.add_column("calls", justify="right", no_wrap=True)
    for key in keys:
        table.add_row(
            # Text: names are the users' own and must not be read as markup.
            Text(key.unkey_key_id),
            Text(key.name or "(no name)"),
            Text(key.email),
            state_of(key, now),
            minute(key.expires_at),
            minute(key.last_used_at),
            f"{key.usage_count:,}",
        )
    return table
