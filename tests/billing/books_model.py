"""Ninety days of a small platform in moved time: usage, payers, credit, outages and Stripe's months, from one seed.

What comes out must be whole: of each customer, to the nano-dollar, what was billed is at Stripe, held, settled, paid by
credit, carried or not frozen yet; and what is at Stripe is on an invoice or will be. PostgreSQL, the ledger, the
reporter and the SDK are the real ones; Stripe is the stand-in under its moved clock.
"""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog

from gateway.billing import held
from gateway.billing.decisions import Action
from gateway.billing.held import WantedDecision
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.billing.windows import NANO_PER_UNIT, unix_seconds
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.support.stand_ins import control
from tests.support.stripe_shop import START, Shop
from tests.support.usage import entries, usage

CUSTOMERS: Final = 20
USERS: Final = 26
"""More than customers: some share one, and some have none for a while."""
GRACE_H: Final = 1
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
BEGIN: Final = datetime.fromtimestamp(START, UTC)
TROUBLES: Final[tuple[dict[str, Any], ...]] = (
    {"status": 429, "reason": "global-rate"},
    {"status": 429, "reason": "global-concurrency"},
    {"status": 429, "code": "lock_timeout"},
    {"status": 500},
    {"status": 500, "accept": True},
    {"drop": True},
    {"drop": True, "accept": True},
    {"body": "", "accept": True},
    {"body": "<html>"},
    {"status": 401},
    {"status": 408, "accept": True},
)


class Killed(BaseException):
    """The worker dies here."""


class Outcome(NamedTuple):
    """Where the amounts of a customer are, nano-USD."""

    billed: int
    credit: int
    open: int
    settled: int
    carry: int
    credit_due: int
    """What Stripe's months could not take back yet."""
    by_state: Counter[str]
    at_stripe: int
    """Of the stand-in: the quantities of all its invoice lines and what its running period counts."""

    accrued: int
    """Frozen for this customer of what users had accrued before anybody paid for them."""

    def unexplained(self) -> int:
        """What is in no place, or in two."""
        live = sum(self.by_state.values()) - self.by_state["superseded"]
        owed = self.billed + self.accrued
        return owed - self.credit - self.open - self.settled - self.carry - live + self.credit_due


