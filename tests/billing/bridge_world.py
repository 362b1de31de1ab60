"""Users, customers and months in a real database, to which anything that moves money may happen in any order."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.close.periods import Periods
from gateway.close.seal import seal
from gateway.kit.clock import now
from gateway.kit.ids import uuid7
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool, in_transaction
from gateway.usage.event import encode
from tests.billing.outboxes import reissue
from tests.support.events import call

FIRST: Final = datetime(1980, 1, 1, tzinfo=UTC)
# Only states that may still change: what a person has decided is final.
_SET_STATE: Final = """
update stripe_meter_events set state = $2, delivered_at = case when $2 in ('sent', 'duplicate') then now() end,
  settled_ref = case when $2 = 'settled' then 'in_1' end, next_attempt_at = null
where id = (select id from stripe_meter_events where state = any($1::text[])
  order by md5(id::text || $3) limit 1)
returning id
"""
_INVOICE: Final = """
insert into stripe_invoices (id, customer, subscription, status, currency, period_start, period_end, subtotal, total,
  created_at, lines, is_live, asked_at)
select $1, e.customer, 'sub_1', $2, 'usd', e.event_timestamp - interval '240 hours', e.event_timestamp
  + interval '240 hours', 0, 0, now(), '[]', false, now()
from stripe_meter_events e order by md5(e.id::text || $1) limit 1
on conflict (id) do nothing
"""


def month_after(month: datetime) -> datetime:
    """The first instant of the next month."""
    return (month + timedelta(days=31)).replace(day=1)


class World:
    """One example: users of its own, and two months that no other example has."""

    def __init__(self, pool: Pool, number: int) -> None:
        self.pool: Final = pool
        self.ledger: Final = Ledger(pool, meter="openai_usage_micro_usd", window_s=3600)
        self.number: Final = number
        year, month = divmod(number * 2, 12)
        self.months: Final = [FIRST.replace(year=FIRST.year + year, month=month + 1)]
        self.months.append(month_after(self.months[0]))
        self.users: list[str] = []
        self.entries: list[LedgerEntry] = []
        self.rows: list[Any] = []
        self.sealed = 0

    async def begin(self) -> None:
        """Three users: one is linked from the beginning, one has a customer in common, one has none."""
        accounts = Accounts(self.pool)
        for name, customer in (("ann", "a"), ("bob", "a"), ("cid", None)):
            linked = customer and f"cus_{customer}{self.number}"
            self.users.append(await accounts.create_user(f"{name}{self.number}@example.com", stripe_customer_id=linked))

    async def do(self, what: str, seed: int) -> None:
        """One of ACTIONS."""
        await ACTIONS[what](self, Random(seed))

    async def row(self, dice: Random, *, late: bool = False) -> None:
        month = self.months[0 if late or not self.sealed else min(self.sealed, 1)]
        at = month + timedelta(seconds=dice.randint(0, 2_400_000), microseconds=dice.randint(0, 999_999))
        event_id = uuid7(int(at.timestamp() * 1000), dice.getrandbits(80))
        cost = dice.choice((0, 1, 999, 1000, 1_234_567, dice.randint(0, 5_000_000)))
        user = dice.choice(self.users)
        plan, billed = dice.choice((("markup:1.2", cost + cost // 5), ("free@1", 0)))
        event = call(
            user, event_id, started_at=at, completed_at=at, cost_nano=cost, billed_nano=billed, plan_version=plan
        )
        self.rows.append(event)
        await self._insert(LedgerEntry(event.id, encode(event)))

    async def late_row(self, dice: Random) -> None:
        await self.row(dice, late=True)

    async def repeat(self, dice: Random) -> None:
        if self.entries:
            await self._insert(dice.choice(self.entries))

    async def adjust(self, dice: Random) -> None:
        if not self.rows:
            return
        of, at = dice.choice(self.rows), now()
        nano = dice.choice((-1, 1, -999, 1000, -of.cost_nano, dice.randint(-2_000_000, 2_000_000)))
        event_id = uuid7(int(at.timestamp() * 1000), dice.getrandbits(80))
        event = call(
            of.user_id, event_id, evidence="adjustment", adjusts=of.id, response_id=None, cost_nano=nano,
            billed_nano=nano + nano // 5, started_at=of.started_at, completed_at=at,
        )  # fmt: skip
        await self._insert(LedgerEntry(event.id, encode(event)))

    async def link(self, dice: Random) -> None:
        customer = dice.choice((f"cus_a{self.number}", f"cus_b{self.number}", f"cus_c{self.number}", None))
        await Accounts(self.pool).set_stripe_customer(dice.choice(self.users), customer)

    async def credit(self, dice: Random) -> None:
        amount = Decimal(dice.choice((1, 500, 3_000_000, 50_000_000))).scaleb(-9)
        await Spending(self.pool).add_credit(dice.choice(self.users), amount, None, None)
        # From the beginning: rows of the example's months are long before any entry.
        await self.pool.execute("update credit_balances set since = '-infinity'")

    async def freeze(self, dice: Random) -> None:
        await Outbox(self.pool).freeze_closed(now(), dice.choice((300, -86_400)))

    async def deliver(self, dice: Random) -> None:
        for state in ("sent", "duplicate"):
            await self._change(("pending", "unknown"), state, dice)

    async def reject(self, dice: Random) -> None:
        await self._change(("pending",), "rejected", dice)

    async def unknown(self, dice: Random) -> None:
        await self._change(("pending",), "unknown", dice)

    async def decide(self, dice: Random) -> None:
        held = ("rejected", "unknown")
        if dice.random() < 0.3:
            rows = await self.pool.fetch(
                "select identifier from stripe_meter_events where state = any($1::text[]) order by md5(id::text || $2)"
                " limit 1", held, str(dice.random())
            )  # fmt: skip
            if rows:
                await reissue(self.pool, rows[0]["identifier"], now())
            return
        await self._change(held, dice.choice(("settled", "written_off", "sent")), dice)

    async def invoice(self, dice: Random) -> None:
        status = dice.choice(("draft", "open", "paid", "void"))
        await self.pool.execute(_INVOICE, f"in_{self.number}_{dice.getrandbits(40)}", status)

    async def close(self, dice: Random) -> None:
        if self.sealed == len(self.months):
            return
        month = self.months[self.sealed]
        self.sealed += 1
        await seal(self.pool, month_after(month))
        async with in_transaction(self.pool) as connections:
            version = (await Periods(connections).latest(month.date())).version
            await Periods(connections).begin(month.date(), version, "Ada", {})
            await Periods(connections).finish(month.date(), version, {}, b"", "")

    async def reopen(self, dice: Random) -> None:
        async with in_transaction(self.pool) as connections:
            for month in self.months:
                if versions := await Periods(connections).versions(month.date()):
                    await Periods(connections).reopen(month.date(), versions[-1].version, "again")

    async def _insert(self, entry: LedgerEntry) -> None:
        self.entries.append(entry)
        await self.ledger.insert_batch([entry])

    async def _change(self, before: tuple[str, ...], after: str, dice: Random) -> None:
        await self.pool.execute(_SET_STATE, list(before), after, str(dice.random()))


Action = Callable[[World, Random], Awaitable[None]]
ACTIONS: Final[dict[str, Action]] = {
    "row": World.row,
    "late row": World.late_row,
    "repeat": World.repeat,
    "adjust": World.adjust,
    "link": World.link,
    "credit": World.credit,
    "freeze": World.freeze,
    "deliver": World.deliver,
    "reject": World.reject,
    "unknown": World.unknown,
    "decide": World.decide,
    "invoice": World.invoice,
    "close": World.close,
    "reopen": World.reopen,
}
