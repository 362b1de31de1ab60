"""INV-7: what the outbox calls delivered is what Stripe has counted, by customer and hour, to the micro-USD."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol

from gateway.core.instants import Period
from gateway.edges.audit import Counted, DeliveredHour, Span
from gateway.flows.audit.verdict import Collector, Verdict, judged, not_checked

LAG: Final = timedelta(minutes=15)
"""How far Stripe's summaries may lag behind what it has taken."""
SUMMARIES_KEPT: Final = timedelta(days=90)
"""Without a bound, no hour that is longer ago than this is asked for."""
_TITLE: Final = "Stripe"
NOT_ASKED: Final = "Stripe is asked only with --stripe"
NO_KEY: Final = "STRIPE_SECRET_KEY is not set"
_LOOK: Final = (
    "Stripe has counted another amount than the outbox sent: look for meter events made by something else, cancelled "
    "in Stripe, or sent before a restore (docs/billing.md), and settle the difference with the customer by hand."
)


class Summaries(Protocol):
    """What this needs of the Stripe edge."""

    async def counted(self, event_name: str, customer: str, since: datetime, until: datetime) -> Counted: ...


def asked_span(span: Span, now: datetime, billing_grace_s: float) -> Period:
    """The hours that Stripe is asked about: whole, of the last SUMMARIES_KEPT, and none whose events may still be
    frozen or sent while the audit runs."""
    settled = now - LAG - timedelta(seconds=billing_grace_s)
    until = min(span.until or settled, settled.replace(minute=0, second=0, microsecond=0))
    oldest = (now - SUMMARIES_KEPT).replace(minute=0, second=0, microsecond=0)
    return Period(max(span.since or oldest, oldest), until)


async def stripe_agrees(hours: AsyncGenerator[DeliveredHour, None], asked: Period, stripe: Summaries) -> Verdict:
    """INV-7 Stripe. The amounts that Stripe will invoice are those that were sent, no more and no less.

    `hours` are those of `asked`, in order of meter and customer; one with an event that is in doubt, or was delivered
    within LAG, is not compared. On a breach: an invoice will be wrong. Raises ConfigError, DependencyDown.
    """
    async with aclosing(hours), aclosing(_by_customer(hours)) as groups:
        return await _compared(groups, asked, stripe)


async def _compared(groups: AsyncIterator[list[DeliveredHour]], asked: Period, stripe: Summaries) -> Verdict:
    wrong, customers, compared, events, micro, unsettled = Collector(), 0, 0, 0, 0, 0
    async for own in groups:
        customers += 1
        first = own[0]
        has = await stripe.counted(first.meter, first.customer, asked.since, asked.until)
        for hour in own:
            there = has.pop(hour.hour, Decimal(0))
            if hour.unsettled:
                unsettled += 1
                continue
            compared, events, micro = compared + 1, events + hour.events, micro + hour.micro_usd
            if there != hour.micro_usd:
                wrong.add("hour that differs", _said(first, hour.hour, hour.micro_usd, there))
        for at, there in has.items():
            if there:
                wrong.add("hour that only Stripe knows", _said(first, at, 0, there))
    figures = {
        "customers": customers,
        "hours compared": compared,
        "meter events": events,
        "micro-USD": micro,
        "hours not settled yet": unsettled,
    }
    return judged("INV-7", _TITLE, figures, wrong.offenders(), _LOOK)


def stripe_not_checked(why: str) -> Verdict:
    """INV-7 without Stripe."""
    return not_checked("INV-7", _TITLE, why)


async def _by_customer(hours: AsyncIterator[DeliveredHour]) -> AsyncGenerator[list[DeliveredHour], None]:
    group: list[DeliveredHour] = []
    async for hour in hours:
        if group and (group[0].meter, group[0].customer) != (hour.meter, hour.customer):
            yield group
            group = []
        group.append(hour)
    if group:
        yield group


def _said(of: DeliveredHour, at: datetime, sent: int, counted: Decimal) -> str:
    return f"{of.customer} {at:%Y-%m-%d %H:00} UTC: sent {sent}, Stripe has {counted} micro-USD"
