"""INV-7: what the outbox calls delivered is what Stripe has counted, by customer and hour, to the micro-USD."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol

from gateway.edges.audit import Counted, DeliveredHour
from gateway.flows.audit.verdict import Collector, Verdict, judged, not_checked

LAG: Final = timedelta(minutes=15)
"""How far Stripe's summaries may lag behind what it has taken."""
SUMMARIES_KEPT: Final = timedelta(days=90)
"""Without a bound, no hour that is longer ago than this is asked for."""
_HOUR: Final = timedelta(hours=1)
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


async def stripe_agrees(hours: AsyncIterator[DeliveredHour], stripe: Summaries) -> Verdict:
    """INV-7 Stripe. The amounts that Stripe will invoice are those that were sent, no more and no less.

    `hours` in order of meter and customer. Hours with an event that is in doubt, or was delivered within LAG, are not
    compared. On a breach: an invoice will be wrong. Raises ConfigError, DependencyDown.
    """
    wrong, customers, compared, events, micro, unsettled = Collector(), 0, 0, 0, 0, 0
    async for own in _by_customer(hours):
        customers += 1
        first = own[0]
        has = await stripe.counted(first.meter, first.customer, first.hour, own[-1].hour + _HOUR)
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


async def _by_customer(hours: AsyncIterator[DeliveredHour]) -> AsyncIterator[list[DeliveredHour]]:
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
