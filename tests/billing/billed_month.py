"""A month at a Stripe stand-in: usage booked, reported hour by hour, invoiced, and read back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog

from gateway.accounts.store import Accounts
from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.refresh import Mirror
from gateway.billing.mirror.store import MirrorStore
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.usage.event import UsageEvent
from tests.support.stripe_shop import JANUARY, START, Shop, open_shop
from tests.support.usage import entries, usage

FIRST: Final = datetime.fromtimestamp(START, UTC)
HOUR: Final = timedelta(hours=1)
INVOICED_AT: Final = JANUARY + 2 * 3600
"""An hour after the invoice of December is final."""


class Month(NamedTuple):
    """December 2026, as far as a test has let it go."""

    shop: Shop
    billing: Billing
    ledger: Ledger
    subscription: Any

    @property
    def customer(self) -> str:
        """Stripe's id of who pays."""
        return str(self.subscription.customer)

    async def add_user(self, name: str) -> str:
        """A user for whom the customer pays."""
        return await Accounts(self.ledger.pool).create_user(f"{name}@example.com", stripe_customer_id=self.customer)

    async def book(self, user_id: str, hours: float, *nanos: int, **fields: Any) -> list[UsageEvent]:
        """Calls so many hours after the month's beginning."""
        at = FIRST + timedelta(seconds=int(hours * 3600))
        made = [usage(user_id, at, nano, **fields) for nano in nanos]
        await self.ledger.insert_batch(entries(*made))
        return made

    async def report(self, until: int) -> None:
        """Moves Stripe's clock, and reports what is closed by then."""
        await self.shop.move_to(until)
        now = datetime.fromtimestamp(until, UTC)
        reporter = UsageReporter(
            Outbox(self.ledger.pool),
            self.billing,
            grace_s=300.0,
            monotonic=lambda: 0.0,
            random=lambda: 0.5,
            log=structlog.get_logger("test"),
        )
        counts = await reporter.step_once(now)
        assert (counts.stopped, counts.retry, counts.rejected) == (None, 0, 0)

    async def sync(self) -> None:
        """Reads what Stripe has."""
        await Mirror(StripeReader(self.billing), MirrorStore(self.ledger.pool)).sync(FIRST)

    async def invoice(self) -> Any:
        """The invoice of December, final; read back."""
        await self.shop.move_to(INVOICED_AT)
        await self.sync()
        (found,) = await self.shop.invoices(customer=self.customer)
        return found

    def environment(self, database_url: str) -> dict[str, str]:
        """For commands."""
        return {
            "DATABASE_URL": database_url,
            "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
            "STRIPE_BASE_URL": self.shop.sandbox.stripe_base_url,
        }


@asynccontextmanager
async def open_month(ledger: Ledger) -> AsyncIterator[Month]:
    """At its beginning, with one subscription that Stripe has told of."""
    async with open_shop() as shop:
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=shop.sandbox.stripe_base_url)
        month = Month(shop, billing, ledger, await shop.subscribe())
        await month.sync()
        try:
            yield month
        finally:
            await billing.close()
