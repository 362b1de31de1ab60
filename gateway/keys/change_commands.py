"""What `gateway keys` shows of keys that it changes: set, enable, disable, revoke, reroll and sync."""

from datetime import datetime, timedelta
from typing import Any

from gateway.accounts.announce import as_fields, bound_of_end, bound_of_start, describe
from gateway.accounts.cost_centres import CostCentreOptions
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import KeySettings, Settings
from gateway.keys import change as change_key
from gateway.keys import enable as switch
from gateway.keys import reroll as reroll_key
from gateway.keys import revoke as revoke_key
from gateway.keys import sync as sync_keys
from gateway.keys.bounds import warnings_of
from gateway.keys.change import Wanted
from gateway.keys.cost_centre import set_key_cost_centre
from gateway.keys.drift import Drift
from gateway.keys.enable import Switched
from gateway.keys.listing import state_of
from gateway.keys.reroll import Rerolled
from gateway.keys.revoke import UNKEY_STALE_S, Revoked, told_after_s
from gateway.keys.sync import Finding, Synced
from gateway.kit.instants import rfc3339


async def set_fields(settings: Settings, console: Console, *, reference: str, change: Wanted, as_json: bool) -> None:
    """What is different about a key."""
    key, before, after, different, ended = await change_key.set_fields(settings, reference=reference, change=change)
    if as_json:
        plain: dict[str, Any] = {"key_id": key.unkey_key_id, "api_key_id": key.id, "email": key.email}
        plain |= {"changed": different, "takes_effect_within_s": told_after_s(settings.keys)}
        plain |= {"new_end": None if ended is None else as_fields(ended), "warnings": warnings_of(after)}
        console.print_json(plain, indent=None)
        return
    lines = [f"{key.unkey_key_id} ({key.name or 'no name'}) of {key.email}:"]
    lines += [f"  {name}: {_text(one['from'])} → {_text(one['to'])}" for name, one in different.items()]
    if not different:
        lines.append("  nothing changed at Unkey, it was so before.")
    else:
        lines.append(
            f"Calls that begin within {told_after_s(settings.keys):g} s may be judged as before: a node of Unkey may "
            f"have the key as it was for {UNKEY_STALE_S} s, and a proxy for keys.fresh_s after that."
        )
    if ended is not None and after.expires_at is not None and key.expires_at != after.expires_at:
        lines.append(f"An earlier end holds sooner. {describe(ended, bound_of_end(settings.keys))}")
    if before.roles and {"models", "endpoints"} & different.keys():
        lines.append(f"It has the roles {', '.join(before.roles)}: what they allow comes on top (at Unkey).")
    lines += [f"warning: {warning}" for warning in warnings_of(after)]
    console.say(*lines)


async def set_cost_centre(
    settings: Settings, console: Console, *, reference: str, centre: CostCentreOptions, as_json: bool
) -> None:
    """Where the cost of a key belongs, and from when on."""
    key = await set_key_cost_centre(settings, reference=reference, centre=centre)
    plain = {"key_id": key.unkey_key_id, "api_key_id": key.id, "cost_centre": centre.code or None}
    plain["from"] = rfc3339(centre.since)
    what = f"cost centre {centre.code}" if centre.code else "the cost centre of its user"
    console.answer(plain, f"{key.unkey_key_id}: {what} from {centre.since:%Y-%m-%d} on.", as_json=as_json)


def _text(value: Any) -> str:
    return "(none)" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


async def disable(settings: Settings, console: Console, *, reference: str, now: datetime, as_json: bool) -> None:
    """That a key is disabled, and from when on."""
    _say_switched(settings, console, await switch.disable(settings, reference), now=now, as_json=as_json)


async def enable(settings: Settings, console: Console, *, reference: str, now: datetime, as_json: bool) -> None:
    """That a key is enabled, and from when on."""
    _say_switched(settings, console, await switch.enable(settings, reference), now=now, as_json=as_json)


