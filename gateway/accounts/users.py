"""`gateway users`: creates, lists and changes accounts. Users are never deleted, only disabled.

Which key is let in is decided by the proxy (access/admission.py), which reads what is written here.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from gateway.accounts.announce import announce, as_fields, bound_of_start, describe
from gateway.accounts.identify import NAME_MAX, is_email, known_user
from gateway.accounts.store import Accounts, User, UserRow
from gateway.billing.customers import NOT_ASKED, ask_all, check_customer, describe_customer, mode_of
from gateway.billing.windows import Customer
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import KeySettings, Settings
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database

CUSTOMER_MAX: Final = 255
_CUSTOMER: Final = re.compile(r"cus_[A-Za-z0-9_]+", re.ASCII)
_WHY: Final = "users are in PostgreSQL"


async def create(
    settings: Settings,
    console: Console,
    *,
    email: str,
    name: str | None = None,
    stripe_customer: str | None = None,
    as_json: bool = False,
) -> User:
    """Makes a user, prints and returns them. Raises OptionError when one exists, an option is wrong or Stripe has no
    such customer, ConfigError, DependencyDown.
    """
    address = valid_email(email)
    title = None if name is None else valid_name(name)
    customer = None if stripe_customer is None else valid_customer(stripe_customer)
    known = None if customer is None else await check_customer(settings, customer)
    async with database(settings, _WHY) as pool:
        accounts = Accounts(pool)
        made = await accounts.create(address, name=title, stripe_customer_id=customer)
        if made is None:
            raise await _taken(accounts, address, customer)
    sentence = f"Made user {made.email}, id {made.id}, {_billed(made)}.{_asked(customer, known)}"
    _say(console, made, sentence, known, as_json=as_json)
    return made


async def list_users(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    every: bool = False,
    ask_stripe: bool = False,
    as_json: bool = False,
) -> list[UserRow]:
    """Prints the users, oldest first, and returns them; disabled ones only with `every`. With `ask_stripe` also whether
    Stripe has their customers. Raises ConfigError, DependencyDown.
    """
    async with database(settings, _WHY) as pool:
        users = await Accounts(pool).users(now=now, inactive_too=every)
    customers = [user.stripe_customer_id for user in users if user.stripe_customer_id is not None]
    known = await ask_all(settings, customers) if ask_stripe else {}
    if as_json:
        rows = [
            _plain(user)
            | {"active_keys": user.active_keys, "created_at": rfc3339(user.created_at)}
            | (_at_stripe(known.get(user.stripe_customer_id or "")) if ask_stripe else {})
            for user in users
        ]
        console.print_json(rows)
    elif users:
        console.print_table(_table(users, known))
    else:
        hint = "No users. `gateway users create EMAIL` makes one." if every else "No users that are not disabled."
        console.say(hint)
    return users


async def set_active(settings: Settings, console: Console, *, who: str, is_active: bool, as_json: bool = False) -> User:
    """Disables or enables a user, and says when it takes effect. Raises OptionError when there is none, ConfigError,
    DependencyDown.
    """
    async with database(settings, _WHY) as pool:
        accounts = Accounts(pool)
        user = await known_user(accounts, who)
        changed = await accounts.set_active(user.id, is_active=is_active)
    user = user._replace(is_active=is_active)
    verb = "enabled" if is_active else "disabled"
    first = f"{user.email} is {verb}{'' if changed else ' already'}."
    announced = await announce(settings, users=[user.id])
    if as_json:
        console.print_json(_plain(user) | as_fields(announced), indent=None)
    else:
        console.say(f"{first} {describe(announced, _bound(settings.keys, is_active=is_active))}")
    return user


async def set_fields(
    settings: Settings,
    console: Console,
    *,
    who: str,
    stripe_customer: str | None = None,
    unlink: bool = False,
    name: str | None = None,
    as_json: bool = False,
) -> User:
    """Links a user to a Stripe customer (or, with `unlink`, to none) and renames them; an empty name is none.

    Raises OptionError when an option is wrong, Stripe has no such customer or it is another user's, ConfigError,
    DependencyDown.
    """
    if stripe_customer is not None and unlink:
        raise OptionError("--stripe-customer and --no-stripe-customer contradict each other: give one")
    if stripe_customer is None and not unlink and name is None:
        raise OptionError("nothing to set: give --stripe-customer, --no-stripe-customer or --name")
    customer = None if stripe_customer is None else valid_customer(stripe_customer)
    title = valid_name(name) if name else None
    known = None if customer is None else await check_customer(settings, customer)
    async with database(settings, _WHY) as pool:
        accounts = Accounts(pool)
        before = after = await known_user(accounts, who)
        if stripe_customer is not None or unlink:
            if not await accounts.set_stripe_customer(before.id, customer):
                raise await _taken(accounts, "", customer)
            after = after._replace(stripe_customer_id=customer)
        if name is not None:
            await accounts.set_name(before.id, title)
            after = after._replace(name=title)
    _say(console, after, " ".join(_changes(before, after)) + _asked(customer, known), known, as_json=as_json)
    return after


def valid_email(text: str) -> str:
    """The address, in lower case as it is stored. Raises OptionError."""
    address = text.strip().lower()
    if not is_email(address):
        raise OptionError(f"EMAIL: {text!r} is not an e-mail address (like ann@example.com)")
    return address


def valid_name(text: str) -> str:
    """The name without blanks around it. Raises OptionError."""
    name = text.strip()
    if not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise OptionError(f"--name: 1 to {NAME_MAX} printable characters on one line")
    return name


def valid_customer(text: str) -> str:
    """The Stripe customer's id. Raises OptionError; whether Stripe has it, `check_customer` asks."""
    customer = text.strip()
    if not _CUSTOMER.fullmatch(customer) or len(customer) > CUSTOMER_MAX:
        # Not repeated: what does not begin with cus_ may be a secret key.
        raise OptionError("--stripe-customer: an id of Stripe's that begins with cus_ (cus_NffrFeUfNV2Hib)")
    return customer


