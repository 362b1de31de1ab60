"""What `gateway users` shows."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from gateway.accounts import users
from gateway.accounts.announce import as_fields, bound_of_start, describe
from gateway.accounts.cost_centres import CostCentreOptions
from gateway.accounts.link import LinkedPayer, LinkOptions
from gateway.accounts.store import User, UserRow
from gateway.accounts.users import ChangedUser
from gateway.billing.customers import NOT_ASKED, describe_customer, mode_of
from gateway.billing.windows import Customer
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import KeySettings, Settings
from gateway.kit.instants import rfc3339
from pricing import nano_text


async def create(
    settings: Settings, console: Console, *, email: str, name: str | None, stripe_customer: str | None, as_json: bool
) -> None:
    """A new user."""
    done = await users.create(settings, email=email, name=name, stripe_customer=stripe_customer)
    _answer(console, done, f"Made user {done.after.email}, id {done.after.id}, {_billed(done.after)}.", as_json=as_json)


async def list_users(
    settings: Settings, console: Console, *, now: datetime, every: bool, ask_stripe: bool, as_json: bool
) -> None:
    """Users, the oldest first."""
    found, known = await users.list_users(settings, now=now, every=every, ask_stripe=ask_stripe)
    if as_json:
        rows = [
            _plain(user)
            | {"active_keys": user.active_keys, "created_at": rfc3339(user.created_at)}
            | (_at_stripe(known.get(user.stripe_customer_id or "")) if ask_stripe else {})
            for user in found
        ]
        console.print_json(rows)
    elif found:
        console.print_table(_table(found, known))
    else:
        hint = "No users. `gateway users create EMAIL` makes one." if every else "No users that are not disabled."
        console.say(hint)


async def set_active(settings: Settings, console: Console, *, who: str, is_active: bool, as_json: bool) -> None:
    """That a user is disabled or enabled, and from when on."""
    user, changed, announced = await users.set_active(settings, who=who, is_active=is_active)
    first = f"{user.email} is {'enabled' if is_active else 'disabled'}{'' if changed else ' already'}."
    said = f"{first} {describe(announced, _bound(settings.keys, is_active=is_active))}"
    console.answer(_plain(user) | as_fields(announced), said, as_json=as_json)


async def set_fields(
    settings: Settings,
    console: Console,
    *,
    who: str,
    payer: LinkOptions | None,
    name: str | None,
    cost_centre: CostCentreOptions | None,
    as_json: bool,
) -> None:
    """What is different about a user, or what would be done with amounts that have accrued."""
    done = await users.set_fields(settings, who=who, payer=payer, name=name, cost_centre=cost_centre)
    said = " ".join(_changes(done.before or done.after, done.after, done.link))
    if done.link is not None and not done.link.done:
        said = f"{describe_link(done.after, done.link)} Nothing was changed: this was a preview. Add --yes to do it."
    if done.cost_centre is not None and cost_centre is not None:
        since = f"from {cost_centre.since:%Y-%m-%d} on"
        said += f" Cost centre {done.cost_centre}, {since}." if done.cost_centre else f" No cost centre {since}."
    _answer(console, done, said, as_json=as_json)


def describe_link(user: User, linked: LinkedPayer) -> str:
    """What becomes of amounts that have accrued, and from when on somebody pays."""
    customer = "nobody" if linked.customer is None else str(linked.customer.stripe_customer_id)
    since = "already" if linked.before == customer else f"from {linked.since:%Y-%m-%d %H:%M} UTC on"
    pays = f"{customer} pays for {user.email} {since}."
    if not linked.windows:
        return pays
    first = min(window.window_start for window in linked.windows)
    last = max(window.window_start + timedelta(seconds=window.window_seconds) for window in linked.windows)
    when = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    what = f"{nano_text(linked.nano)} USD in {len(linked.windows)} window(s), {when}"
    becomes = {
        "bill": f"are billed to {customer}: each window goes to Stripe at its own last second, or, where the invoice "
        "of that time is final, at the present",
        "settle": "are settled elsewhere and not reported",
        "write-off": "are written off and not reported",
    }
    return f"{pays} {what}: they {becomes[linked.action or 'bill']}."


def _bound(keys: KeySettings, *, is_active: bool) -> str:
    """How long it takes where a proxy has not heard."""
    if is_active:
        return bound_of_start(keys)
    return (
        f"Calls that begin within {keys.fresh_s:g} s may still get in (keys.fresh_s), where a proxy remembers the "
        f"user; up to {keys.fresh_s + keys.stale_s:g} s if Unkey does not answer (with keys.stale_s), and for as long "
        "as PostgreSQL does not."
    )


def _changes(before: User, after: User, linked: LinkedPayer | None) -> list[str]:
    lines = [f"{after.email}:"]
    if before.name != after.name:
        lines.append(f"the name is {after.name or '(none)'}, it was {before.name or '(none)'}.")
    old, new = before.stripe_customer_id, after.stripe_customer_id
    if linked is not None and linked.windows:
        lines.append(describe_link(after, linked))
    elif old != new:
        moved = f" It was {old}, who pays for what was used until now (docs/billing.md)." if old else ""
        lines.append(f"{_billed(after)}.{moved}")
    return lines if len(lines) > 1 else [f"{after.email}: nothing changed, it was so before."]


def _billed(user: User) -> str:
    if user.stripe_customer_id is None:
        return "without a Stripe customer: what they use accrues until one is set"
    return f"Stripe customer {user.stripe_customer_id}: what they use is reported to Stripe once its window is closed"


def _asked(customer: str | None, known: Customer | None) -> str:
    """What Stripe said of a customer that is being linked; empty where there is none."""
    if customer is None:
        return ""
    return f" {NOT_ASKED.format(customer)}" if known is None else f" Stripe has it, in {mode_of(known)} mode."


def _at_stripe(found: Customer | str | None) -> dict[str, Any]:
    """For programs; both are null where there is no customer, and where all is well with it the problem is."""
    if isinstance(found, Customer):
        return {"stripe_is_live": found.is_live, "stripe_problem": found.problem}
    return {"stripe_is_live": None, "stripe_problem": found}


def _plain(user: User | UserRow) -> dict[str, Any]:
    return {
        "user_id": user.id,
        "email": user.email,
        "name": user.name,
        "is_active": user.is_active,
        "stripe_customer_id": user.stripe_customer_id,
    }


def _answer(console: Console, done: ChangedUser, said: str, *, as_json: bool) -> None:
    plain = _plain(done.after) | ({} if done.known is None else _at_stripe(done.known)) | _link_fields(done.link)
    console.answer(plain, said + _asked(done.linked, done.known), as_json=as_json)


def _link_fields(linked: LinkedPayer | None) -> dict[str, Any]:
    """For programs; only where amounts had accrued, or nothing was done."""
    if linked is None or (linked.done and not linked.windows):
        return {}
    return {
        "done": linked.done,
        "pays_from": rfc3339(linked.since),
        "accrued": linked.action,
        "accrued_usd": nano_text(linked.nano),
        "accrued_windows": len(linked.windows),
    }


def _table(users: list[UserRow], known: Mapping[str, Customer | str]) -> TextTable:
    table = TextTable()
    for name in ("email", "id", "name", "active", "Stripe customer"):
        table.add_column(name, no_wrap=name == "id")
    table.add_column("keys", right=True, no_wrap=True)
    table.add_column("created")
    for user in users:
        table.add_row(
            user.email,
            user.id,
            user.name or "–",
            "yes" if user.is_active else "no",
            (user.stripe_customer_id or "–") + describe_customer(known.get(user.stripe_customer_id or "")),
            f"{user.active_keys:,}",
            minute(user.created_at),
        )
    return table
