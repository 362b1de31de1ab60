"""INV-7: what the outbox calls delivered is what Stripe has counted, by customer and hour, to the micro-USD."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol

from gateway.audit.reads.delivery import Counted, DeliveredHour
from gateway.audit.reads.snapshot import AuditRange
from gateway.audit.result import Collector, InvariantResult, judge, not_checked
from gateway.billing.windows import Customer, Rejected
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.kit.instants import Period

LAG: Final = timedelta(minutes=15)
"""How far Stripe's summaries may lag behind what it has taken."""
SUMMARIES_KEPT: Final = timedelta(days=90)
"""Without a bound, no hour that is longer ago than this is asked for."""
_TITLE: Final = "Stripe"
NOT_ASKED: Final = "Stripe is asked only with --stripe"
NO_KEY: Final = "STRIPE_SECRET_KEY is not set"
_LOOK: Final = (
    "Stripe has counted another amount than the outbox sent: look for meter events made by something else, cancelled "
    "in Stripe, or sent before a restore, and settle the difference with the customer by hand. A customer that Stripe "
    "does not have: link the right one, and bill what was sent by hand (docs/billing.md)."
)


class Summaries(Protocol):
    """What this needs of Stripe."""

    async def read_counts(
        self, event_name: str, customer: str, since: datetime, until: datetime
    ) -> Counted | Rejected: ...
    async def customer(self, customer_id: str) -> Customer: ...


def asked_span(span: AuditRange, now: datetime, billing_grace_s: float) -> Period:
    """The hours that Stripe is asked about: whole, of the last SUMMARIES_KEPT, and none whose events may still be
    frozen or sent while the audit runs."""
    settled = now - LAG - timedelta(seconds=billing_grace_s)
    until = min(span.until or settled, settled.replace(minute=0, second=0, microsecond=0))
    oldest = (now - SUMMARIES_KEPT).replace(minute=0, second=0, microsecond=0)
    return Period(max(span.since or oldest, oldest), until)


async def stripe_agrees(
    hours: AsyncGenerator[DeliveredHour, None], asked: Period, stripe: Summaries
) -> InvariantResult:
    """INV-7 Stripe. The amounts that Stripe will invoice are those that were sent, no more and no less.

    `hours` are those of `asked`, in order of meter and customer; one with an event that is in doubt, or was delivered
    within LAG, is not compared. A customer that Stripe does not have is a breach at once: Stripe has received its
    events and will never count them. On a breach: an invoice will be wrong. Where Stripe does not answer, refuses the
    key or lacks the meter, the other customers are not asked about: a breach found until then is one, else the result
    is "no answer". Raises DependencyDown("postgres").
    """
    async with aclosing(hours), aclosing(_by_customer(hours)) as groups:
        return await _compare(groups, asked, stripe)


async def _compare(groups: AsyncIterator[list[DeliveredHour]], asked: Period, stripe: Summaries) -> InvariantResult:
    seen, why_not = _Seen(), ""
    async for own in groups:
        seen.customers += 1
        if not why_not:
            try:
                await _compare_customer(seen, own, asked, stripe)
            except (DependencyDown, ConfigError) as error:
                why_not = str(error)
        seen.not_compared += bool(why_not)
    result = judge("INV-7", _TITLE, seen.figures(), seen.wrong.offenders(), _LOOK)
    if not why_not:
        return result
    missing = f"{seen.not_compared} of {seen.customers} customers were not compared: {why_not}. Run it again"
    if result.state == "breach":
        return result._replace(look=f"{missing}. {result.look}")
    return result._replace(state="no answer", look=missing)


async def _compare_customer(seen: "_Seen", own: list[DeliveredHour], asked: Period, stripe: Summaries) -> None:
    """Raises ConfigError, DependencyDown("stripe")."""
    first = own[0]
    has = await stripe.read_counts(first.meter, first.customer, asked.since, asked.until)
    is_empty = isinstance(has, Rejected) or (not any(has.values()) and any(hour.micro_usd for hour in own))
    problem = await _problem(stripe, first.customer) if is_empty else None
    if problem is not None:
        seen.lost(own, problem)
    elif isinstance(has, Rejected):
        seen.untold(first.customer, has.reason)
    else:
        seen.compare(own, has)


async def _problem(stripe: Summaries, customer: str) -> str | None:
    """Why Stripe counts nothing of this customer; None where it has it, or where the key may not ask."""
    try:
        return (await stripe.customer(customer)).problem
    except ConfigError:
        return None


class _Seen:
    """Figures and faults while customers go by."""

    def __init__(self) -> None:
        self.wrong: Final = Collector()
        self.not_compared = 0
        """Customers that Stripe gave no answer about."""
        self.customers = self._compared = self._events = self._micro = self._unsettled = 0
        self._lost_customers = self._lost_events = self._lost_micro = 0

    def compare(self, own: list[DeliveredHour], has: Counted) -> None:
        """What Stripe has counted of one customer, hour by hour."""
        first = own[0]
        for hour in own:
            there = has.pop(hour.hour, Decimal(0))
            if hour.unsettled:
                self._unsettled += 1
                continue
            self._compared, self._events = self._compared + 1, self._events + hour.events
            self._micro += hour.micro_usd
            if there != hour.micro_usd:
                self.wrong.add("hour that differs", _describe(first, hour.hour, hour.micro_usd, there))
        for at, there in has.items():
            if there:
                self.wrong.add("hour that only Stripe knows", _describe(first, at, 0, there))

    def lost(self, own: list[DeliveredHour], problem: str) -> None:
        """Stripe cannot have counted anything of this customer."""
        events, micro = sum(hour.events for hour in own), sum(hour.micro_usd for hour in own)
        self._lost_customers += 1
        self._lost_events, self._lost_micro = self._lost_events + events, self._lost_micro + micro
        said = f"{own[0].customer} {problem}: {events} event(s) of {micro} micro-USD were sent and are not counted"
        self.wrong.add("customer that Stripe does not have", said)

    def untold(self, customer: str, reason: str) -> None:
        """Stripe does not say what it has counted, for another reason."""
        self.wrong.add("customer that Stripe says nothing about", f"{customer}: {reason}")

    def figures(self) -> dict[str, int]:
        """What was compared, and what could not be."""
        return {
            "customers": self.customers,
            "hours compared": self._compared,
            "meter events": self._events,
            "micro-USD": self._micro,
            "hours not settled yet": self._unsettled,
            "customers that Stripe does not have": self._lost_customers,
            "their meter events": self._lost_events,
            "their micro-USD": self._lost_micro,
        }


def stripe_not_checked(why: str) -> InvariantResult:
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


def _describe(of: DeliveredHour, at: datetime, sent: int, counted: Decimal) -> str:
    return f"{of.customer} {at:%Y-%m-%d %H:00} UTC: sent {sent}, Stripe has {counted} micro-USD"
