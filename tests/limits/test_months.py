"""A budget without an end adds up sealed months, and says to the nano-dollar what its rows say."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from gateway.accounts.store import Accounts
from gateway.close.periods import Periods
from gateway.close.seal import seal
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget, Window
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool
from tests.support.events import call, new_id

JULY: Final = datetime(2026, 7, 1, tzinfo=UTC)
MONTHS: Final = [JULY + timedelta(days=days) for days in (31, 62, 92)]
"""August to October."""
MODELS: Final = ("gpt-5", "gpt-5-2025-08-07", "gpt-5-mini")
SNAPSHOTS: Final = {"gpt-5": ["gpt-5", "gpt-5-2025-08-07"], "gpt-5-mini": ["gpt-5-mini"]}
"""What counts against a budget that names a model."""
ROWS: Final = """
select coalesce(sum(cost_usd) * 1000000000, 0)::bigint from openai_usage
where user_id = $1::uuid and completed_at >= $2 and ($3::timestamptz is null or completed_at < $3)
  and ($4::uuid is null or api_key_id = $4) and ($5::text[] is null or model = any($5))
  and ($6::uuid is null or meeting_id = $6)
"""


class Years:
    """Calls of one user with two keys and a meeting, at random instants of some months."""

    def __init__(self, ledger: Ledger, user: str, keys: list[str], meeting: str) -> None:
        self.ledger, self.user, self.keys, self.meeting = ledger, user, keys, meeting
        self.random = Random(17)

    async def use(self, since: datetime, until: datetime, count: int) -> None:
        events = []
        for _ in range(count):
            at = since + (until - since) * self.random.random()
            changes: dict[str, Any] = {
                "started_at": at,
                "completed_at": at,
                "api_key_id": self.random.choice([*self.keys, None]),
                "meeting_id": self.random.choice([self.meeting, None]),
                "model": self.random.choice(MODELS),
                "cost_nano": self.random.randrange(10**9),
            }
            events.append(call(self.user, new_id(self.random, at), **changes))
            if self.random.random() < 0.2:
                taken_back = {"evidence": "adjustment", "adjusts": events[-1].id, "response_id": None, "cost_nano": -5}
                events.append(call(self.user, new_id(self.random, at), **{**changes, **taken_back}))
        await self.ledger.insert_batch([LedgerEntry.of(event) for event in events])

    async def check(self, pool: Pool) -> None:
        """Compares every kind of budget, from many instants on, with the rows."""
        spending = Spending(pool)
        for since in (JULY - timedelta(days=9), JULY, JULY + timedelta(days=3, minutes=7), *MONTHS):
            for until in (None, MONTHS[1], MONTHS[1] + timedelta(hours=5)):
                for key, model, meeting in (
                    (None, None, None),
                    (self.keys[0], None, None),
                    (None, "gpt-5", None),
                    (self.keys[1], "gpt-5-mini", None),
                    (None, None, self.meeting),
                    (self.keys[0], "gpt-5", self.meeting),
                ):
                    scope: dict[str, Any] = {"api_key_id": key, "model": model, "meeting_id": meeting}
                    budget = Budget("one", self.user, 1, "total", True, since, **scope)
                    spent, _, _ = await spending.read_spent(Window(budget, since, until))
                    models = None if model is None else SNAPSHOTS[model]
                    wanted = await pool.fetchval(ROWS, self.user, since, until, key, models, meeting)
                    assert spent == wanted, (since, until, scope)


async def test_months_hours_and_rows_add_up_whenever_they_are_sealed(pool: Pool, ledger: Ledger) -> None:
    accounts = Accounts(pool)
    user = await accounts.create_user("u@example.com")
    keys = [await accounts.link_key(user, f"key_{number}") for number in range(2)]
    meeting = str(await pool.fetchval("insert into meetings (user_id, room_name) values ($1, 'r') returning id", user))
    years, periods = Years(ledger, user, keys, meeting), Periods(pool)
    assert not await periods.sum_month()
    await years.use(JULY, MONTHS[2], 60)
    assert not await periods.sum_month()  # none is sealed
    await years.check(pool)
    for until in MONTHS[:2]:
        await seal(pool, until)
        await years.use(JULY - timedelta(days=40), until, 20)  # late, and some of a month that was never used before
        await years.check(pool)
        assert await periods.sum_month()
        assert not await periods.sum_month()
        await years.check(pool)
        await years.use(JULY - timedelta(days=40), MONTHS[2], 20)
        await years.check(pool)
    assert await pool.fetchval("select count(*) from summed_months") == 2
    assert await pool.fetchval("select sum(cost_nano) > 0 from usage_monthly")
