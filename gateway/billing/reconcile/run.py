"""Reconciles a month with Stripe: what each customer was billed, step by step to what the invoice says."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from gateway.billing.customers import AT_ONCE_MAX
from gateway.billing.explain.chain import OutboxEvent
from gateway.billing.explain.store import ExplainStore
from gateway.billing.opening import open_billing
from gateway.billing.reconcile.compare import PayerMonth, PayerResult, compare_month
from gateway.billing.reconcile.store import MonthRead, ReconcileStore, WindowSums, of_lines
from gateway.billing.stripe import Billing
from gateway.billing.windows import Rejected
from gateway.config.settings import Settings, require_values
from gateway.kit.instants import Period
from gateway.stores.one_connection import database

_WHY: Final = "ledger and outbox are in PostgreSQL"
_NONE: Final = WindowSums(0, 0, 0, 0, 0, 0)
NOBODY: Final = ""
"""Stands for those for whom nobody pays yet."""
Summaries = Mapping[str, Mapping[str, Decimal] | str]
"""By customer, then by meter, what Stripe has counted in the month; or why it cannot say."""


class MonthResult(NamedTuple):
    """A month, customer by customer."""

    period: Period
    payers: tuple[PayerResult, ...]
    read_at: datetime

    @property
    def fails(self) -> bool:
        """Whether somebody has to look."""
        return any(one.fails for one in self.payers)


async def reconcile(settings: Settings, period: Period, now: datetime) -> MonthResult:
    """All customers of a month (UTC). Raises ConfigError without Stripe's key, DependencyDown."""
    async with AsyncExitStack() as stack:
        key = require_values(settings, "stripe_secret_key")["stripe_secret_key"]
        billing = await open_billing(stack, settings, key)
        pool = await stack.enter_async_context(database(settings, _WHY))
        store = ExplainStore(pool)
        read = await ReconcileStore(pool).month(period.since, period.until)
        lines = of_lines(await store.lines_between(period.since, period.until))
        subscriptions, months = await store.subscriptions(), []
        for customer in sorted(_customers(read) | lines.keys()):
            month = _of_customer(read, customer)
            filed = [event for _, event in read.events if event.customer == customer]
            for line in lines.get(customer, []):
                # A line's period need not be the month.
                filed += await store.events_filed(customer, line.meter, line.since, line.until)
            known = {one.id: one for one in filed}
            own = None if subscriptions is None else subscriptions.get(customer, {})
            filed = [known[each] for each in sorted(known)]
            months.append(month._replace(filed=filed, lines=lines.get(customer, []), subscriptions=own))
        summaries = await read_summaries(billing, months, period)
    results = [
        compare_month(one, period.since, period.until, summaries.get(one.customer), now)
        for one in months
        if one.customer != NOBODY
    ]
    accrued = _of_customer(read, NOBODY)
    if accrued.ledger or accrued.windows_billed:
        results.append(compare_month(accrued, period.since, period.until, None, now))
    return MonthResult(period, tuple(results), now)


async def read_summaries(billing: Billing, months: list[PayerMonth], period: Period) -> Summaries:
    """What Stripe has counted in the month for each customer and meter that anything was filed for."""
    room = asyncio.Semaphore(AT_ONCE_MAX)

    async def ask(customer: str, meter: str) -> tuple[str, str, Decimal | str]:
        async with room:
            found = await billing.read_counts(meter, customer, period.since, period.until)
        return customer, meter, found.reason if isinstance(found, Rejected) else sum(found.values(), Decimal(0))

    wanted = {(one.customer, event.meter) for one in months for event in one.filed if one.customer != NOBODY}
    wanted |= {(one.customer, line.meter) for one in months for line in one.lines}
    answers: dict[str, dict[str, Decimal] | str] = {}
    for customer, meter, counted in await asyncio.gather(*(ask(*each) for each in sorted(wanted))):
        if isinstance(counted, str):
            answers[customer] = counted
        elif not isinstance(known := answers.setdefault(customer, {}), str):
            known[meter] = counted
    return answers


def _customers(read: MonthRead) -> set[str]:
    """Stripe's ids of all customers that the month is about."""
    ids = {each for each in (*read.ledger, *read.windows) if each is not None}
    linked = {known.stripe_id for each in ids if (known := read.customers.get(each)) is not None}
    return {each for each in linked if each is not None} | {event.customer for _, event in read.events}


def _of_customer(read: MonthRead, customer: str) -> PayerMonth:
    """A customer at Stripe, or all for whom nobody pays there yet."""
    ids: set[UUID | None] = {each.id for each in read.customers.values() if (each.stripe_id or NOBODY) == customer}
    if customer == NOBODY:
        ids |= {None}
    windows = [read.windows.get(each, _NONE) for each in ids]
    events: list[OutboxEvent] = [event for payer, event in read.events if payer in ids and _is_within(read, event)]
    names = [read.customers[each].name for each in ids if each is not None]
    return PayerMonth(
        customer,
        names[0] if len(names) == 1 else NOBODY,
        sum(read.ledger.get(each, 0) for each in ids),
        sum(one.own for one in windows) + sum(read.before.get(each, 0) for each in ids),
        sum(one.credit for one in windows),
        sum(one.settled for one in windows),
        sum(one.open for one in windows),
        sum(one.frozen for one in windows),
        sum(read.customers[each].due for each in ids if each is not None),
        events,
        (),
        (),
        accrued=sum(one.accrued for one in windows),
    )


def _is_within(read: MonthRead, event: OutboxEvent) -> bool:
    return read.since <= event.window_start < read.until
