"""`gateway keys show`: one key as our database has it, as Unkey has it, and where the two differ. Changes nothing.

Nothing of the secret is shown, not even how it begins.
"""

from datetime import datetime
from typing import Any, NamedTuple

from gateway.accounts.store import Accounts, KeyRow
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.keys.bounds import hidden_warnings, plain_bounds
from gateway.keys.described import DescribedKey, Limit
from gateway.keys.drift import Drift, find_drift
from gateway.keys.listing import limits_text, plain, state_of
from gateway.keys.unkey_admin import KeyAdmin
from gateway.kit.errors import ConfigError, DependencyDown, OptionError
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database


class Shown(NamedTuple):
    """What is known of one key."""

    key: KeyRow
    unkey: DescribedKey | None
    """None when Unkey does not know it, or could not be asked (`problem`)."""
    problem: ConfigError | DependencyDown | None
    """Why Unkey did not say anything."""
    drift: list[Drift]


async def show(settings: Settings, console: Console, *, reference: str, now: datetime, as_json: bool = False) -> Shown:
    """Prints the key with this id, ours or Unkey's, and returns what is known of it.

    When Unkey could not be asked, what we have is printed and the reason is then raised: ConfigError naming the
    setting, or DependencyDown("unkey"). Raises OptionError when there is no such key, DependencyDown("postgres").
    """
    key = await linked_key(settings, reference)
    shown = await _ask(settings, key)
    if as_json:
        console.print_json(_document(shown, now))
    else:
        _print(console, shown, now)
    if shown.problem is not None:
        raise shown.problem
    return shown


async def linked_key(settings: Settings, reference: str) -> KeyRow:
    """The key with this id, ours or Unkey's. Raises OptionError when there is none, ConfigError, DependencyDown."""
    wanted = reference.strip()
    if not wanted or not wanted.isprintable():
        raise OptionError("key: give its id (key_… or a UUID) as `gateway keys list` shows it")
    async with database(settings, "whose key it is stands in PostgreSQL") as pool:
        key = await Accounts(pool).key(wanted)
    if key is None:
        # The text is not repeated: it may be a secret that was taken for an id.
        raise OptionError("key: no key with this id is linked here; `gateway keys list --all` has all of them")
    return key


async def _ask(settings: Settings, key: KeyRow) -> Shown:
    if settings.unkey_root_key is None:
        return Shown(key, None, ConfigError("UNKEY_ROOT_KEY is not set: Unkey was not asked"), [])
    root_key = settings.unkey_root_key.get_secret_value()
    async with KeyAdmin(root_key, base_url=settings.unkey_base_url) as admin:
        try:
            unkey = await admin.describe_key(key.unkey_key_id)
        except (ConfigError, DependencyDown) as error:
            return Shown(key, None, error, [])
    return Shown(key, unkey, None, find_drift(key, unkey, owner_known=True))


def _document(shown: Shown, now: datetime) -> dict[str, Any]:
    unkey = None
    if shown.unkey is not None:
        times = {name: rfc3339(getattr(shown.unkey, name)) for name in ("expires_at", "created_at", "last_used_at")}
        limits = [limit._asdict() for limit in shown.unkey.ratelimits]
        unkey = shown.unkey._asdict() | times | {"ratelimits": limits}
    problem = None if shown.problem is None else str(shown.problem)
    told: dict[str, Any] = {"unkey": unkey, "unkey_problem": problem, "differences": [one.means for one in shown.drift]}
    told |= {"drift": [one.to_json() for one in shown.drift], "warnings": _warnings(shown)}
    return plain(shown.key, now) | plain_bounds(shown.unkey) | told


def _print(console: Console, shown: Shown, now: datetime) -> None:
    key, unkey = shown.key, shown.unkey
    missing = "not asked" if shown.problem is not None else "unknown there"
    table = TextTable("")
    for name in ("here", "at Unkey"):
        table.add_column(name)  # never cut: ids are copied from here
    there = _there(unkey) if unkey is not None else {"state": missing}
    for name, value in _here(key, now).items():
        table.add_row(name, value, there.pop(name, ""))
    for name, value in there.items():
        table.add_row(name, "", value)
    console.print_table(table)
    if key.description:
        console.say(f"description: {key.description}")
    for one in shown.drift:
        console.say(f"differs: {one.means} ({one.hint})")
    for line in _warnings(shown):
        console.say(f"warning: {line}")


def _warnings(shown: Shown) -> list[str]:
    return [] if shown.unkey is None else hidden_warnings(shown.unkey)


def _here(key: KeyRow, now: datetime) -> dict[str, str]:
    return {
        "key id": key.unkey_key_id,
        "our id": key.id,
        "name": key.name or "(no name)",
        "user": f"{key.email} ({key.user_id})",
        "state": state_of(key, now),
        "created": minute(key.created_at),
        "expires": minute(key.expires_at),
        "revoked": minute(key.revoked_at),
        "last used": minute(key.last_used_at),
        "calls": f"{key.usage_count:,}",
    }


def _names(names: list[str] | None) -> str:
    return "all" if names is None else ", ".join(names)


def _there(unkey: DescribedKey) -> dict[str, str]:
    bound = plain_bounds(unkey)
    return {
        "key id": unkey.key_id,
        "name": unkey.name or "(no name)",
        "user": unkey.external_id or "(no identity)",
        "state": "enabled" if unkey.enabled else "disabled",
        "created": minute(unkey.created_at),
        "expires": minute(unkey.expires_at),
        "last used": minute(unkey.last_used_at),
        "credits": ("unlimited" if unkey.credits is None else f"{unkey.credits:,}")
        + (f", refilled with {unkey.refill}" if unkey.refill else ""),
        "models": _names(bound["models"]),
        "endpoints": _names(bound["endpoints"]),
        "limits": limits_text(bound) or "none of its own",
        "rate limits": "; ".join(map(_limit, unkey.ratelimits)) or "none",
        "permissions": ", ".join(unkey.permissions) or "none",
        "roles": ", ".join(unkey.roles) or "none",
    }


def _limit(limit: Limit) -> str:
    shared = " over all keys of the user" if limit.of == "identity" else ""
    asked = "" if limit.auto_apply else " (only where it is asked for)"
    return f"{limit.name}: {limit.limit:,} per {limit.duration_ms:,} ms{shared}{asked}"
