"""Plans in PostgreSQL: what the table holds for always, and how a process comes to know of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from gateway.access.identities import KeyOwners
from gateway.kit.errors import DependencyDown
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.usage.plan_store import EVERY_S, FollowPlans, PlanStore
from gateway.usage.plans import PlanVersion
from tests.support.events import linked
from tests.support.plans import BEGAN, INSERT, make_plan, plant, values

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
CALL: dict[str, Any] = {"user_id": "u", "api_key_id": None, "model": "gpt-5", "endpoint": "chat"}
END = "update plans set valid_to = $2, ended_by = 'Ada' where name = $1 and valid_to is null"


async def insert(pool: Pool, plan: PlanVersion) -> None:
    await pool.execute(INSERT, *values(plan))


async def refused(pool: Pool, query: str, *arguments: object) -> str:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as error:
        await pool.execute(query, *arguments)
    return str(error.value)


async def test_a_version_never_changes(pool: Pool) -> None:
    await insert(pool, make_plan("a", valid_from=SOON))
    for change in ('rates = \'{"factor": "9"}\'', "valid_from = now()", "name = 'b'", "made_by = 'x'", "model = 'm'"):
        assert "never changes" in await refused(pool, f"update plans set {change}")
        assert "never changes" in await refused(pool, f"update plans set {change}, valid_to = $1", SOON)
    assert "append-only" in await refused(pool, "delete from plans")
    assert "append-only" in await refused(pool, "truncate plans")
    async with pool.acquire() as connection:
        await connection.execute("set session_replication_role = replica")
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute('update plans set rates = \'{"factor": "9"}\'')
        await connection.execute("reset session_replication_role")


async def test_its_end_is_set_once(pool: Pool) -> None:
    await insert(pool, make_plan("a", valid_from=SOON))
    await pool.execute(END, "a", SOON + timedelta(days=1))
    row = await pool.fetchrow("select valid_to, ended_by, ended_at from plans")
    assert row is not None
    assert row["valid_to"] == SOON + timedelta(days=1)
    assert row["ended_by"] == "Ada"
    assert row["ended_at"] is not None
    for end in (None, SOON + timedelta(days=2), SOON):
        assert "never changes" in await refused(pool, "update plans set valid_to = $1", end)


@pytest.mark.parametrize("seconds", [-86_400, 0, 55])
async def test_nothing_starts_or_ends_within_a_minute(pool: Pool, seconds: int) -> None:
    near = datetime.now(UTC) + timedelta(seconds=seconds)
    assert "60 seconds ahead" in await refused(pool, INSERT, *values(make_plan("a", valid_from=near)))
    await plant(pool, make_plan("a"))
    assert "60 seconds ahead" in await refused(pool, END, "a", near)


async def test_the_minute_is_counted_from_the_commit(pool: Pool) -> None:
    """A transaction that stays open must not bring a plan to the proxies after its start."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        near = datetime.now(UTC) + timedelta(seconds=61)
        await connection.execute(INSERT, *values(make_plan("a", valid_from=near)))
        await connection.execute("select pg_sleep(1.1)")
        with pytest.raises(asyncpg.RestrictViolationError, match="60 seconds ahead"):
            await transaction.commit()


async def test_one_version_holds_in_a_scope_at_a_time(pool: Pool) -> None:
    first = make_plan("a", model="gpt-5", valid_from=SOON, valid_to=SOON + timedelta(days=2))
    await insert(pool, first)
    inside = msgspec.structs.replace(first, name="b", valid_from=SOON + timedelta(days=1), valid_to=None)
    assert "plan a@1 holds" in await refused(pool, INSERT, *values(inside))
    assert "plan a@1 holds" in await refused(
        pool, INSERT, *values(msgspec.structs.replace(inside, name="a", version=2))
    )
    await insert(pool, msgspec.structs.replace(inside, model="gpt-5-mini"))
    await insert(
        pool, msgspec.structs.replace(first, name="a", version=2, valid_from=SOON + timedelta(days=2), valid_to=None)
    )
    never = make_plan("c", model="gpt-5", valid_from=SOON, valid_to=SOON)
    await insert(pool, never)  # it holds at no time


async def test_versions_follow_each_other_in_one_scope(pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    assert "the next version of plan a is 1" in await refused(
        pool, INSERT, *values(make_plan("a", version=2, valid_from=SOON))
    )
    await insert(pool, make_plan("a", valid_from=SOON, valid_to=SOON + timedelta(days=1)))
    later = SOON + timedelta(days=1)
    assert "the next version of plan a is 2" in await refused(
        pool, INSERT, *values(make_plan("a", version=3, valid_from=later))
    )
    other = make_plan("a", version=2, user_id=user, valid_from=later)
    assert "all versions of plan a have one scope" in await refused(pool, INSERT, *values(other))
    assert await pool.fetchval("select scope from plans") == "default"
    await insert(pool, make_plan("b", user_id=user, model="m", valid_from=SOON))
    assert await pool.fetchval("select scope from plans where name = 'b'") == f"user:{user} model:m"


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("markup", "{}"),
        ("markup", '{"factor": 1.2}'),
        ("markup", '{"factor": "1.0000000001"}'),
        ("markup", '{"factor": "1", "more": "1"}'),
        ("discount", '{"percent": "101"}'),
        ("free", '{"factor": "0"}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {}}'),
        ("price_list", '{"factor": "1", "usd_per_unit": []}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {"gpt-5": {}}}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {"gpt-5": {"input_tokens": "-1"}}}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {"gpt-5": {"scale": {"input_tokens": "1"}}}}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {"gpt-5": {"flex": {}}}}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {"gpt-5": {"flex": "1"}}}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {"gpt-5": {"flex": {"input_tokens": 1}}}}'),
        ("price_list", '{"factor": "1", "usd_per_unit": {"gpt-5": []}}'),
        ("other", "{}"),
    ],
)
async def test_rates_that_no_process_could_read_are_refused(pool: Pool, kind: Any, rates: str) -> None:
    plan = make_plan("a", kind=kind, rates=msgspec.json.decode(rates), valid_from=SOON)
    assert "check constraint" in await refused(pool, INSERT, *values(plan))


async def test_whatever_the_table_takes_reads(pool: Pool) -> None:
    units = {"input_tokens": "0.000000000000000001", "flex": {"input_tokens": "0", "output_tokens": "1"}}
    own = {"usd_per_unit": {"gpt-5": units, "gpt-5-mini": {"default": {"input_tokens": "1"}}}, "factor": "1000"}
    plans = [
        make_plan("a", valid_from=SOON),
        make_plan("b", kind="discount", rates={"percent": "12.5"}, model="m", valid_from=SOON),
        make_plan("c", kind="free", rates={}, endpoint="chat", valid_from=SOON),
        make_plan("d", kind="price_list", rates=own, model="gpt-5", valid_from=SOON),
    ]
    for each in plans:
        await insert(pool, each)
    store = PlanStore(pool)
    assert await store.every() == plans
    terms = [await store.terms(name) for name in ("a@1", "d@1", "a@2", "z@1", "markup:1.3", "legacy", None, "a@x")]
    assert [found and found.name for found in terms] == ["a@1", "d@1", None, None, "markup:1.3", None, None, None]


async def test_a_process_hears_of_a_plan_at_its_next_look(pool: Pool) -> None:
    now_s = [100.0]
    follow = FollowPlans(pool, monotonic=lambda: now_s[0])
    known = follow.known
    await follow.look_first()
    before = known.book
    assert known.book.resolve(SOON, **CALL) is None
    await follow.step_once()
    assert known.book is before  # nothing has changed, so nothing is read
    await insert(pool, make_plan("a", valid_from=SOON))
    await follow.look_first()
    await follow.refresh()
    assert known.book is before  # it has looked not long ago
    now_s[0] += EVERY_S
    assert follow.age_s == EVERY_S
    await follow.refresh()
    found = known.book.resolve(SOON, **CALL)
    assert found is not None
    assert (found.name, follow.age_s) == ("a@1", 0)
    await pool.execute(END, "a", SOON + timedelta(days=1))
    await follow.step_once()
    assert known.book.resolve(SOON + timedelta(days=1), **CALL) is None
    assert known.book.resolve(SOON, **CALL) == found


