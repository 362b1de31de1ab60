"""Checks whether Stripe has the customers of our users, and whether it would bill them, for `users` and `doctor`.

A meter event for a customer that Stripe does not have is received with a 200 and never counted (docs/billing.md), and
one for a customer without a subscription to the meter's price is on no invoice.
"""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Final

from gateway.billing.mirror.read import StripeReader
from gateway.billing.opening import open_billing
from gateway.billing.stripe import Billing
from gateway.billing.windows import Customer
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, DependencyDown, OptionError

AT_ONCE_MAX: Final = 4
"""Questions at the same time: Stripe takes 25 calls a second of a test key."""
_NEVER_BEGAN: Final = ("incomplete", "incomplete_expired")
NOT_ASKED: Final = "STRIPE_SECRET_KEY is not set here, so nobody has asked Stripe whether {} exists."


async def check_customer(settings: Settings, customer_id: str) -> Customer | None:
    """The customer as Stripe has it; None without a key, when nobody can ask.

    Raises OptionError when nothing sent for this customer would count or be invoiced, ConfigError when the key may not
    ask, DependencyDown when Stripe does not answer.
    """
    if settings.stripe_secret_key is None:
        return None
    async with AsyncExitStack() as stack:
        billing = await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
        try:
            found = await billing.customer(customer_id)
            if found.problem is not None:
                what = f"{customer_id} {found.problem}; usage reported for it would be lost"
                raise OptionError(f"--stripe-customer: {what}")
            reader, meter = StripeReader(billing), settings.billing.meter_event_name
            if (obstacle := await _find_obstacle(reader, customer_id, found.currency, meter)) is not None:
                raise OptionError(f"--stripe-customer: {customer_id} {obstacle}. Nothing was changed")
        except ConfigError as error:
            allowed = "it must be allowed to read customers, subscriptions and prices"
            raise ConfigError(f"whether {customer_id} can be billed: {error} ({allowed})") from None
    return found


async def _find_obstacle(reader: StripeReader, customer_id: str, currency: str | None, meter: str) -> str | None:
    """Why no invoice would have the customer's usage, and what to do; None where one will.

    A subscription to a price of the meter settles the currency too: Stripe bills all of a subscription in one
    (stripe-python, `Subscription.currency`). Where the account has no subscription at all, periods are calendar
    months (docs/billing.md), and usage may be sent before the first subscription is made.
    """
    items = await reader.subscriptions_of(customer_id)
    if any(one.meter == meter and one.ended_at is None and one.status not in _NEVER_BEGAN for one in items):
        return None
    can_be = await reader.currencies_of_price(meter) if currency not in (None, "usd") else set()
    if currency not in (None, "usd", *can_be):
        return (
            f"is charged in {currency} at Stripe, and no price with the lookup key {meter} has that currency: give the "
            f"price of `gateway stripe setup` currency_options for {currency}, or link another customer"
        )
    if await reader.has_subscriptions():
        return (
            f"has no subscription with a price on the meter {meter}, so its usage would be on no invoice: subscribe it "
            "to the price of `gateway stripe setup` first"
        )
    return None


async def ask_customers(billing: Billing, customer_ids: Iterable[str]) -> dict[str, Customer | str]:
    """Each customer as Stripe has it, or why it could not be asked. Raises nothing that Stripe causes."""
    room = asyncio.Semaphore(AT_ONCE_MAX)

    async def ask(customer_id: str) -> tuple[str, Customer | str]:
        async with room:
            try:
                return customer_id, await billing.customer(customer_id)
            except (ConfigError, DependencyDown) as error:
                return customer_id, str(error)

    return dict(await asyncio.gather(*(ask(one) for one in dict.fromkeys(customer_ids))))


async def ask_all(settings: Settings, customer_ids: Iterable[str]) -> dict[str, Customer | str]:
    """`ask_customers` with a connection of its own. Raises ConfigError without a key."""
    if settings.stripe_secret_key is None:
        raise ConfigError("STRIPE_SECRET_KEY is not set: Stripe cannot be asked about customers")
    async with AsyncExitStack() as stack:
        billing = await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
        return await ask_customers(billing, customer_ids)


def mode_of(customer: Customer) -> str:
    """`live` or `test`."""
    return "live" if customer.is_live else "test"


def describe_customer(found: Customer | str | None) -> str:
    """What a list shows beside the customer's id; empty where nobody asked."""
    if found is None:
        return ""
    if isinstance(found, str):
        return f" (not known: {found})"
    return f" ({found.problem or mode_of(found)})"
