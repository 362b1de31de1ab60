"""Creates, lists and changes accounts. Users are never deleted, only disabled.

Which key is let in is decided by the proxy (access/admission.py), which reads what is written here.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from gateway.accounts.announce import Announced, announce
from gateway.accounts.cost_centres import CostCentreOptions, set_cost_centre
from gateway.accounts.identify import NAME_MAX, is_email, known_user
from gateway.accounts.link import LinkedPayer, LinkOptions, link
from gateway.accounts.store import Accounts, User, UserRow
from gateway.billing.customers import ask_all, check_customer
from gateway.billing.windows import Customer
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.stores.one_connection import database
from gateway.trail.record import recording
from gateway.trail.store import Deed
from pricing import nano_text

CUSTOMER_MAX: Final = 255
_CUSTOMER: Final = re.compile(r"cus_[A-Za-z0-9_]+", re.ASCII)
_WHY: Final = "users are in PostgreSQL"


class ChangedUser(NamedTuple):
    """A user, before a change and after it; `before` is None for a new one."""

    before: User | None
    after: User
    linked: str | None
    """The Stripe customer that was linked."""
    known: Customer | None
    """What Stripe says of it; None where it was not asked."""
    link: LinkedPayer | None = None
    """What became of the one who pays; None where that did not change."""
    cost_centre: str | None = None
    """The one that was set; empty: none from now on."""


class ListedUsers(NamedTuple):
    """Users, the oldest first."""

    users: list[UserRow]
    known: Mapping[str, Customer | str]
    """By Stripe customer: what Stripe says of it, or why it says nothing."""


class SwitchedUser(NamedTuple):
    """A user who was disabled or enabled."""

    user: User
    changed: bool
    announced: Announced


async def create(
    settings: Settings, *, email: str, name: str | None = None, stripe_customer: str | None = None
) -> ChangedUser:
    """Makes a user. Raises OptionError when one exists, an option is wrong or Stripe has no such customer, ConfigError,
    DependencyDown.
    """
    address = valid_email(email)
    title = None if name is None else valid_name(name)
    customer = None if stripe_customer is None else valid_customer(stripe_customer)
    known = None if customer is None else await check_customer(settings, customer)
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        accounts = Accounts(record.connections)
        made = await accounts.create(address, name=title, stripe_customer_id=customer)
        if made is None:
            raise await _taken(accounts, address)
        await record.write(Deed("create", "user", made.id, None, made._asdict()))
    return ChangedUser(None, made, customer, known)


async def list_users(
    settings: Settings, *, now: datetime, every: bool = False, ask_stripe: bool = False
) -> ListedUsers:
    """Disabled ones only with `every`. With `ask_stripe` also whether Stripe has their customers. Raises ConfigError,
    DependencyDown.
    """
    async with database(settings, _WHY) as pool:
        users = await Accounts(pool).users(now=now, inactive_too=every)
    customers = [user.stripe_customer_id for user in users if user.stripe_customer_id is not None]
    return ListedUsers(users, await ask_all(settings, customers) if ask_stripe else {})


async def set_active(settings: Settings, *, who: str, is_active: bool) -> SwitchedUser:
    """Disables or enables a user. Raises OptionError when there is none, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        accounts = Accounts(record.connections)
        user = await known_user(accounts, who)
        changed = await accounts.set_active(user.id, is_active=is_active)
        verb, before = "enable" if is_active else "disable", {"is_active": changed ^ is_active}
        await record.write(Deed(verb, "user", user.id, before, {"is_active": is_active}))
    return SwitchedUser(user._replace(is_active=is_active), changed, await announce(settings, users=[user.id]))


async def set_fields(
    settings: Settings,
    *,
    who: str,
    payer: LinkOptions | None = None,
    name: str | None = None,
    cost_centre: CostCentreOptions | None = None,
) -> ChangedUser:
    """Changes who pays for a user (accounts/link.py), the name (an empty one is none) and the cost centre.

    Raises OptionError when an option is wrong or Stripe has no such customer, ConfigError, DependencyDown.
    """
    if payer is None and name is None and cost_centre is None:
        raise OptionError("nothing to set: give --stripe-customer, --no-stripe-customer, --name or --cost-centre")
    title = valid_name(name) if name else None
    customer = None if payer is None else payer.customer
    known = None if customer is None else await check_customer(settings, customer)
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        accounts = Accounts(record.connections)
        before = after = await known_user(accounts, who)
        linked = None if payer is None else await link(record, before, payer)
        if linked is not None:
            if not linked.done:
                return ChangedUser(before, before, customer, known, linked)
            after = after._replace(stripe_customer_id=customer)
        if name is not None:
            await accounts.set_name(before.id, title)
            after = after._replace(name=title)
        more = {} if cost_centre is None else await set_cost_centre(record, cost_centre, user_id=before.id)
        more |= {} if linked is None or linked.action is None else _told(linked, payer)
        await record.write(Deed("set", "user", before.id, before._asdict(), {**after._asdict(), **more}))
    return ChangedUser(before, after, customer, known, linked, None if cost_centre is None else cost_centre.code)


def _told(linked: LinkedPayer, payer: LinkOptions | None) -> dict[str, object]:
    """What the record of changes says of accrued amounts."""
    given = {} if payer is None else {"reference": payer.reference, "why": payer.why}
    return {"accrued": linked.action, "accrued_usd": nano_text(linked.nano), **given}


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


async def _taken(accounts: Accounts, email: str) -> OptionError:
    """Why a user could not be made: the address is somebody's."""
    exists = await accounts.find(email)
    if exists is None:
        return OptionError(f"EMAIL: {email} was somebody's a moment ago; try again")
    disabled = "" if exists.is_active else ", and is disabled: `gateway users enable` ends that"
    return OptionError(f"EMAIL: there is a user {exists.email} already ({exists.id}){disabled}")