async def test_what_ended_long_ago_is_not_read(pool: Pool) -> None:
    await plant(
        pool,
        make_plan("old", valid_to=BEGAN + timedelta(days=1)),
        make_plan("new", valid_from=BEGAN + timedelta(days=2)),
    )
    book = await PlanStore(pool).live()
    assert (book.named("old@1"), book.named("new@1") is None) == (None, False)


async def test_without_postgresql_a_process_goes_on_with_what_it_knows(pool: Pool) -> None:
    await plant(pool, make_plan("a"))
    now_s = [0.0]
    follow = FollowPlans(pool, monotonic=lambda: now_s[0])
    known = follow.known
    await follow.step_once()
    await pool.execute("alter table plan_changes rename to gone")
    now_s[0] = 50.0
    with pytest.raises(DependencyDown):
        await follow.step_once()
    await follow.look_first()  # calls are let in all the same
    assert follow.age_s == 50.0
    assert known.book.resolve(SOON, **CALL) is not None


async def test_a_link_to_a_customer_counts_a_minute_after_it_was_made(pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    customer = await pool.fetchval("insert into customers (name) values ('Acme') returning id::text")
    follow = FollowPlans(pool, monotonic=lambda: 0.0)
    known = follow.known
    await plant(pool, make_plan("acme", customer_id=customer), make_plan("default"))
    await follow.step_once()
    assert known.book.resolve(SOON, **CALL | {"user_id": user}) == known.book.named("default@1")
    link = "insert into user_customers (user_id, customer_id, valid_from) values ($1::uuid, $2::uuid, $3)"
    made_at = await pool.fetchval(f"{link} returning made_at", user, customer, BEGAN)
    await follow.step_once()
    for seconds, name in ((-86_400, "default@1"), (59, "default@1"), (60, "acme@1"), (10**8, "acme@1")):
        found = known.book.resolve(made_at + timedelta(seconds=seconds), **CALL | {"user_id": user})
        assert (found and found.name) == name
    await pool.execute("update user_customers set valid_to = $1", SOON)
    await follow.step_once()
    for seconds, name in ((59, "acme@1"), (60, "default@1")):
        found = known.book.resolve(SOON + timedelta(seconds=seconds), **CALL | {"user_id": user})
        assert (found and found.name) == name


async def test_a_plan_of_a_later_version_ends_no_process(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    await plant(pool, make_plan("a"))
    await pool.execute("alter table plans drop constraint plans_rates_fit, drop constraint plans_kind_check")
    await plant(pool, make_plan("b", kind="tiers", rates={}, model="gpt-5"))
    book = await PlanStore(pool).live()
    assert book.resolve(SOON, **CALL) == book.named("a@1")
    assert "plan cannot be read" in capsys.readouterr().out


async def test_no_key_is_looked_up_before_plans_are_known(pool: Pool) -> None:
    """A proxy that was started without PostgreSQL lets nobody in, and nobody pays by plans that it has not read."""
    await plant(pool, make_plan("a"))
    await pool.execute("alter table plan_changes rename to away")
    follow = FollowPlans(pool, monotonic=lambda: 0.0)
    owners = KeyOwners(pool, look_first=follow.look_first)
    with pytest.raises(DependencyDown):
        await owners.identity(None, "key_1")
    await pool.execute("alter table away rename to plan_changes")
    assert await owners.identity(None, "key_1") is None
    assert follow.known.book.resolve(SOON, **CALL) is not None
