"""Which worker recounts when: in turns, again at once after an outage, and in a full Redis too."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from gateway.kit.errors import DependencyDown
from gateway.limits.budgets import Window
from gateway.limits.counters import QUIET_TURN, TURN
from gateway.limits.recount import QUIET_PASSES, Recount
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool
from tests.limits.budget_counter import LATER, BudgetCounter


class Away(Spending):
    """A ledger that does not answer, until it does."""

    is_away = True

    async def read_spent(
        self, window: Window, events: Sequence[str] = (), kept: Sequence[str] = ()
    ) -> tuple[int, list[str], list[str]]:
        if self.is_away:
            raise DependencyDown("postgres", "it does not answer")
        return await super().read_spent(window, events, kept)


async def test_workers_take_turns(counter: BudgetCounter, pool: Pool, redis: "Redis") -> None:
    await counter.begin()
    await counter.insert(counter.call(7))
    one, other = (Recount(counter.limits, Spending(pool), now=lambda: LATER, turn_s=3600) for _ in range(2))
    assert [await one.step_once(), await other.step_once(), await one.step_once()] == [1, 0, 0]
    assert await counter.figures() == (7, 0, 0)
    assert 0 < await redis.pttl(TURN) <= 3_600_000
    await redis.delete(TURN)  # as it goes by itself
    await counter.limits.reserve(counter.call(0).id, [counter.hold])
    assert [await other.step_once(), await one.step_once()] == [1, 0]


async def test_workers_share_the_turns_that_look_at_quiet_periods(
    counter: BudgetCounter, pool: Pool, redis: "Redis"
) -> None:
    await counter.begin()
    await counter.insert(counter.call(7))
    workers = [Recount(counter.limits, Spending(pool), now=lambda: LATER, turn_s=3600) for _ in range(3)]

    async def pass_of(worker: Recount) -> int:
        await redis.delete(TURN)  # as it goes by itself
        return await worker.step_once()

    assert [await pass_of(worker) for worker in workers] == [1, 0, 0]
    assert 0 < await redis.pttl(QUIET_TURN) <= QUIET_PASSES * 3_600_000
    await redis.delete(QUIET_TURN)
    assert [await pass_of(worker) for worker in workers] == [1, 0, 0]


async def test_a_pass_that_an_outage_broke_off_is_made_again_at_once(counter: BudgetCounter, pool: Pool) -> None:
    await counter.begin()
    await counter.insert(counter.call(7))
    spending = Away(pool)
    recount = Recount(counter.limits, spending, now=lambda: LATER, turn_s=3600)
    for _ in range(2):  # it is told as an outage each time, not as somebody else's turn
        with pytest.raises(DependencyDown):
            await recount.step_once()
    spending.is_away = False
    assert await recount.step_once() == 1
    assert await counter.figures() == (7, 0, 0)
    assert await recount.step_once() == 0


async def test_a_period_that_is_over_makes_room_in_a_full_redis(
    counter: BudgetCounter, pool: Pool, redis: "Redis"
) -> None:
    await counter.begin()
    over = Recount(counter.limits, Spending(pool), now=lambda: LATER + timedelta(days=2), turn_s=3600)
    await redis.config_set("maxmemory", 1)
    try:
        assert await over.step_once() == 0
        assert await counter.limits.windows() == {}
    finally:
        await redis.config_set("maxmemory", 0)
