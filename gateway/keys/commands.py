"""What `gateway keys` shows. A secret is shown once, where its key is made, and nowhere else."""

from datetime import datetime
from typing import Any

from gateway.accounts.store import KeyRow
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.keys import listing
from gateway.keys.bounds import hidden_warnings, plain_bounds
from gateway.keys.create import CreatedKey
from gateway.keys.described import DescribedKey, Limit
from gateway.keys.listing import state_of
from gateway.keys.show import Shown, show_key
from gateway.kit.instants import rfc3339


def show_created(console: Console, created: CreatedKey, *, as_json: bool) -> None:
    """A new key, with its secret."""
    until = "never expires" if created.expires_at is None else f"expires {created.expires_at:%Y-%m-%d %H:%M} UTC"
    made = " (new user)" if created.user_created else ""
    lines = (
        f"API key for {created.email}{made}, {until}. It is shown only this once:",
        "",
        f"  {created.secret}",
        "",
        f"name {created.name or '(none)'} · Unkey id {created.unkey_key_id} · user {created.user_id}",
        *(f"warning: {warning}" for warning in created.warnings),
    )
    plain = {
        "key": created.secret,
        "key_id": created.unkey_key_id,
        "api_key_id": created.api_key_id,
        "user_id": created.user_id,
        "email": created.email,
        "name": created.name,
        "description": created.description,
        "expires_at": rfc3339(created.expires_at),
        "user_created": created.user_created,
        "warnings": list(created.warnings),
    }
    console.answer(plain, *lines, as_json=as_json)


async def list_keys(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    user: str | None,
    every: bool,
    limits: bool,
    as_json: bool,
) -> None:
    """The keys of a user, or all."""
    keys, hidden, bounds = await listing.list_keys(settings, now=now, user=user, every=every, limits=limits)
    if as_json:
        console.print_json([_plain(key, now) | ({} if bounds is None else _bound(key, bounds)) for key in keys])
        return
    if keys:
        console.print_table(_table(keys, now, bounds))
    if hidden:
        console.say(f"{hidden} revoked or expired not shown; --all shows them", style="dim")
    elif not keys:
        console.say("No keys. `gateway keys create --user EMAIL` makes one.")


async def show(settings: Settings, console: Console, *, reference: str, now: datetime, as_json: bool) -> None:
    """One key on both sides. When Unkey could not be asked, what we have is shown, and the reason is then raised."""
    shown = await show_key(settings, reference)
    if as_json:
        console.print_json(_document(shown, now))
    else:
        _print(console, shown, now)
    if shown.problem is not None:
        raise shown.problem


def _plain(key: KeyRow, now: datetime) -> dict[str, Any]:
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
        _names(bound["models"]),
        _names(bound["endpoints"]),
        _limits_text(bound) or "none",
    )


def _limits_text(bound: dict[str, Any]) -> str:
    """The limits of a key of its own, in a few words; `bound` is of plain_bounds."""
    names = {"requests_per_minute": "rpm", "tokens_per_minute": "tpm", "concurrent": "at a time"}
    return " · ".join(f"{bound[name]:,} {word}" for name, word in names.items() if bound[name] is not None)


def _document(shown: Shown, now: datetime) -> dict[str, Any]:
    unkey = None
    if shown.unkey is not None:
        times = {name: rfc3339(getattr(shown.unkey, name)) for name in ("expires_at", "created_at", "last_used_at")}
        limits = [limit._asdict() for limit in shown.unkey.ratelimits]
        unkey = shown.unkey._asdict() | times | {"ratelimits": limits}
    problem = None if shown.problem is None else str(shown.problem)
    told: dict[str, Any] = {"unkey": unkey, "unkey_problem": problem, "differences": [one.means for one in shown.drift]}
    told |= {"drift": [one.to_json() for one in shown.drift], "warnings": _warnings(shown)}
    return _plain(shown.key, now) | plain_bounds(shown.unkey) | told


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
    return "all" if names is None else ", ".join(names) or "none"


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
        "limits": _limits_text(bound) or "none of its own",
        "rate limits": "; ".join(map(_limit, unkey.ratelimits)) or "none",
        "permissions": ", ".join(unkey.permissions) or "none",
        "roles": ", ".join(unkey.roles) or "none",
    }


def _limit(limit: Limit) -> str:
    shared = " over all keys of the user" if limit.of == "identity" else ""
    asked = "" if limit.auto_apply else " (only where it is asked for)"
    return f"{limit.name}: {limit.limit:,} per {limit.duration_ms:,} ms{shared}{asked}"
