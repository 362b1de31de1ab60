"""`gateway keys list`: the keys that are linked here, as our database has them. Changes nothing.

Unkey is asked only for `--limits`: what a key may do is kept there.
"""

from datetime import datetime
from typing import Any, Final

from gateway.accounts.store import Accounts, KeyRow
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.keys.at_unkey import key_pages, unkey
from gateway.keys.bounds import plain_bounds
from gateway.keys.described import DescribedKey
from gateway.kit.errors import ConfigError, OptionError
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database

GONE: Final = ("revoked", "expired")
"""States that a key does not come back from; such keys are listed only when asked for."""


async def list_keys(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    user: str | None = None,
    every: bool = False,
    limits: bool = False,
    as_json: bool = False,
) -> list[KeyRow]:
    """Prints the keys of `user` (e-mail address or UUID), or of everybody, and returns them, oldest first.

    Without `every`, revoked and expired ones are left out, and how many is said. With `limits`, what binds each comes
    from Unkey (UNKEY_API_ID). Raises OptionError when there is no such user, ConfigError, DependencyDown.
    """
    async with database(settings, "the keys are listed from PostgreSQL") as pool:
        accounts = Accounts(pool)
        owner = None if user is None else await accounts.find(user.strip())
        if user is not None and owner is None:
            raise OptionError(f"user: there is no user {user}; `gateway users list` has them")
        found = await accounts.keys(None if owner is None else owner.id)
    keys = [key for key in found if every or state_of(key, now) not in GONE]
    bounds = await _bounds(settings, None if owner is None else owner.id) if limits else None
    if as_json:
        rows = [plain(key, now) | ({} if bounds is None else _bound(key, bounds)) for key in keys]
        console.print_json(rows)
        return keys
    if keys:
        console.print_table(_table(keys, now, bounds))
    hidden = len(found) - len(keys)
    if hidden:
        console.say(f"{hidden} revoked or expired not shown; --all shows them", style="dim")
    elif not keys:
        console.say("No keys. `gateway keys create --user EMAIL` makes one.")
    return keys


def state_of(key: KeyRow, now: datetime) -> str:
    """What our database says of a key: `revoked`, `disabled`, `expired`, `user disabled` or `active`."""
    if key.revoked_at is not None:
        return "revoked"
    if not key.is_active:
        return "disabled"
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


async def _bounds(settings: Settings, user_id: str | None) -> dict[str, DescribedKey]:
    """Keys of the Unkey API by their ids, those of one user or all."""
    if settings.unkey_api_id is None:
        raise ConfigError("UNKEY_API_ID is not set: --limits lists the keys of that API at Unkey")
    async with unkey(settings, "--limits asks Unkey") as admin:
        pages = key_pages(admin, settings.unkey_api_id, external_id=user_id)
        return {key.key_id: key async for page in pages for key in page}


def _bound(key: KeyRow, bounds: dict[str, DescribedKey]) -> dict[str, Any]:
    return plain_bounds(bounds.get(key.unkey_key_id)) | {"known_to_unkey": key.unkey_key_id in bounds}


def _table(keys: list[KeyRow], now: datetime, bounds: dict[str, DescribedKey] | None) -> TextTable:
    """Without `bounds`, how much each is used; with them, what each may do: both together are too wide to be read."""
    table = TextTable()
    for name in ("key id", "name", "user", "state"):
        table.add_column(name, no_wrap=name == "key id")
    for name in ("expires", "last used") if bounds is None else ("models", "endpoints", "limits"):
        table.add_column(name)
    if bounds is None:
        table.add_column("calls", right=True, no_wrap=True)
    for key in keys:
        table.add_row(
            key.unkey_key_id,
            key.name or "(no name)",
            key.email,
            state_of(key, now),
            *(_use_cells(key) if bounds is None else _bound_cells(bounds.get(key.unkey_key_id))),
        )
    return table


def _use_cells(key: KeyRow) -> tuple[str, str, str]:
    return minute(key.expires_at), minute(key.last_used_at), f"{key.usage_count:,}"


def _bound_cells(key: DescribedKey | None) -> tuple[str, str, str]:
    if key is None:
        return "?", "?", "unknown to Unkey"
    bound = plain_bounds(key)
    return (
        "all" if bound["models"] is None else ", ".join(bound["models"]),
        "all" if bound["endpoints"] is None else ", ".join(bound["endpoints"]),
        limits_text(bound) or "none",
    )


def limits_text(bound: dict[str, Any]) -> str:
    """The limits of a key of its own, in a few words; `bound` is of plain_bounds."""
    names = {"requests_per_minute": "rpm", "tokens_per_minute": "tpm", "concurrent": "at a time"}
    return " · ".join(f"{bound[name]:,} {word}" for name, word in names.items() if bound[name] is not None)
