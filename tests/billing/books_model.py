"""Ninety days of a small platform in moved time: usage, payers, plans, credit, outages, Stripe's months; from one seed.

What happens is told to two sides: to the product (PostgreSQL, the ledger, the commands, the reporter and Stripe's SDK
are the real ones, Stripe is the stand-in under its moved clock) and to books_truth.py, which is plain Python.
books_checks.py compares them once everything has healed.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

import msgspec
import structlog

from gateway.accounts.link import ACTIONS, LinkOptions
from gateway.accounts.users import ChangedUser, set_fields
from gateway.audit.marks import Mark
from gateway.billing import held
from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.refresh import Mirror
from gateway.billing.mirror.store import MirrorStore
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.plans.admin import set_plan
from gateway.plans.options import PlanOptions
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent
from gateway.usage.plan_store import PlanStore
from gateway.usage.plans import bill
from tests.billing.books_calls import BEGIN, Proxy, fact
from tests.billing.books_desk import Desk
from tests.billing.books_stripe import AWAITS_MAX, Death, Killed, MortalStripe, StripeSide
from tests.billing.books_truth import PlanFact, Truth
from tests.conftest import METER, WINDOW_S
from tests.support.moved_database import set_now
from tests.support.stripe_shop import Shop
from tests.support.usage import entries, usage

CUSTOMERS: Final = 20
LOST_MAX: Final = 3
"""Customers at a time whom Stripe does not find: it takes their usage, and reports later that it was not counted."""
USERS: Final = 26
"""More than customers: some share one, and some have none for a while."""
GRACE_H: Final = 1
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
OWN_MONTHS: Final = 3
"""Customers whose periods do not end with the months, where Stripe is asked for that."""
DEADLY: Final = 0.15
"""How often a worker dies within a pass."""
LOOKS: Final = 0.06
"""How often the books are looked at between two steps, with whatever waits or is held then."""
HEALS_MAX: Final = 60
"""Hours in which everything must have healed."""


class World:
    """One run. Everything that it decides comes from its seed."""

    def __init__(
        self, seed: int, pool: Pool, worker_pool: Pool, death: Death, shop: Shop, billing: Billing, settings: Settings
    ) -> None:
        self.random: Final = random.Random(seed)
        self.pool: Final = pool
        self.ledger: Final = Ledger(pool, meter=METER, window_s=WINDOW_S)
        self.stripe: Final = StripeSide(shop, self.random)
        self.billing: Final = billing
        self.settings: Final = settings
        self.truth: Final = Truth(Fraction(settings.billing.markup))
        self.now = BEGIN
        self.users: Final[list[str]] = []
        self.customers: Final[list[str]] = []
        self.lost: Final[list[str]] = []
        self.done: Final[Counter[str]] = Counter()
        """How often each thing happened, to see that a run is not empty."""
        self.desk: Final = Desk(self.random, pool, settings, self.stripe, self.truth, self.done)
        self.wrong: Final[list[str]] = []
        """What was not right on the way."""
        self.marks: Final[list[Mark]] = []
        """What later audits go on from, as it was at each look."""
        self._knows_subscriptions: Final = bool(seed % 2)
        """Whether Stripe was asked for its subscriptions, or every period is taken for a calendar month."""
        self._worker_pool: Final = worker_pool
        self._death: Final = death
        self._away_until = BEGIN
        self._correctable: Final[list[UsageEvent]] = []
        self.proxy: Final = Proxy(self.random, settings)
        self._worker = self._start_worker()

    def _start_worker(self) -> UsageReporter:
        return UsageReporter(
            Outbox(self._worker_pool, held.rules_of(self.settings)),
            MortalStripe(self.billing, self._death),
            grace_s=300,
            monotonic=lambda: 0.0,
            random=self.random.random,
            log=structlog.get_logger(),
            failpoint=self._death.pass_by,
        )

    # What happens

    async def run(self, days: int, look: Callable[["World"], Awaitable[list[str]]]) -> None:
        """So many days, and then quiet ones in which everything heals; `look` at the books as they are on the way."""
        await self._open()
        acts: list[tuple[int, Callable[[], Any]]] = [
            (30, self.use),
            (6, self.use_late),
            (5, self.correct),
            (2, self.repeat),
            (2, self.link),
            (1, self.unlink),
            (1, self.write_customer),
            (2, self.pay_in_advance),
            (1, self.change_plan),
            (3, self.stripe_trouble),
            (2, self.outage),
            (1, self.archive_meter),
            (1, lambda: self.desk.decide(self.now)),
            (1, lambda: self.desk.cancel(self.now)),
            (2, self.lose_customer),
        ]
        weights = [weight for weight, _ in acts]
        while self.now < BEGIN + days * DAY:
            for _, act in self.random.choices(acts, weights, k=self.random.randint(1, 6)):
                await self._set_now(self.now + _SECOND)
                await act()
            if self.random.random() < LOOKS:
                self.wrong.extend(await look(self))
                self.done["looked"] += 1
            await self._pass_time()
        await self._heal()

    async def _open(self) -> None:
        await self._set_now(self.now)
        lag_s, is_late = self.random.choice((0, 60, 600)), self.random.random() < 0.5
        await self.stripe.set_ways(summaries_lag_s=lag_s, no_meter_late=is_late)
        for number in range(CUSTOMERS):
            name = f"cus_{number}"
            self.customers.append(name)
            self.truth.modes[name] = "postpaid"
            has_own_months = self._knows_subscriptions and number < OWN_MONTHS
            anchor = BEGIN + timedelta(minutes=self.random.randint(1, 27 * 1440)) if has_own_months else None
            await self.stripe.add_customer(name, anchor)
        for number in range(USERS):
            customer = self.customers[number % CUSTOMERS] if number < CUSTOMERS + 3 else None
            owner = await self.pool.fetchval(_NEW_USER, f"user{number}@example.com", customer)
            self.users.append(owner)
            if customer is not None:
                self.truth.link(owner, customer, self.now, since=ALWAYS)
        await self._sync()

    async def use(self) -> None:
        """Some calls in the last hours, most of one user."""
        user = self.random.choice(self.users)
        calls = [
            (self.random.choice((user, user, self.random.choice(self.users))), self.random.randint(0, 6 * 3600))
            for _ in range(self.random.randint(1, 4))
        ]
        await self._book(*(self.proxy.record(each, self.now - timedelta(seconds=ago)) for each, ago in calls))

    async def use_late(self) -> None:
        """A row that comes up to ten days after its call."""
        await self._book(self.proxy.record(self.random.choice(self.users), self.now - self.random.random() * 10 * DAY))
        self.done["late"] += 1

    async def _book(self, *events: UsageEvent) -> None:
        self._correctable.extend(events)
        await self.ledger.insert_batch(entries(*events))
        self.truth.book([fact(event) for event in events], self.now)
        self.done["rows"] += len(events)

    async def correct(self) -> None:
        """A row turns out dearer or cheaper, or to have cost nothing."""
        if not self._correctable:
            return
        old = self._correctable.pop(self.random.randrange(len(self._correctable)))
        cost, terms = old.cost_nano or 0, self.proxy.plans.named(old.plan_version)
        delta = self.random.choice((-cost, -(cost // 2), cost // 3))
        if not delta or terms is None:
            return
        event = msgspec.structs.replace(
            usage(old.user_id, self.now, 0, evidence="adjustment", adjusts=old.id, tokens=(0, 0)),
            id=self.proxy.new_id(),
            cost_nano=delta,
            billed_nano=bill(cost + delta, (), terms, old.model, None) - (old.billed_nano or 0),
            plan_version=old.plan_version,
        )
        await self.ledger.insert_batch(entries(event))
        assert self.truth.correct(old.id, fact(event), self.now) == event.billed_nano
        self.done["corrected"] += 1

    async def repeat(self) -> None:
        """The stream gives the same entry again, together with a new one."""
        user = self.random.choice(self.users)
        event = self.proxy.record(user, self.now)
        await self._book(event)
        await self.ledger.insert_batch(entries(event, again := self.proxy.record(user, self.now)))
        self.truth.book([fact(event), fact(again)], self.now)
        self.done["repeated"] += 1

    async def link(self) -> None:
        """From now on somebody else pays for a user, sometimes from before; and what has accrued is decided."""
        user = self.random.choice(self.users)
        customer = self.random.choice([name for name in self.customers if name not in self.lost])
        before = self.now - self.random.random() * 3 * DAY
        since = before if self.random.random() < 0.3 and self.truth.can_begin(user, before) else None
        mode = self.random.choice(("prepaid", "postpaid")) if user in self.truth.credit_since else None
        wanted = LinkOptions(customer, since, mode=mode, yes=True)  # type: ignore[arg-type]  # mode is one of them
        is_same = self.truth.payer(user, self.now) == customer
        if is_same and self.truth.unbilled(user) and self.random.random() < 0.7:
            wanted = self._decided(wanted)
        changed = await self._set_payer(user, wanted)
        if changed is None:
            wanted = self._decided(wanted)
            changed = await set_fields(self.settings, who=user, payer=wanted)
        assert changed.link is not None
        # Where the customer stays the same, nothing has to be decided.
        assert changed.link.nano == (0 if is_same and wanted.accrued is None else self.truth.unbilled(user))
        if mode is not None:
            self.truth.modes[customer] = mode
        self.truth.link(user, customer, self.now, since)
        if wanted.accrued is not None:
            self.truth.decide(user, customer, wanted.accrued)
            self.done[f"accrued {wanted.accrued}"] += 1
        self.done["linked"] += 1

    def _decided(self, wanted: LinkOptions) -> LinkOptions:
        """And this becomes of what has accrued."""
        return wanted._replace(accrued=self.random.choice(ACTIONS), reference="in_0", why="agreed")

    async def _set_payer(self, user: str, wanted: LinkOptions) -> ChangedUser | None:
        """None where something has accrued, which asks for a decision."""
        try:
            return await set_fields(self.settings, who=user, payer=wanted)
        except OptionError as error:
            if "--accrued bill" not in str(error):
                raise
            return None

    async def unlink(self) -> None:
        """Nobody pays for a user from now on."""
        user = self.random.choice(self.users)
        await set_fields(self.settings, who=user, payer=LinkOptions(None, yes=True))
        self.truth.link(user, None, self.now)
        self.done["unlinked"] += 1

    async def write_customer(self) -> None:
        """A platform writes who pays into the table of users: from now on, and of what has accrued nothing is said."""
        user, customer = self.random.choice(self.users), self.random.choice([*self.customers, None])
        await self.pool.execute(_WRITE_CUSTOMER, user, customer)
        self.truth.link(user, customer, self.now)
        self.done["written"] += 1

    async def pay_in_advance(self) -> None:
        """Credit, or some of it taken back."""
        user = self.random.choice(self.users[:6])
        nano = self.random.choice((1, 999_999_999, 2_000_000_000, 5_000_000_000, -500_000_000))
        await self.pool.execute(_CREDIT, user, nano)
        self.truth.pay_in_advance(user, nano, self.now)
        self.done["credit"] += 1

    async def change_plan(self) -> None:
        """Another factor within the hour, for a user or for everybody."""
        user = self.random.choice([*self.users[4:8], None, None, None])
        since = self.now + timedelta(seconds=self.random.randint(180, 3600))
        if any(plan.user == user and plan.since > self.now for plan in self.truth.plans):
            return
        factor = self.random.choice(("1", "1.2", "1.07", "0.333333333", "2.5", "0"))
        name = "everybody" if user is None else f"user-{self.users.index(user)}"
        wanted = PlanOptions(name, "markup", {"factor": factor}, user=user, start=since)
        await set_plan(self.settings, wanted, apply=True)
        self.proxy.plans = await PlanStore(self.pool).live()
        self.truth.plans.append(PlanFact(user, since, Fraction(factor)))
        self.done["plan"] += 1

    async def stripe_trouble(self) -> None:
        """The next calls to Stripe go wrong in one of its ways."""
        await self.stripe.make_trouble()
        self.done["trouble"] += 1

    async def outage(self) -> None:
        """No worker runs for a while: seconds to thirty hours, also over the end of a month."""
        self._away_until = self.now + timedelta(seconds=self.random.choice((5, 600, 7200, 8 * 3600, 30 * 3600)))
        self.done["outage"] += 1

    async def archive_meter(self) -> None:
        """Somebody archives the meter at Stripe, and activates it again hours later."""
        await self.stripe.set_meter(is_active=False)
        await self._turn()
        await self._pass_time()
        await self.stripe.set_meter(is_active=True)
        self.done["archived"] += 1

    async def lose_customer(self) -> None:
        """Stripe finds a customer no more, or again (as with a key of the other mode)."""
        if self.lost and self.random.random() < 0.6:
            self.stripe.set_known(self.lost.pop(0), is_known=True)
        elif len(self.lost) < LOST_MAX:
            self.lost.append(self.random.choice([name for name in self.customers if name not in self.lost]))
            self.stripe.set_known(self.lost[-1], is_known=False)
            self.done["lost"] += 1

    # Time

    async def _set_now(self, instant: datetime) -> None:
        self.now = instant
        await set_now(self.pool, instant)

    async def _pass_time(self) -> None:
        step = self.random.choice((HOUR, 6 * HOUR, DAY, DAY, timedelta(minutes=59, seconds=59)))
        await self._move_to(self.now + step)

    async def _move_to(self, instant: datetime) -> None:
        """Stripe's clock and ours; the month's end is not jumped over, because workers pass it often."""
        for edge in (self._next_seal() - timedelta(minutes=5), self._next_seal()):
            if self.now < edge < instant:
                await self._arrive(edge)
        await self._arrive(instant)

    async def _arrive(self, instant: datetime) -> None:
        await self._set_now(instant)
        self.stripe.move_to(instant)
        sealed, self.truth.sealed = self.truth.sealed, self._month(instant - GRACE_H * HOUR + timedelta(minutes=15))
        if self.truth.sealed != sealed:
            await self.pool.fetchval("select seal_books($1)", self.truth.sealed)
        if instant >= self._away_until:
            await self._turn()
            self.done["reports"] += await self.stripe.tell(self.pool, self.billing)

    def _next_seal(self) -> datetime:
        """When the month that holds `now` less its grace is sealed."""
        month = self._month(self.now - GRACE_H * HOUR)
        return self._month(month + 32 * DAY) + GRACE_H * HOUR - timedelta(minutes=15)

    @staticmethod
    def _month(at: datetime) -> datetime:
        return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

    async def _turn(self, *, is_deadly: bool = True) -> None:
        """One pass of the worker, which may die on the way; another one starts then."""
        dies = is_deadly and self.random.random() < DEADLY
        self._death.come_at(self.random.randrange(AWAITS_MAX) if dies else None)
        try:
            await self._worker.step_once(self.now)
        except Killed:
            self.done["killed"] += 1
            self._worker = self._start_worker()
        self._death.come_at(None)

    async def _sync(self) -> None:
        if self._knows_subscriptions:
            await Mirror(StripeReader(self.billing), MirrorStore(self.pool)).sync(BEGIN - 60 * DAY)

    async def _heal(self) -> None:
        """No more troubles: everything that can go out does, and people end the rest."""
        await self.stripe.end_trouble()
        self._away_until = self.now
        while self.lost:
            self.stripe.set_known(self.lost.pop(), is_known=True)
        for hours in range(HEALS_MAX):
            await self._arrive(self.now + HOUR)
            await self._turn(is_deadly=False)
            await self.desk.decide(self.now)
            await self.desk.settle_credit(self.now)
            if hours > HEALS_MAX // 2:
                await self.desk.end_all(self.now)
            if hours > 2 and not await self.pool.fetchval(_WAITS):
                break
        await self._sync()


_NEW_USER: Final = "insert into users (email, stripe_customer_id) values ($1, $2) returning id::text"
_WRITE_CUSTOMER: Final = "update users set stripe_customer_id = $2 where id = $1"
_CREDIT: Final = "insert into credit_entries (user_id, amount_usd) values ($1, $2::bigint * 0.000000001)"
# Whether anything is still to be sent, decided or frozen.
_WAITS: Final = """
select exists (select from stripe_meter_events
    where state not in ('sent', 'duplicate', 'superseded', 'cancelled', 'settled', 'written_off'))
  or exists (select from billing_windows where open and customer_id is not null)
  or exists (select from billing_carry where credit_due_nano <> 0)
"""
