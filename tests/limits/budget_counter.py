"""A budget with its counter in Redis and its calls in a ledger, as recounts are tried on."""

from datetime import timedelta
from random import Random
from typing import Final

import msgspec

from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget
from gateway.limits.claims import Hold
from gateway.limits.counters import Limits
from gateway.limits.recount import Recount
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent
from tests.support.events import AT, call, new_id

USD: Final = 1_000_000_000
RANDOM: Final = Random(11)
KEY: Final = "limit:b:one"
LATER: Final = AT + timedelta(hours=2)


class BudgetCounter:
    """One user's daily budget of 1 USD, its counter, and the ledger."""

    def __init__(self, limits: Limits, ledger: Ledger, pool: Pool, user_id: str) -> None:
        self.limits, self.ledger, self.user_id = limits, ledger, user_id
        budget = Budget(id="one", user_id=user_id, limit_nano=USD, period="day", hard=True, since=AT)
        self.hold = Hold(KEY, budget.window(AT), USD // 4)
        self.recount = Recount(limits, Spending(pool), now=lambda: LATER)

    async def begin(self, nano: int = 0) -> None:
        await self.limits.begin(KEY, msgspec.json.encode(self.hold.window), nano)

    async def insert(self, *events: UsageEvent) -> None:
        await self.ledger.insert_batch([LedgerEntry.of(event) for event in events])

    def call(self, nano: int, **changes: object) -> UsageEvent:
        return call(self.user_id, new_id(RANDOM), cost_nano=nano, billed_nano=nano, **changes)  # type: ignore[arg-type]

    async def figures(self) -> tuple[int | None, int, int]:
        """The ledger's sum, settled since, held; nano-USD."""
        state = await self.limits.state(KEY)
        return state.base, sum(state.settled.values()), sum(state.held.values())
