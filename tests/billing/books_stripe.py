"""The outside of the model of the books: Stripe in moved time, and a worker that may die at any await.

Everything here is told to the stand-in or read from it; what it means for the books is in books_model.py.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final
from unittest.mock import patch

from gateway.billing.stripe import Billing
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.billing.webhooks.notice_store import NoticeStore
from gateway.billing.webhooks.opening import build_stripe_events
from gateway.billing.webhooks.recheck import HourRecheck
from gateway.billing.windows import MeterEvent, StripeAnswer, unix_seconds
from gateway.kit.errors import ConfigError
from gateway.sandbox.stripe.meters import AcceptedEvent
from gateway.sandbox.stripe.reports import notification
from gateway.stores import one_connection, postgres_connections
from gateway.stores.postgres import Pool, open_pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.support.stand_ins import control
from tests.support.stripe_shop import Shop

TROUBLES: Final[tuple[dict[str, Any], ...]] = (
    {"status": 429, "reason": "global-rate"},
    {"status": 429, "reason": "global-concurrency"},
    {"status": 429, "reason": "endpoint-rate"},
    {"status": 429, "reason": "endpoint-concurrency"},
    {"status": 429, "reason": "resource-specific"},
    {"status": 429, "code": "lock_timeout"},
    {"status": 409},
    {"status": 500},
    {"status": 500, "accept": True},
    {"status": 503, "accept": True},
    {"drop": True},
    {"drop": True, "accept": True},
    {"body": "", "accept": True},
    {"body": "<html>"},
    {"status": 401},
    {"status": 408, "accept": True},
)
AWAITS_MAX: Final = 80
"""Awaits of a worker's pass, among which it dies at one."""
HOUR_S: Final = 3600


class Killed(BaseException):
    """The worker dies here, and whatever else it had under way with it."""


class Death:
    """When a worker dies: at the n-th await of its pass."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.is_over = False

    def come_at(self, await_: int | None) -> None:
        """A new worker has begun; None: it lives."""
        self.left, self.is_over = await_, False

    def pass_by(self, _name: str = "") -> None:
        """At each await, before it and after it."""
        if self.left is not None and not self.is_over:
            self.left -= 1
            self.is_over = self.left < 0
        if self.is_over:
            raise Killed


async def mortal_pool(dsn: str, death: Death) -> Pool:
    """A worker's own connections: it may die before each statement and after it. What the server does when a connection
    breaks off is done for it: it rolls back."""

    class Mortal(postgres_connections.Connection):
        async def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
            if query.startswith("ROLLBACK"):
                return await super().execute(query, *arguments, **options)
            death.pass_by()
            done = await super().execute(query, *arguments, **options)
            death.pass_by()
            return done

        async def fetch(self, *arguments: Any, **options: Any) -> Any:
            death.pass_by()
            found = await super().fetch(*arguments, **options)
            death.pass_by()
            return found

        async def fetchrow(self, *arguments: Any, **options: Any) -> Any:
            death.pass_by()
            found = await super().fetchrow(*arguments, **options)
            death.pass_by()
            return found

        async def fetchval(self, *arguments: Any, **options: Any) -> Any:
            death.pass_by()
            found = await super().fetchval(*arguments, **options)
            death.pass_by()
            return found

    with patch.object(postgres_connections, "Connection", Mortal):
        return await open_pool(dsn, connections_max=4)


@contextmanager
def commands_share(pool: Pool) -> Iterator[None]:
    """A command opens connections of its own for one statement or two; here all of them have these, which saves half of
    a run's time."""

    class Lent:
        def __getattr__(self, name: str) -> Any:
            return getattr(pool, name)

        async def close(self) -> None:
            """They stay open."""

    async def lend(*_: Any, **__: Any) -> Any:
        return Lent()

    with patch.object(one_connection, "open_pool", lend):
        yield


