"""What has to be at Stripe for our usage to be billed: a meter, a product, a price of 0.0001 cents for a micro-USD, and
what its webhooks come from (setup_webhooks.py).
Finds what is there, says what differs, and makes only what is missing; twice is once.

The product's id and the price's lookup key are the meter's event name. A meter and a price can never be changed
(Stripe's docs): another price takes the lookup key over, and subscriptions that have the old one keep it.
"""

from decimal import Decimal
from typing import Any, Final, NamedTuple

import stripe

from gateway.billing.setup_step import Step
from gateway.billing.setup_webhooks import WantedWebhooks, find_webhooks
from gateway.billing.stripe import Billing
from gateway.billing.stripe_answers import member, meter_problems, translate_error
from gateway.kit.errors import ConfigError

CENTS: Final = Decimal("0.0001")
"""What a micro-USD costs, in cents."""
PRODUCT_NAME: Final = "OpenAI usage"
_METERED: Final = {"currency": "usd", "recurring.interval": "month", "recurring.usage_type": "metered"}


class Prepared(NamedTuple):
    """What was found, and what was done."""

    steps: tuple[Step, ...]
    meter_id: str | None
    price_id: str | None
    made: tuple[str, ...]


async def prepare(
    billing: Billing, event_name: str, *, dry_run: bool, webhooks: WantedWebhooks | None = None
) -> Prepared:
    """Looks at all of it, and makes what is missing unless `dry_run`; webhooks where they are wanted.

    Raises ConfigError when the meter would count wrongly or the key may not do it, DependencyDown when Stripe is away.
    """
    try:
        return await _prepare(billing, event_name, dry_run, webhooks)
    except stripe.StripeError as error:
        raise translate_error(error) from error


async def _prepare(billing: Billing, event_name: str, dry_run: bool, webhooks: WantedWebhooks | None) -> Prepared:
    steps, made = [], []

    async def do(step: Step, found: Any) -> Any:
        steps.append(step)
        if step.make is None or dry_run:
            return found
        made.append(step.what)
        return await step.make()

    meter = await do(*await _meter(billing, event_name))
    product = await do(*await _product(billing, event_name))
    price = await do(*await _price(billing, event_name, member(meter, "id"), member(product, "id")))
    for step in [] if webhooks is None else await find_webhooks(billing.client, webhooks):
        await do(step, None)
    return Prepared(tuple(steps), member(meter, "id"), member(price, "id"), tuple(made))


async def _meter(billing: Billing, event_name: str) -> tuple[Step, Any]:
    page = await billing.client.v1.billing.meters.list_async({"status": "active", "limit": 100})
    found = [one async for one in page.auto_paging_iter() if one.event_name == event_name]
    what = f"meter {event_name}"
    if not found:
        wanted = ("sum of values per customer (by id), event name and value as the gateway sends them",)
        return Step(what, "missing", wanted, lambda: _make_meter(billing, event_name)), None
    problems = meter_problems(found[0])
    if problems:
        raise ConfigError(f"Stripe meter {event_name!r}: {'; '.join(problems)}")
    return Step(what, "is there", (), None), found[0]


async def _make_meter(billing: Billing, event_name: str) -> Any:
    return await billing.client.v1.billing.meters.retrieve_async(await billing.ensure_meter(event_name))


async def _product(billing: Billing, event_name: str) -> tuple[Step, Any]:
    products, what = billing.client.v1.products, f"product {event_name}"
    found: Any = None
    try:
        found = await products.retrieve_async(event_name)
    except stripe.InvalidRequestError as error:
        if error.http_status != 404:
            raise
    if found is None:
        wanted: Any = {"id": event_name, "name": PRODUCT_NAME, "unit_label": "micro-USD"}
        return Step(what, "missing", (f"name: {PRODUCT_NAME}",), lambda: products.create_async(wanted)), None
    if not found.active:
        again: Any = {"active": True}
        return Step(what, "differs", ("active: no → yes",), lambda: products.update_async(found.id, again)), found
    return Step(what, "is there", (), None), found


async def _price(billing: Billing, event_name: str, meter_id: str | None, product_id: str | None) -> tuple[Step, Any]:
    prices, what = billing.client.v1.prices, f"price {event_name}"
    by_key: Any = {"lookup_keys": [event_name], "active": True}
    page = await prices.list_async(by_key)
    found = page.data[0] if page.data else None
    wanted: Any = {
        "currency": "usd",
        "unit_amount_decimal": CENTS,
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter_id},
        "product": product_id or event_name,
        "lookup_key": event_name,
        "nickname": "1 micro-USD",
    }
    if found is None:
        new = (f"unit_amount_decimal: {CENTS} cents for a micro-USD, monthly, metered",)
        return Step(what, "missing", new, lambda: prices.create_async(wanted)), None
    differing = _differences(found, meter_id)
    if not differing:
        return Step(what, "is there", (), None), found
    details = (*differing, "another price is made and takes the lookup key; subscriptions keep the old one until moved")
    wanted["transfer_lookup_key"] = True
    return Step(what, "differs", details, lambda: prices.create_async(wanted)), found


def _differences(price: Any, meter_id: str | None) -> tuple[str, ...]:
    amount = member(price, "unit_amount_decimal")
    found = []
    if amount is None or Decimal(str(amount)) != CENTS:
        found.append(f"unit_amount_decimal: {amount} → {CENTS}")
    for path, wanted in _METERED.items():
        if (value := member(price, *path.split("."))) != wanted:
            found.append(f"{path}: {value} → {wanted}")
    if meter_id is not None and (meter := member(price, "recurring", "meter")) != meter_id:
        found.append(f"recurring.meter: {meter} → {meter_id}")
    return tuple(found)
