"""Reads customers, subscriptions, invoices and credit grants from Stripe (stripe-python 16.1 has their members).

An object that Stripe does not have is None. Raises ConfigError when the key may not read it, DependencyDown when Stripe
does not answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import stripe

from gateway.billing.mirror.rows import CreditGrant, Invoice, InvoiceLine, StripeCustomer, SubscriptionItem
from gateway.billing.stripe import Billing
from gateway.billing.stripe_answers import member, translate_error
from gateway.billing.windows import unix_seconds

PAGE: Final = 100
MISSING: Final = "resource_missing"
"""Stripe's code for an object that a parameter names, as a customer who is deleted."""


class StripeReader:
    """One per process; remembers which meter a price is of, which never changes."""

    def __init__(self, billing: Billing) -> None:
        self._billing: Final = billing
        self._meters: Final[dict[str, str | None]] = {}
        """Event names by the meter's id."""
        self._prices: Final[dict[str, str | None]] = {}
        """Event names by the price's id."""

    @property
    def is_live(self) -> bool:
        """Whether the key is of live mode."""
        return self._billing.is_live

    async def account(self) -> str:
        """Whose account the key is of: `acct_…`."""
        return (await self._billing.account()).partition("/")[0]

    async def customer(self, customer_id: str) -> StripeCustomer | None:
        """A customer; one that was deleted says so."""
        found = await _ask(lambda: self._client.v1.customers.retrieve_async(customer_id))
        if found is None:
            return None
        deleted = bool(member(found, "deleted"))
        return StripeCustomer(customer_id, deleted, member(found, "currency"), member(found, "livemode"))

    async def subscription(self, subscription_id: str) -> list[SubscriptionItem] | None:
        """Its items, each in its present period."""
        found = await _ask(lambda: self._client.v1.subscriptions.retrieve_async(subscription_id))
        return None if found is None else await self._items(found)

    async def subscriptions(self) -> AsyncIterator[list[SubscriptionItem]]:
        """All of them, ended ones too."""
        async for found in _pages(lambda: self._client.v1.subscriptions.list_async({"status": "all", "limit": PAGE})):
            yield await self._items(found)

    async def subscriptions_of(self, customer_id: str) -> list[SubscriptionItem]:
        """A customer's items, those that have ended too."""
        wanted: Any = {"customer": customer_id, "status": "all", "limit": PAGE}
        pages = _pages(lambda: self._client.v1.subscriptions.list_async(wanted))
        return [item async for found in pages for item in await self._items(found)]

    async def has_subscriptions(self) -> bool:
        """Whether anybody is billed by a subscription at all."""
        page = await _ask(lambda: self._client.v1.subscriptions.list_async({"status": "all", "limit": 1}))
        return bool(page.data)

    async def currencies_of_price(self, lookup_key: str) -> set[str]:
        """In which the price with this key can be charged; none where there is no such price. Stripe shows a price's
        other currencies only where they are asked for (its API reference, `currency_options`)."""
        wanted: Any = {"lookup_keys": [lookup_key], "active": True, "expand": ["data.currency_options"]}
        page = await _ask(lambda: self._client.v1.prices.list_async(wanted))
        options = [member(price, "currency_options") for price in page.data]
        others = {name for each in options if each is not None for name in each.to_dict()}
        return {price.currency for price in page.data} | others

    async def invoice(self, invoice_id: str) -> Invoice | None:
        """An invoice with all its lines."""
        found = await _ask(lambda: self._client.v1.invoices.retrieve_async(invoice_id))
        return None if found is None else await self._invoice(found)

    async def invoices(self, since: datetime) -> AsyncIterator[Invoice]:
        """Those made since then."""
        created: Any = {"created": {"gte": unix_seconds(since)}, "limit": PAGE}
        async for found in _pages(lambda: self._client.v1.invoices.list_async(created)):
            yield await self._invoice(found)

    async def credit_grant(self, grant_id: str) -> CreditGrant | None:
        """A grant, and what is left of it."""
        found = await _ask(lambda: self._client.v1.billing.credit_grants.retrieve_async(grant_id))
        return None if found is None else await self._grant(found)

    async def credit_grants(self) -> AsyncIterator[CreditGrant]:
        """All of them."""
        async for found in _pages(lambda: self._client.v1.billing.credit_grants.list_async({"limit": PAGE})):
            yield await self._grant(found)

    async def credit_left(self, customer_id: str) -> int:
        """Cents of USD that the customer's grants for metered prices have left now (stripe-python,
        `CreditBalanceSummary`); 0 where Stripe has no such customer."""
        scope = {"type": "applicability_scope", "applicability_scope": {"price_type": "metered"}}
        wanted: Any = {"customer": customer_id, "filter": scope}
        summary = await _ask(lambda: self._client.v1.billing.credit_balance_summary.retrieve_async(wanted))
        amounts = [member(one, "available_balance", "monetary") for one in member(summary, "balances") or []]
        return sum(member(one, "value") or 0 for one in amounts if member(one, "currency") == "usd")

    async def invoiced_until(self, customer_id: str, meter: str) -> datetime | None:
        """Until when the customer's usage of this meter is on a final invoice; None where none is final."""
        wanted: Any = {"customer": customer_id, "limit": 10}  # the newest first
        async for found in _pages(lambda: self._client.v1.invoices.list_async(wanted)):
            if found.status_transitions.finalized_at is not None and found.status != "void":
                lines = (await self._invoice(found)).lines
                if ends := [line.until for line in lines if line.meter == meter]:
                    return max(ends)
        return None

    async def event(self, event_id: str) -> dict[str, Any] | None:
        """A thin event whole, which Stripe keeps for 30 days."""
        found = await _ask(lambda: self._client.v2.core.events.retrieve_async(event_id))
        return None if found is None else dict(found.to_dict())

    async def meter_name(self, meter_id: str) -> str | None:
        """The event name of a meter, active or not."""
        if meter_id not in self._meters:
            found = await _ask(lambda: self._client.v1.billing.meters.retrieve_async(meter_id))
            self._meters[meter_id] = member(found, "event_name")
        return self._meters[meter_id]

    @property
    def _client(self) -> stripe.StripeClient:
        return self._billing.client

    async def _items(self, found: Any) -> list[SubscriptionItem]:
        items = found["items"]  # `items` alone is the method of a dict
        every = list(items.data)
        if items.has_more:
            wanted: Any = {"subscription": found.id, "limit": PAGE}
            every = [one async for one in _pages(lambda: self._client.v1.subscription_items.list_async(wanted))]
        return [await self._item(found, one) for one in every]

    async def _item(self, found: Any, item: Any) -> SubscriptionItem:
        meter_id = member(item.price, "recurring", "meter")
        return SubscriptionItem(
            item.id,
            found.id,
            _id(found.customer),
            item.price.id,
            None if meter_id is None else await self.meter_name(meter_id),
            meter_id,
            found.currency,
            found.status,
            _at(found.start_date),
            _at(found.billing_cycle_anchor),
            _at(item.current_period_start),
            _at(item.current_period_end),
            _maybe(found.cancel_at),
            _maybe(found.ended_at),
            bool(found.livemode),
        )

    async def _invoice(self, found: Any) -> Invoice:
        lines = list(found.lines.data)
        if found.lines.has_more:
            wanted: Any = {"limit": PAGE}
            lines = [
                one async for one in _pages(lambda: self._client.v1.invoices.line_items.list_async(found.id, wanted))
            ]
        of = member(found, "parent", "subscription_details", "subscription")
        return Invoice(
            found.id,
            found.number,
            _id(found.customer or found.customer_account),
            None if of is None else _id(of),
            found.status or "draft",
            found.currency,
            found.billing_reason,
            _at(found.period_start),
            _at(found.period_end),
            found.subtotal,
            found.total,
            found.pre_payment_credit_notes_amount + found.post_payment_credit_notes_amount,
            _at(found.created),
            _maybe(found.status_transitions.finalized_at),
            tuple([await self._line(line) for line in lines]),
            bool(found.livemode),
        )

    async def _line(self, line: Any) -> InvoiceLine:
        price = member(line, "pricing", "price_details", "price")
        price_id = None if price is None else _id(price)
        quantity = member(line, "quantity_decimal")
        if quantity is None:
            quantity = member(line, "quantity")
        return InvoiceLine(
            line.id,
            line.amount,
            line.currency,
            None if quantity is None else format(Decimal(str(quantity)), "f"),
            line.description,
            member(line, "parent", "subscription_item_details", "subscription_item"),
            price_id,
            None if price_id is None else await self._meter_of(price_id),
            _at(line.period.start),
            _at(line.period.end),
            sum(one.amount for one in member(line, "pretax_credit_amounts") or []),
        )

    async def _meter_of(self, price_id: str) -> str | None:
        if price_id not in self._prices:
            price = await _ask(lambda: self._client.v1.prices.retrieve_async(price_id))
            meter_id = member(price, "recurring", "meter")
            self._prices[price_id] = None if meter_id is None else await self.meter_name(meter_id)
        return self._prices[price_id]

    async def _grant(self, found: Any) -> CreditGrant:
        wanted: Any = {
            "customer": _id(found.customer),
            "filter": {"type": "credit_grant", "credit_grant": found.id},
        }
        summary = await _ask(lambda: self._client.v1.billing.credit_balance_summary.retrieve_async(wanted))
        balances = member(summary, "balances") or []
        available = [member(one, "available_balance", "monetary", "value") for one in balances]
        monetary = member(found, "amount", "monetary")
        return CreditGrant(
            found.id,
            _id(found.customer),
            found.category,
            member(monetary, "currency") or "usd",
            member(monetary, "value") or 0,
            None if not available or None in available else sum(available),
            _maybe(found.effective_at),
            _maybe(found.expires_at),
            _maybe(found.voided_at),
            _at(found.created),
            bool(found.livemode),
        )


async def _ask(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call of the SDK gives; None where Stripe has no such object: 404 for one of the path, else 400."""
    try:
        return await call()
    except stripe.InvalidRequestError as error:
        if error.http_status == 404 or error.code == MISSING:
            return None
        raise translate_error(error) from error
    except stripe.StripeError as error:
        raise translate_error(error) from error


async def _pages(call: Callable[[], Awaitable[Any]]) -> AsyncIterator[Any]:
    """Every object of a list, page by page."""
    try:
        page = await call()
        async for found in page.auto_paging_iter():
            yield found
    except stripe.StripeError as error:
        raise translate_error(error) from error


def _id(value: Any) -> str:
    """Of an object, or of what stands for it where it is not expanded."""
    return value if isinstance(value, str) else str(value.id)


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _maybe(seconds: int | None) -> datetime | None:
    return None if seconds is None else _at(seconds)