class MortalStripe:
    """Stripe as a worker asks it, which may die before each question and after it."""

    def __init__(self, billing: Billing, death: Death) -> None:
        self._billing: Final = billing
        self._death: Final = death

    async def account(self) -> str:
        return await self._billing.account()

    async def refusal(self, event_name: str) -> str | None:
        self._death.pass_by()
        return await self._billing.refusal(event_name)

    async def deliver(self, event: MeterEvent) -> StripeAnswer:
        self._death.pass_by()
        answer = await self._billing.deliver(event)
        self._death.pass_by()
        return answer


class StripeSide:
    """The stand-in, as the model moves it and looks at it."""

    def __init__(self, shop: Shop, dice: random.Random) -> None:
        self.shop: Final = shop
        self._dice: Final = dice

    async def set_ways(self, **ways: Any) -> None:
        """Where nobody knows what Stripe does."""
        await control(self.shop.sandbox, "stripe", "/ways", **ways)

    async def add_customer(self, name: str, anchor: datetime | None = None) -> None:
        """Stripe knows the customer from now on, and invoices it monthly; from `anchor` on where its months are its
        own."""
        await control(self.shop.sandbox, "stripe", "/customers", id=name)
        await self.shop.subscribe(name, **({} if anchor is None else {"billing_cycle_anchor": unix_seconds(anchor)}))

    def set_known(self, name: str, *, is_known: bool) -> None:
        """Whether Stripe finds the customer when it counts usage; with this key it may be of the other mode."""
        self.shop.sandbox.stripe.customers.all[name]["livemode"] = not is_known

    def move_to(self, instant: datetime) -> None:
        """Stripe's clock; what falls due meanwhile is done."""
        self.shop.sandbox.stripe.account.clock.move_to(unix_seconds(instant), is_frozen=True)
        self.shop.sandbox.stripe.settle()

    async def make_trouble(self) -> None:
        """The next meter events go wrong in one of Stripe's ways."""
        trouble, times = self._dice.choice(TROUBLES), self._dice.randint(1, 4)
        await control(self.shop.sandbox, "stripe", "", times=times, path="meter_events", **trouble)

    async def end_trouble(self) -> None:
        """Stripe does what it should."""
        await control(self.shop.sandbox, "stripe", "", method="DELETE")

    async def set_meter(self, *, is_active: bool) -> None:
        """Somebody archives the meter, or activates it again."""
        meters, meter = self.shop.client.v1.billing.meters, self.shop.price.recurring.meter
        await (meters.reactivate_async if is_active else meters.deactivate_async)(meter)

    async def tell(self, pool: Pool, billing: Billing) -> int:
        """Stripe reports what it has not counted, and a worker hears of it; how many reports."""
        reported = self.shop.sandbox.stripe.report(at_once=True)
        events = [
            WebhookEvent(one["id"], one["type"], None, json.dumps(notification(one)).encode()) for one in reported
        ]
        if events:
            await StripeInbox(pool).store(events)
            worker = build_stripe_events(billing, pool)
            while await worker.step_once():
                pass
        recheck = HourRecheck(NoticeStore(pool), billing)
        with suppress(ConfigError):  # the meter is archived: it is due again later, as in the worker
            while await recheck.step_once():
                pass
        return len(events)

    async def invoiced(self, customer: str) -> int:
        """Whole micro-USD on all invoices of a customer, and of what the running period counts."""
        invoices = await self.shop.invoices(customer=customer)
        lines = sum(line.quantity for invoice in invoices for line in invoice.lines.data)
        (subscription,) = (await self.shop.client.v1.subscriptions.list_async({"customer": customer})).data
        since = subscription["items"].data[0].current_period_start
        own = (event for event in self.counted() if event.customer == customer and event.timestamp >= since)
        return int(lines) + sum(int(event.value) for event in own)

    def counted(self) -> list[AcceptedEvent]:
        """Every event that Stripe counts."""
        return [event for event in self.shop.sandbox.stripe.events if not event.cancelled]

    def by_hour(self) -> Counter[tuple[str, int]]:
        """Whole micro-USD that Stripe counts, by customer and hour."""
        hours: Counter[tuple[str, int]] = Counter()
        for event in self.counted():
            hours[event.customer, event.timestamp // HOUR_S * HOUR_S] += int(event.value)
        return hours
