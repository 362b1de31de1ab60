"""A Stripe stand-in at a time that a test moves, with Stripe's own SDK pointed at it and one metered price."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import stripe

from gateway.sandbox import credentials
from gateway.sandbox.server import METER, Sandbox
from tests.support.stand_ins import Clock, control, sandbox_at

HOUR: Final = 3600
DAY: Final = 24 * HOUR
START: Final = 1_796_083_200
"""2026-12-01 00:00:00 UTC: the start of a month."""
JANUARY: Final = START + 31 * DAY
MICRO_USD_CENTS: Final = "0.0001"
"""What one unit of the meter costs."""


class Shop(NamedTuple):
    """What a test of billing begins with."""

    client: stripe.StripeClient
    sandbox: Sandbox
    price: Any

    async def subscribe(self, customer: str | None = None, **fields: Any) -> Any:
        """A subscription to the price, of a new customer unless one is given."""
        owner = customer or (await self.client.v1.customers.create_async({"email": "a@example.com"})).id
        given: Any = {"customer": owner, "items": [{"price": self.price.id}], **fields}
        return await self.client.v1.subscriptions.create_async(given)

    async def use(self, customer: str, value: int | str, at: int, identifier: str | None = None) -> Any:
        """Sends a meter event."""
        payload = {"stripe_customer_id": customer, "value": str(value)}
        given: Any = {"event_name": METER, "payload": payload, "timestamp": at}
        given |= {} if identifier is None else {"identifier": identifier}
        return await self.client.v1.billing.meter_events.create_async(given)

    async def move_to(self, instant: int) -> None:
        """Moves Stripe's clock."""
        await control(self.sandbox, "stripe", "/clock", now=instant, frozen=True)

    async def invoices(self, **query: Any) -> list[Any]:
        """All invoices that the query finds, newest first."""
        page = await self.client.v1.invoices.list_async(query)  # type: ignore[arg-type]
        return [invoice async for invoice in page.auto_paging_iter()]

    async def summed(self, customer: str, start: int, end: int) -> list[float]:
        """The summaries of the customer."""
        span: Any = {"customer": customer, "start_time": start, "end_time": end}
        read = self.client.v1.billing.meters.event_summaries.list_async
        return [one.aggregated_value for one in (await read(self.price.recurring.meter, span)).data]


@asynccontextmanager
async def open_shop(stripe_file: Path | None = None, *, start: int = START) -> AsyncIterator[Shop]:
    """A stand-in at an instant, Unix seconds, with one metered price; `stripe_file` keeps what it knows."""
    http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=10))
    async with sandbox_at(Clock(start), stripe_file) as sandbox:
        base: Any = {"api": sandbox.stripe_base_url, "meter_events": sandbox.stripe_base_url}
        client = stripe.StripeClient(credentials.STRIPE_SECRET_KEY, base_addresses=base, http_client=http)
        meter = (await client.v1.billing.meters.list_async({"status": "active"})).data[0]
        wanted: Any = {
            "currency": "usd",
            "product_data": {"name": "OpenAI usage"},
            "unit_amount_decimal": MICRO_USD_CENTS,
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
            "lookup_key": "openai_usage",
        }
        by_key: Any = {"lookup_keys": [wanted["lookup_key"]]}
        kept = (await client.v1.prices.list_async(by_key)).data
        yield Shop(client, sandbox, kept[0] if kept else await client.v1.prices.create_async(wanted))
    await http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated
