"""Customers: who pays for users, how, and what an operator changes about them. They are made when a user is linked."""

from datetime import datetime
from typing import Any, Final, NamedTuple

from gateway.accounts.link import MODES, change_mode, require_usd
from gateway.accounts.payers import CustomerRow, PayerStore
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.stores.one_connection import database
from gateway.trail.record import recording
from gateway.trail.store import Deed

LISTED_MAX: Final = 100_000
_WHY: Final = "customers are in PostgreSQL"
_TEXT_MAX: Final = {"--name": 255, "--tax-note": 500}


class CustomerChange(NamedTuple):
    """What becomes different; None stays, an empty text is none."""

    name: str | None = None
    mode: str | None = None
    currency: str | None = None
    tax_note: str | None = None


class ShownCustomer(NamedTuple):
    """A customer and the periods in which it pays for users."""

    customer: CustomerRow
    users: list[dict[str, Any]]
    credit_nano: int
    """What is left of the prepaid credit of its users."""
    stripe_credit: tuple[int, datetime] | None
    """Of mode `grants`: nano-USD that calls may still use, and when the balance was read at Stripe."""


async def list_customers(settings: Settings) -> list[tuple[CustomerRow, int]]:
    """All of them, each with the number of its users, the oldest first. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        return await PayerStore(pool).customers(LISTED_MAX)


async def show_customer(settings: Settings, *, name: str) -> ShownCustomer:
    """One of them. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        payers = PayerStore(pool)
        customer = await known_customer(payers, name)
        credit_nano, _ = await payers.credit_of(customer.id)
        at_stripe = await payers.stripe_credit(customer.id) if customer.mode == "grants" else None
        return ShownCustomer(customer, await payers.users(customer.id), credit_nano, at_stripe)


async def set_customer(settings: Settings, *, name: str, change: CustomerChange) -> CustomerRow:
    """Changes a customer. Raises OptionError, ConfigError, DependencyDown."""
    if change == CustomerChange():
        raise OptionError("nothing to set: give --name, --mode, --currency or --tax-note")
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        payers = PayerStore(record.connections)
        before = after = await known_customer(payers, name)
        if change.name is not None:
            after = after._replace(name=_text("--name", change.name))
        if change.tax_note is not None:
            after = after._replace(tax_note=_text("--tax-note", change.tax_note))
        if change.currency is not None:
            after = after._replace(currency=_currency(change.currency))
        if change.mode is not None:
            if change.mode not in MODES:
                raise OptionError(f"--mode: {change.mode!r} is not one of {', '.join(MODES)}")
            after = await change_mode(payers, after, change.mode)
        else:
            require_usd(after)
            after = await payers.change(after)
        await record.write(Deed("set", "customer", before.id, before._asdict(), after._asdict()))
    return after


async def known_customer(payers: PayerStore, name: str) -> CustomerRow:
    """The customer with this id, ours or Stripe's, or this name. Raises OptionError."""
    found = await payers.find(name.strip()) if name.strip().isprintable() else []
    if len(found) != 1:
        how = "several are called so; give an id" if found else "`gateway customers list` has all of them"
        raise OptionError(f"CUSTOMER: {'which is' if found else 'there is no'} {name!r}: {how}")
    return found[0]


def _text(option: str, text: str) -> str | None:
    cleaned, most = text.strip(), _TEXT_MAX[option]
    if len(cleaned) > most or (cleaned and not cleaned.isprintable()):
        raise OptionError(f"{option}: at most {most} printable characters on one line")
    return cleaned or None


def _currency(text: str) -> str:
    code = text.strip().lower()
    if len(code) != 3 or not (code.isascii() and code.isalpha()):
        raise OptionError("--currency: three letters, as Stripe writes them (usd)")
    return code
