"""Checks whether Stripe has the customers of our users, for `users` and `doctor`.

A meter event for a customer that Stripe does not have is received with a 200 and never counted (docs/billing.md).
"""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Final

from gateway.billing.opening import open_billing
from gateway.billing.stripe import Billing
from gateway.billing.windows import Customer
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, DependencyDown, OptionError

AT_ONCE_MAX: Final = 4
"""Questions at the same time: Stripe takes 25 calls a second of a test key."""
NOT_ASKED: Final = "STRIPE_SECRET_KEY is not set here, so nobody has asked Stripe whether {} exists."


async def check_customer(settings: Settings, customer_id: str) -> Customer | None:
    """The customer as Stripe has it; None without a key, when nobody can ask.

    Raises OptionError when nothing sent for this customer would count, ConfigError when the key may not ask,
    DependencyDown when Stripe does not answer.
    """
    if settings.stripe_secret_key is None:
        return None
    async with AsyncExitStack() as stack:
        billing = await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
        try:
            found = await billing.customer(customer_id)
        except ConfigError as error:
            raise ConfigError(f"whether {customer_id} exists: {error} (it must be allowed to read customers)") from None
    if found.problem is not None:
        raise OptionError(f"--stripe-customer: {customer_id} {found.problem}; usage reported for it would be lost")
    return found


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