class World:
    """One run. Everything that it decides comes from its seed."""

    def __init__(self, seed: int, pool: Pool, ledger: Ledger, shop: Shop, billing: Billing, settings: Settings) -> None:
        self.random: Final = random.Random(seed)
        self.pool: Final = pool
        self.ledger: Final = ledger
        self.shop: Final = shop
        self.billing: Final = billing
        self.settings: Final = settings
        self.now = BEGIN
        self.users: list[str] = []
        self.customers: list[str] = []
        self.rows: list[tuple[str, str, int]] = []
        """Id, user and nano-USD of rows that may still be corrected."""
        self.away_until = BEGIN
        self.done: Final[Counter[str]] = Counter()
        """How often each thing happened, to see that a run is not empty."""
        self.deadly: float = 0.0
        self.reporter = self._start_worker()

    def _start_worker(self) -> UsageReporter:
        return UsageReporter(
            Outbox(self.pool),
            self.billing,
            grace_s=300,
            monotonic=lambda: 0.0,
            random=self.random.random,
            log=structlog.get_logger(),
            failpoint=self._maybe_die,
        )

    def _maybe_die(self, _: str) -> None:
        if self.random.random() < self.deadly:
            raise Killed

    # What happens

    async def run(self, days: int) -> None:
        """So many days, and then two quiet ones in which everything heals."""
        await self._open()
        acts: list[tuple[int, Callable[[], Any]]] = [
            (30, self.use),
            (6, self.use_late),
            (5, self.correct),
            (2, self.repeat),
            (2, self.relink),
            (2, self.pay_in_advance),
            (3, self.stripe_trouble),
            (2, self.outage),
            (1, self.archive_meter),
            (1, self.decide),
        ]
        weights = [weight for weight, _ in acts]
        while self.now < BEGIN + days * DAY:
            for _, act in self.random.choices(acts, weights, k=self.random.randint(2, 8)):
                await act()
            await self._pass_time()
        await self._heal()

    async def _open(self) -> None:
        for number in range(CUSTOMERS):
            name = f"cus_{number}"
            await control(self.shop.sandbox, "stripe", "/customers", id=name)
            await self.shop.subscribe(name)
            self.customers.append(name)
        async with self.pool.acquire() as connection:
            for number in range(USERS):
                owner = await connection.fetchval(
                    "insert into users (email, stripe_customer_id) values ($1, $2) returning id::text",
                    f"user{number}@example.com",
                    self.customers[number % CUSTOMERS] if number < CUSTOMERS + 3 else None,
                )
                self.users.append(owner)

    async def use(self) -> None:
        """Some calls of one user in the last hours."""
        user = self.random.choice(self.users)
        ago = [timedelta(seconds=self.random.randint(0, 6 * 3600)) for _ in range(self.random.randint(1, 4))]
        await self._add_rows(user, *(self.now - each for each in ago))

    async def use_late(self) -> None:
        """A row that comes up to ten days after its call."""
        await self._add_rows(self.random.choice(self.users), self.now - self.random.random() * 10 * DAY)
        self.done["late"] += 1

    async def _add_rows(self, user: str, *instants: datetime) -> None:
        events = [usage(user, max(at, BEGIN), self._amount()) for at in instants]
        self.rows += [(event.id, user, event.billed_nano or 0) for event in events]
        await self.ledger.insert_batch(entries(*events))
        self.done["rows"] += len(events)

    def _amount(self) -> int:
        return self.random.choice((0, 1, 999, 1_000, 123_456, 5_000_001, self.random.randint(0, 3_000_000_000)))

    async def correct(self) -> None:
        """A row turns out dearer or cheaper, or to have cost nothing."""
        if not self.rows:
            return
        adjusted, user, nano = self.rows.pop(self.random.randrange(len(self.rows)))
        delta = self.random.choice((-nano, -(nano // 2), nano // 3))
        if delta:
            await self.ledger.insert_batch(
                entries(usage(user, self.now, delta, evidence="adjustment", adjusts=adjusted, tokens=(0, 0)))
            )
            self.done["corrected"] += 1

    async def repeat(self) -> None:
        """The stream gives the same entry again, together with a new one."""
        user = self.random.choice(self.users)
        event = usage(user, self.now, self.random.randint(1, 10**9))
        self.rows.append((event.id, user, event.billed_nano or 0))
        await self.ledger.insert_batch(entries(event))
        await self.ledger.insert_batch(entries(event, usage(user, self.now, 7)))

    async def relink(self) -> None:
        """From now on somebody else pays for a user, or nobody."""
        user = self.random.choice(self.users)
        customer = self.random.choice([*self.customers, None])
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "update user_customers set valid_to = $2 where user_id = $1 and valid_to is null and valid_from < $2",
                user,
                self.now,
            )
            if customer is not None:
                await connection.execute(
                    """
                    insert into user_customers (user_id, customer_id, valid_from)
                    select $1, id, $3 from customers where stripe_customer_id = $2
                    and not exists (select from user_customers where user_id = $1 and valid_to is null)
                    """,
                    user,
                    customer,
                    self.now,
                )
        self.done["relinked"] += 1

    async def pay_in_advance(self) -> None:
        """Credit, or some of it taken back."""
        async with self.pool.acquire() as connection:
            await connection.execute(
                "insert into credit_entries (user_id, amount_usd) values ($1, $2::bigint * 0.000000001)",
                self.random.choice(self.users[:6]),
                self.random.choice((1, 999_999_999, 2_000_000_000, -500_000_000)),
            )
        self.done["credit"] += 1

    async def stripe_trouble(self) -> None:
        """The next calls to Stripe go wrong in one of its ways."""
        trouble = self.random.choice(TROUBLES)
        await control(self.shop.sandbox, "stripe", "", times=self.random.randint(1, 4), path="meter_events", **trouble)
        self.done["trouble"] += 1

    async def outage(self) -> None:
        """No worker runs for a while: seconds to thirty hours, also over the end of a month."""
        self.away_until = self.now + timedelta(seconds=self.random.choice((5, 600, 7200, 8 * 3600, 30 * 3600)))
        self.done["outage"] += 1

    async def archive_meter(self) -> None:
        """Somebody archives the meter at Stripe, and activates it again hours later."""
        meters = self.shop.client.v1.billing.meters
        await meters.deactivate_async(self.shop.price.recurring.meter)
        await self._turn()
        await self._pass_time()
        await meters.reactivate_async(self.shop.price.recurring.meter)
        self.done["archived"] += 1

    # Time

    async def _pass_time(self) -> None:
        step = self.random.choice((HOUR, 6 * HOUR, DAY, DAY, timedelta(minutes=59, seconds=59)))
        await self._move_to(self.now + step)

    async def _move_to(self, instant: datetime) -> None:
        """Stripe's clock and ours; the month's end is not jumped over, because workers pass it often."""
        for edge in sorted({self._next_seal(), self._next_seal() - timedelta(minutes=5)}):
            if self.now < edge < instant:
                await self._arrive(edge)
        await self._arrive(instant)

    async def _arrive(self, instant: datetime) -> None:
        self.now = instant
        await self.shop.move_to(unix_seconds(instant))
        await self._seal()
        if instant >= self.away_until:
            await self._turn()

    def _next_seal(self) -> datetime:
        """When the month that holds `now` less its grace is sealed."""
        month = (self.now - GRACE_H * HOUR).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        following = (month + 32 * DAY).replace(day=1)
        return following + GRACE_H * HOUR - timedelta(minutes=15)

    async def _seal(self) -> None:
        bound = (self.now - GRACE_H * HOUR + timedelta(minutes=15)).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        async with self.pool.acquire() as connection:
            await connection.fetchval("select seal_books($1)", bound)

    async def _turn(self, *, deadly: float = 0.02) -> None:
        """One pass of the worker, which may die on the way; another one starts then."""
        self.deadly = deadly
        try:
            await self.reporter.step_once(self.now)
        except Killed:
            self.done["killed"] += 1
            self.reporter = self._start_worker()

    async def _heal(self) -> None:
        """No more troubles: everything that can go out does, and the last month is invoiced."""
        await control(self.shop.sandbox, "stripe", "", method="DELETE")
        self.away_until = self.now
        for _ in range(40):
            self.now += HOUR
            await self._arrive(self.now)
            await self._turn(deadly=0.0)
            await self.decide()
        await self._decide("settle", reference="in_2")

    async def decide(self) -> None:
        """Somebody goes through what waits: found at Stripe, sent again, or settled by hand. Stripe's summaries are
        asked first, so what does not fit is refused."""
        for action in ("delivered", "reissue"):
            await self._decide(action)
        if self.random.random() < 0.3:
            await self._decide("settle", reference="in_1")

    async def _decide(self, action: Action, reference: str | None = None) -> None:
        wanted = WantedDecision(action, "looked at Stripe", reference)
        try:
            judged = await held.decide(self.settings, wanted, now=self.now, is_sure=True, by="finance")
        except OptionError:
            return  # nothing waits
        for each in judged:
            self.done[f"{action} {'refused' if each.refusal else 'done'}"] += 1

    # What came of it

    async def outcomes(self) -> dict[str, Outcome]:
        """By Stripe's customer id."""
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(_OUTCOMES)
            states = await connection.fetch(_STATES)
        by_state: dict[str, Counter[str]] = {name: Counter() for name in self.customers}
        for row in states:
            by_state[row["customer"]][row["state"]] += row["value"] * NANO_PER_UNIT
        return {
            row["customer"]: Outcome(
                row["billed"],
                row["credit"],
                row["open"],
                row["settled"],
                row["carry"],
                row["credit_due"],
                by_state[row["customer"]],
                await self._at_stripe(row["customer"]),
                row["accrued"],
            )
            for row in rows
        }

    async def accrued_without_event(self) -> int:
        """What events say less than the windows of users that are frozen, nano-USD."""
        async with self.pool.acquire() as connection:
            return int(await connection.fetchval(_WITHOUT_EVENT))

    async def _at_stripe(self, customer: str) -> int:
        invoices = await self.shop.invoices(customer=customer)
        invoiced = sum(line.quantity for invoice in invoices for line in invoice.lines.data)
        (subscription,) = (await self.shop.client.v1.subscriptions.list_async({"customer": customer})).data
        item = subscription["items"].data[0]
        running = await self.shop.summed(customer, item.current_period_start, unix_seconds(self.now) // 60 * 60)
        return NANO_PER_UNIT * (int(invoiced) + int(sum(running)))


_OUTCOMES: Final = """
select c.stripe_customer_id as customer, coalesce(c2.nano, 0)::bigint as carry,
  coalesce(c2.credit_due_nano, 0)::bigint as credit_due,
  (select coalesce(sum(billed_usd) * 1000000000, 0)::bigint from openai_usage where customer_id = c.id) as billed,
  (select coalesce(sum(nano), 0)::bigint from stripe_meter_events where customer_id = c.id and user_id is not null
    and state <> 'superseded') as accrued,
  coalesce(sum(w.credit_nano), 0)::bigint as credit, coalesce(sum(w.settled_nano), 0)::bigint as settled,
  coalesce(sum(w.billed_nano - w.credit_nano - w.frozen_nano - w.settled_nano), 0)::bigint as open
from customers c left join billing_windows w on w.customer_id = c.id left join billing_carry c2 on c2.customer_id = c.id
group by c.id, c2.nano, c2.credit_due_nano
"""
_STATES: Final = "select customer, state, sum(value)::bigint as value from stripe_meter_events group by 1, 2"
_WITHOUT_EVENT: Final = """
select (select coalesce(sum(nano), 0) from stripe_meter_events where user_id is not null and state <> 'superseded')
  - (select coalesce(sum(frozen_nano), 0) from billing_windows where user_id is not null)
"""