def _say_switched(settings: Settings, console: Console, done: Switched, *, now: datetime, as_json: bool) -> None:
    key, keys = done.key, settings.keys
    within = 0 if done.announced.in_effect else keys.negative_s if key.is_active else keys.fresh_s
    if as_json:
        plain = {
            "key_id": key.unkey_key_id,
            "api_key_id": key.id,
            "email": key.email,
            "state": state_of(key, now),
            "was_active": done.was_active,
            "known_to_unkey": done.known_to_unkey,
            "revoked_at": rfc3339(key.revoked_at),
            "takes_effect_within_s": within,
            **as_fields(done.announced),
        }
        console.print_json(plain, indent=None)
    else:
        console.say(*_switched_lines(settings, done, now))


def _switched_lines(settings: Settings, done: Switched, now: datetime) -> list[str]:
    key = done.key
    named = f"{key.unkey_key_id} ({key.name or 'no name'}) of {key.email}"
    if key.is_active:
        lines = [f"{named} is enabled{' already' if done.was_active else ''}, at Unkey and here."]
        state = state_of(key, now)
        if state == "expired":
            lines.append(
                f"It expired at {minute(key.expires_at)} UTC: `gateway keys set --expires` gives it more time."
            )
        elif state == "user disabled":
            lines.append(f"Its user is disabled: `gateway users enable {key.email}` ends that.")
        return [*lines, describe(done.announced, bound_of_start(settings.keys))]
    if key.revoked_at is not None:
        return [f"{named} is revoked since {minute(key.revoked_at)} UTC, which is more than disabled."]
    lines = [f"{named} is disabled{'' if done.was_active else ' already'}: `gateway keys enable` ends that."]
    if not done.known_to_unkey:
        lines.append("Unkey does not know it: it was deleted there, or UNKEY_ROOT_KEY is of another workspace.")
    return [*lines, describe(done.announced, bound_of_end(settings.keys))]


async def revoke(settings: Settings, console: Console, *, reference: str, as_json: bool) -> None:
    """That a key is revoked, and from when on."""
    revoked = await revoke_key.revoke(settings, reference)
    plain = _revoked_plain(revoked, settings.keys)
    console.answer(plain, *_revoked_lines(revoked, settings.keys), as_json=as_json)


def _revoked_lines(revoked: Revoked, keys: KeySettings) -> list[str]:
    key = revoked.key
    first = f"Revoked {key.unkey_key_id} ({key.name or 'no name'}) of {key.email}: disabled at Unkey and marked here."
    if not revoked.known_to_unkey:
        first = (
            f"Revoked {key.unkey_key_id} ({key.name or 'no name'}) of {key.email} here. Unkey does not know it: it was "
            "deleted there, or UNKEY_ROOT_KEY is of another workspace."
        )
    again = [] if key.is_active else [f"It had been revoked before, at {minute(revoked.revoked_at)} UTC."]
    return [first, *again, describe(revoked.announced, bound_of_end(keys))]


def _revoked_plain(revoked: Revoked, keys: KeySettings) -> dict[str, Any]:
    in_effect = revoked.announced.in_effect
    return {
        "key_id": revoked.key.unkey_key_id,
        "api_key_id": revoked.key.id,
        "email": revoked.key.email,
        "revoked_at": rfc3339(revoked.revoked_at),
        "was_active": revoked.key.is_active,
        "known_to_unkey": revoked.known_to_unkey,
        "may_work_for_s": 0 if in_effect else keys.fresh_s,
        "may_work_for_s_without_unkey": 0 if in_effect else keys.fresh_s + keys.stale_s,
        **as_fields(revoked.announced),
    }


async def reroll(
    settings: Settings, console: Console, *, reference: str, overlap: timedelta, now: datetime, as_json: bool
) -> None:
    """The new key, with its secret."""

    def show(done: Rerolled) -> None:
        show_rerolled(console, settings, done, as_json=as_json)

    await reroll_key.reroll(settings, reference=reference, overlap=overlap, now=now, show=show)


