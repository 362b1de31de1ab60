"""The bridge adds up, to the nano, after anything that moves money in any order: in total, by month and by payer."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.billing.bridge import PayerFacts, add_up, build_bridge
from gateway.billing.bridge_store import read_bridge, read_margins, reading_once
from gateway.stores.postgres import Pool, open_pool
from tests.billing.bridge_world import ACTIONS, World, month_after
from tests.conftest import admin
from tests.support.invoke import gateway
from tests.support.servers import on_database

# Said once more, from the rows and events themselves.
_ROWS: Final = """
select coalesce(sum(cost_usd), 0) * 1000000000, coalesce(sum(billed_usd), 0) * 1000000000 from openai_usage
where ($1::timestamptz is null or booked_at >= $1) and ($2::timestamptz is null or booked_at < $2)
"""
_DELIVERED: Final = """
select coalesce(sum(value), 0) * 1000 from stripe_meter_events where state in ('sent', 'duplicate')
"""
_USED: Final = "select coalesce(sum(used_nano), 0) from credit_balances"
SEQUENCES: Final = st.lists(
    st.tuples(st.sampled_from(sorted(ACTIONS)), st.integers(0, 2**32 - 1)), min_size=8, max_size=40
)


class Examples:
    """One database for all examples: each has users and months of its own, and the whole has to add up too."""

    def __init__(self, url: str) -> None:
        self._url: Final = url
        self._numbers: Final = count()

    def run(self, steps: list[tuple[str, int]]) -> None:
        asyncio.run(self._run(steps))

    def states(self) -> set[str]:
        """What has become of the events of all examples."""
        return asyncio.run(self._states())

    async def _states(self) -> set[str]:
        pool = await open_pool(self._url)
        try:
            return {row["state"] for row in await pool.fetch("select distinct state from stripe_meter_events")}
        finally:
            await pool.close()

    async def _run(self, steps: list[tuple[str, int]]) -> None:
        pool = await open_pool(self._url)
        try:
            world = World(pool, next(self._numbers))
            await world.begin()
            for what, seed in [("row", 1), ("row", 2), *steps]:
                await world.do(what, seed)
            await check(pool, None, None)
            today = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            for month in (*world.months, today):
                await check(pool, month, month_after(month))
        finally:
            await pool.close()


async def check(pool: Pool, since: datetime | None, until: datetime | None) -> None:
    """All figures of one span."""
    async with reading_once(pool) as connection:
        facts = await read_bridge(connection, since, until)
        cost, billed = await connection.fetchrow(_ROWS, since, until)
        margins = await read_margins(connection, since, until)
        delivered, used = await connection.fetchval(_DELIVERED), await connection.fetchval(_USED)
    total = build_bridge(facts.total, margins)
    assert add_up(total.lines) == []
    assert total.is_explained, total.parts
    assert (total.line("cost"), total.line("billed")) == (cost, billed)
    assert sum(margins.values()) == billed - cost
    sums = PayerFacts()
    for payer, one in facts.payers.items():
        bridge = build_bridge(one)
        assert add_up(bridge.lines) == []
        assert bridge.is_explained, (payer, bridge.parts)
        sums = sums.plus(one)
    assert sums == facts.total
    if since is None:
        assert total.line("at_stripe") == delivered
        assert total.line("credit") == -used


@pytest.fixture(scope="module")
def examples(postgres_dsn: str, template: str) -> Iterator[Examples]:
    name = f"bridge_{uuid4().hex}"
    asyncio.run(admin(postgres_dsn, f"create database {name} template {template} strategy file_copy"))
    yield Examples(on_database(postgres_dsn, name))
    asyncio.run(admin(postgres_dsn, f"drop database {name} with (force)"))


def run_many(examples: Examples, most: int) -> None:
    @settings(
        max_examples=most, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip
    @given(SEQUENCES)
    def sequence(steps: list[tuple[str, int]]) -> None:
        examples.run(steps)

    sequence()


def test_it_adds_up_after_any_sequence(examples: Examples) -> None:
    run_many(examples, 10)


@pytest.mark.long
def test_it_adds_up_after_hundreds_of_sequences(examples: Examples) -> None:
    run_many(examples, 500)
    # Those that are final: later examples go on with what earlier ones have left.
    assert examples.states() >= {"sent", "duplicate", "settled", "written_off"}


_SOME_WINDOW: Final = "where id = (select min(id) from billing_windows where frozen_nano > 0)"
ERRORS: Final[dict[str, str]] = {
    "a window lost an amount": f"update billing_windows set billed_nano = billed_nano - 1 {_SOME_WINDOW}",
    "more frozen than the events have": f"update billing_windows set frozen_nano = frozen_nano + 5000 {_SOME_WINDOW}",
    "a carry that is not that of the events": "update billing_carry set nano = 0",
    "credit used twice": "update credit_uses set nano = nano + 7",
    "a day lost a row": "update usage_daily set billed_nano = billed_nano + 3 where ctid = (select min(ctid) from"
    " usage_daily)",
    "an event lost": "update stripe_meter_events set state = 'superseded' where state = 'pending'",
}


@pytest.mark.parametrize("error", ERRORS)
async def test_an_error_of_the_books_is_unexplained(pool: Pool, error: str) -> None:
    world = World(pool, 1)
    await world.begin()
    for seed in range(12):
        await world.do("row", seed)
    for seed in range(9):
        await world.do("credit", seed)
    for seed in range(12, 20):
        await world.do("row", seed)
    await world.do("freeze", 1)
    await check(pool, None, None)
    done = await pool.execute(ERRORS[error])
    assert not done.endswith(" 0"), "the test has nothing to break"
    async with reading_once(pool) as connection:
        facts = await read_bridge(connection, None, None)
    bridge: Any = build_bridge(facts.total)
    assert not bridge.is_explained
    assert add_up(bridge.lines) == []


async def test_status_shows_the_bridge_and_exits_1_where_it_is_unexplained(pool: Pool, database_url: str) -> None:
    world = World(pool, 1)
    await world.begin()
    for seed in range(8):
        await world.do("row", seed)
    await world.do("freeze", 1)
    env = {"DATABASE_URL": database_url}
    told = json.loads((await gateway(env, "billing", "status", "--json", "--by", "customer", "--by", "plan")).out)
    lines = {line["key"]: line["nano"] for line in told["total"]["lines"]}
    rows = await pool.fetchrow(_ROWS, None, None)
    assert rows is not None
    assert (lines["openai"], lines["cost"], lines["unexplained"]) == (None, str(int(rows[0])), "0")
    assert {payer["name"] for payer in told["payers"]} == {"cus_a1", "cid1@example.com"}
    billed = [int(line["nano"]) for payer in told["payers"] for line in payer["lines"] if line["key"] == "billed"]
    assert sum(billed) == int(lines["billed"]) == int(rows[1])
    shown = await gateway(env, "billing", "status", "--month", f"{world.months[0]:%Y-%m}", "--by", "customer")
    assert shown.status == 0
    assert shown.out.count("cost, as we priced it") == 3
    assert shown.out.count("held: rejected") == 1  # of each payer only what is not 0
    await pool.execute("update usage_daily set billed_nano = billed_nano + 1")
    broken = await gateway(env, "billing", "status")
    assert broken.status == 1
    assert "unexplained" in broken.out