async def _taken(accounts: Accounts, email: str, customer: str | None) -> OptionError:
    """Why a user could not be made or linked: what was asked for is somebody's."""
    exists = await accounts.find(email) if email else None
    if exists is not None:
        disabled = "" if exists.is_active else ", and is disabled: `gateway users enable` ends that"
        return OptionError(f"EMAIL: there is a user {exists.email} already ({exists.id}){disabled}")
    payer = await accounts.of_customer(customer) if customer else None
    whose = "another user's" if payer is None else f"that of {payer.email} ({payer.id})"
    return OptionError(f"--stripe-customer: {customer} is {whose} already; one customer pays for one user")


def _bound(keys: KeySettings, *, is_active: bool) -> str:
    """How long it takes where a proxy has not heard."""
    if is_active:
        return bound_of_start(keys)
    return (
        f"Calls that begin within {keys.fresh_s:g} s may still get in (keys.fresh_s), where a proxy remembers the "
        f"user; up to {keys.fresh_s + keys.stale_s:g} s if Unkey does not answer (with keys.stale_s), and for as long "
        "as PostgreSQL does not."
    )


def _changes(before: User, after: User) -> list[str]:
    lines = [f"{after.email}:"]
    if before.name != after.name:
        lines.append(f"the name is {after.name or '(none)'}, it was {before.name or '(none)'}.")
    old, new = before.stripe_customer_id, after.stripe_customer_id
    if old != new:
        moved = f" It was {old}, who pays for what was frozen until now (docs/billing.md)." if old else ""
        lines.append(f"{_billed(after)}.{moved}")
    return lines if len(lines) > 1 else [f"{after.email}: nothing changed, it was so before."]


def _billed(user: User) -> str:
    if user.stripe_customer_id is None:
        return "without a Stripe customer: what they use accrues until one is set"
    return (
        f"Stripe customer {user.stripe_customer_id}: what has accrued is reported to Stripe once its window is closed"
    )


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


def _say(console: Console, user: User, sentence: str, known: Customer | None, *, as_json: bool) -> None:
    if as_json:
        told = _plain(user) | ({} if known is None else _at_stripe(known))
        console.print_json(told, indent=None)
    else:
        console.say(sentence)


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