def show_rerolled(console: Console, settings: Settings, done: Rerolled, *, as_json: bool) -> None:
    """The new key, and what becomes of the old one."""
    if as_json:
        console.print_json(_rerolled_plain(done), indent=None)
        return
    old, at = done.old, done.ends_at
    lines = [
        f"New API key for {old.email}, in the place of {old.unkey_key_id}. It is shown only this once:",
        "",
        f"  {done.made.secret}",
        "",
        f"name {old.name or '(none)'} · Unkey id {done.made.key_id} · user {old.user_id}",
    ]
    if done.ended is not None and at is None:
        lines.append(f"{old.unkey_key_id} is revoked. {describe(done.ended, bound_of_end(settings.keys))}")
    elif done.ended is not None:
        lines.append(f"{old.unkey_key_id} works until {minute(at)} UTC.")
    if done.credits is not None:
        lines.append(f"Its {done.credits:,} credits are the new key's; the old one has 0 since before this was shown.")
    if done.refill is not None:
        lines.append(f"Unkey does not refill them as the old key's ({done.refill}): set that in its dashboard.")
    if done.budgets:
        lines.append(f"Its {done.budgets} budget(s) hold for the new key as well, which begins with nothing spent.")
    console.say(*lines)


def _rerolled_plain(done: Rerolled) -> dict[str, Any]:
    return {
        "key": done.made.secret,
        "key_id": done.made.key_id,
        "api_key_id": done.api_key_id,
        "user_id": done.old.user_id,
        "email": done.old.email,
        "name": done.old.name,
        "credits": done.credits,
        "budgets": done.budgets,
        "old_key_id": done.old.unkey_key_id,
        "old_api_key_id": done.old.id,
        "old_ended": done.ended is not None,
        "old_works_until": rfc3339(done.ends_at),
        **({} if done.ended is None else as_fields(done.ended)),
    }


async def sync(settings: Settings, console: Console, *, repair: bool, revoke_at_most: int, as_json: bool) -> Synced:
    """What differs, and what was repaired."""
    synced = await sync_keys.sync(settings, repair=repair, revoke_at_most=revoke_at_most)
    if as_json:
        console.print_json(_synced_plain(synced))
    else:
        _print_synced(console, settings, synced, repair=repair)
    return synced


def _synced_plain(synced: Synced) -> dict[str, Any]:
    return {
        "keys_at_unkey": synced.at_unkey,
        "rows_only_here": synced.only_here,
        "repaired": len(synced.findings) - synced.left,
        "left": synced.left,
        "drift": [_finding_plain(one) for one in synced.findings],
        "announced": None if synced.announced is None else as_fields(synced.announced),
    }


def _finding_plain(finding: Finding) -> dict[str, Any]:
    told = finding.drift.to_json() | {"outcome": finding.outcome}
    return told | {"hint": None} if finding.outcome == "repaired" else told


def _print_synced(console: Console, settings: Settings, synced: Synced, *, repair: bool) -> None:
    if synced.findings:
        console.print_table(_table(synced.findings))
    repaired = len(synced.findings) - synced.left
    lines = [f"{synced.at_unkey:,} keys at Unkey, {synced.only_here:,} only here: {synced.left:,} differences left"]
    if repair:
        lines[0] += f", {repaired:,} repaired"
    if synced.announced is not None:
        lines.append(describe(synced.announced, bound_of_end(settings.keys)))
    if synced.left and not repair:
        lines.append("`gateway keys sync --repair` makes our side agree where it may.")
    console.say(*lines)


def _table(findings: list[Finding]) -> TextTable:
    table = TextTable()
    for name in ("key id", "differs in", "here", "at Unkey", "", "what to do"):
        table.add_column(name, no_wrap=name == "key id")
    for finding in findings:
        drift = finding.drift
        table.add_row(
            drift.key_id,
            drift.kind.replace("_", " "),
            _side(drift, drift.here),
            _side(drift, drift.at_unkey),
            finding.outcome,
            "" if finding.outcome == "repaired" else drift.hint,
        )
    return table


def _side(drift: Drift, value: str | None) -> str:
    if value is not None:
        return value
    return "unknown" if drift.kind in ("not_linked", "not_at_unkey") else "none"
