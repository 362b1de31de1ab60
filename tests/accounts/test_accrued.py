"""What a user used while nobody paid waits for a decision, and what was decided holds, whoever pays later."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from gateway.accounts import users
from gateway.accounts.link import LinkOptions, link_options
from gateway.accounts.store import Accounts
from gateway.billing.bridge import build_bridge
from gateway.billing.bridge_store import read_bridge, reading_once
from gateway.kit.errors import OptionError
from tests.accounts.office import HOUR, NOW, USD, Office
from tests.support.audits import audited
from tests.support.usage import entries, usage

BEFORE = NOW - timedelta(days=3)


async def link_by_sql(office: Office, who: str, customer: str | None) -> None:
    """As the platform does."""
    sql = "update users set stripe_customer_id = $2 where email = $1"
    await office.pool.execute(sql, f"{who}@example.com", customer)


def decision(accrued: str, *, why: str | None = None) -> LinkOptions:
    """The options of a command that links cus_ann, and was agreed to."""
    return link_options("cus_ann", None, accrued, None, why, None, yes=True)


async def books_are_right(office: Office) -> bool:
    """Each payer's bridge and the sums of billing hold."""
    async with reading_once(office.pool) as connection:
        facts = await read_bridge(connection, None, None)
    bridges = [build_bridge(each) for each in (facts.total, *facts.payers.values())]
    _, found = await audited(office.env, "--all")
    sound = [found[name]["state"] for name in ("INV-6", "INV-8", "INV-11")]
    return all(bridge.is_explained for bridge in bridges) and sound == ["ok", "ok", "ok"]


async def test_a_customer_that_is_written_into_users_pays_from_that_instant_on(office: Office) -> None:
    await office.uses("ann", 4 * USD, BEFORE)
    await link_by_sql(office, "ann", "cus_ann")
    await office.uses("ann", USD, datetime.now(UTC))
    await office.uses("ann", 10, BEFORE)  # late, of the time before
    assert await office.windows() == {"ann@example.com": (4 * USD + 10, 0), "cus_ann": (USD, 0)}
    assert await office.sent() == {"cus_ann": 1_000_000}
    (waits,) = await office.json("billing", "unbilled")
    assert (waits["stripe_customer_id"], waits["usd"]) == ("cus_ann", "4.000000010")
    assert await books_are_right(office)
    # Nothing else about the link asks for it; and deciding needs no other link.
    assert (await office.link("ann", "cus_ann")).error == ""
    done = await office.link("ann", "cus_ann", "--accrued", "bill", "--yes")
    assert done.error == ""
    assert done.out.startswith("ann@example.com: cus_ann pays for ann@example.com already. 4.000000010 USD")
    assert await office.windows() == {"ann@example.com": (0, 0), "cus_ann": (5 * USD + 10, 0)}
    assert await office.sent() == {"cus_ann": 5_000_000}
    assert await office.json("billing", "unbilled") == []
    assert await books_are_right(office)


async def test_a_customer_who_pays_before_any_usage_needs_no_decision(office: Office) -> None:
    for who in ("ann", "bob"):
        await Accounts(office.pool).create_user(f"{who}@example.com")
    await link_by_sql(office, "ann", "cus_firm")
    assert (await office.link("bob", "cus_firm")).error == ""
    for who in ("ann", "bob"):
        await office.uses(who, USD, datetime.now(UTC))
    assert await office.sent() == {"cus_firm": 2_000_000}
    assert await office.json("billing", "unbilled") == []


@pytest.mark.parametrize("more", [("settle", "--reference", "in_1"), ("write-off", "--why", "a gift")])
async def test_usage_that_comes_after_a_decision_is_not_part_of_it(office: Office, more: tuple[str, ...]) -> None:
    await office.uses("ann", 4 * USD, BEFORE)
    assert (await office.link("ann", "cus_ann", "--accrued", *more, "--yes")).error == ""
    await office.uses("ann", 3_000_000, BEFORE)  # into the same hour
    await office.uses("ann", 2_000_000, BEFORE - timedelta(days=1))
    assert await office.sent() == {}
    (waits,) = await office.json("billing", "unbilled")
    assert (waits["usd"], waits["windows"]) == ("0.005000000", 2)
    assert await books_are_right(office)
    assert (await office.link("ann", "cus_ann", "--accrued", "bill", "--yes")).error == ""
    assert await office.sent() == {"cus_ann": 5_000}
    assert await books_are_right(office)


async def test_settled_and_written_off_are_two_lines_of_the_bridge(office: Office) -> None:
    await office.uses("ann", 4 * USD, BEFORE)
    assert (await office.link("ann", "cus_ann", "--accrued", "settle", "--reference", "in_1", "--yes")).error == ""
    await office.uses("ann", 3_000_007, BEFORE)  # into the same hour
    assert (await office.link("ann", "cus_ann", "--accrued", "write-off", "--why", "a gift", "--yes")).error == ""
    bridge = (await office.json("billing", "status"))["total"]
    nano = {line["key"]: line["nano"] for line in bridge["lines"]}
    assert (nano["billed"], nano["settled"], nano["written_off"]) == ("4003000007", "-4000000000", "-3000007")
    assert nano["at_stripe"] == nano["unexplained"] == "0"
    assert await books_are_right(office)
    await office.pool.execute("update billing_windows set written_off_nano = 0")
    assert not await books_are_right(office)


async def test_what_was_decided_to_be_billed_stays_with_that_customer(office: Office) -> None:
    """Also where another one pays before it is frozen, and where it is corrected."""
    user = await Accounts(office.pool).create_user("ann@example.com")
    first = usage(user, BEFORE, 4 * USD)
    await office.ledger.insert_batch(entries(first))
    assert (await office.link("ann", "cus_a", "--accrued", "bill", "--yes")).error == ""
    await office.uses("ann", 7_000_000, BEFORE)
    assert (await office.link("ann", "cus_b", "--accrued", "write-off", "--why", "late", "--yes")).error == ""
    correction = usage(user, datetime.now(UTC), -USD, evidence="adjustment", adjusts=first.id)
    await office.ledger.insert_batch(entries(correction))
    await office.uses("ann", 2 * USD, datetime.now(UTC))
    assert await office.sent() == {"cus_a": 4_000_000, "cus_b": 2_000_000}
    # The correction is of a row that no customer paid: neither of them is given it without a decision.
    (waits,) = await office.json("billing", "unbilled")
    assert waits["usd"] == "-1.000000000"
    assert await books_are_right(office)


async def test_an_event_of_a_decision_is_explained_by_the_calls_of_the_user(office: Office) -> None:
    user = await Accounts(office.pool).create_user("ann@example.com")
    first, second = usage(user, BEFORE, 4 * USD), usage(user, BEFORE, 1_000)
    await office.ledger.insert_batch(entries(first))
    assert (await office.link("ann", "cus_ann", "--accrued", "bill", "--yes")).error == ""
    await office.ledger.insert_batch(entries(second))
    await office.sent()
    (event,) = await office.pool.fetch("select identifier from stripe_meter_events")
    explained = await office.json("stripe", "explain", event["identifier"])
    assert {row["id"] for row in explained["events"][0]["rows"]} == {first.id, second.id}
    (row,) = (await office.json("stripe", "explain", first.id))["rows"]
    assert [one["identifier"] for one in row["events"]] == [event["identifier"]]


async def test_two_commands_at_once_decide_once(office: Office) -> None:
    await office.uses("ann", 4 * USD, BEFORE)
    ways = [decision("bill"), decision("write-off", why="a gift")] * 2
    both = (users.set_fields(office.settings, who="ann@example.com", payer=way) for way in ways)
    done = await asyncio.gather(*both, return_exceptions=True)
    refused = [str(each) for each in done if isinstance(each, BaseException)]
    assert refused == ["--accrued: ann@example.com has accrued nothing"] * 3
    assert await office.pool.fetchval("select count(*) from accrued_decisions") == 1
    assert await books_are_right(office)


async def test_two_users_may_get_the_same_new_customer_at_once(office: Office) -> None:
    """Also where the other command has made the customer and is not at its end."""
    await Accounts(office.pool).create_user("ann@example.com")
    payer = link_options("cus_new", None, None, None, None, None, yes=False)
    waits = (
        "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database())"
    )
    async with office.pool.acquire() as other, other.transaction():
        await other.execute("insert into customers (stripe_customer_id) values ('cus_new')")
        waiting = asyncio.create_task(users.set_fields(office.settings, who="ann@example.com", payer=payer))
        while not await office.pool.fetchval(waits):
            assert not waiting.done()
            await asyncio.sleep(0.01)
    assert (await waiting).after.stripe_customer_id == "cus_new"
    assert await office.pool.fetchval("select count(*) from user_customers") == 1


async def test_the_writer_and_a_decision_go_on_beside_each_other(office: Office) -> None:
    """Windows are locked in one order, and what comes meanwhile waits for the next decision."""
    user = await Accounts(office.pool).create_user("ann@example.com")
    hours = [HOUR - timedelta(hours=each) for each in range(1, 40)]

    async def write() -> None:
        for _ in range(12):
            await office.ledger.insert_batch(entries(*(usage(user, hour, 1_000) for hour in hours)))

    async def decide() -> None:
        for _ in range(4):
            with contextlib.suppress(OptionError):  # nothing has accrued by then
                await users.set_fields(office.settings, who="ann@example.com", payer=decision("bill"))

    await asyncio.gather(write(), write(), decide())
    await office.link("ann", "cus_ann", "--accrued", "bill", "--yes")
    assert await office.windows() == {"ann@example.com": (0, 0), "cus_ann": (24 * 39 * 1_000, 0)}
    assert await office.sent() == {"cus_ann": 24 * 39}
    assert await books_are_right(office)


async def test_a_user_with_amounts_cannot_be_deleted(office: Office) -> None:
    await office.uses("ann", USD, BEFORE)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await office.pool.execute("delete from users")


async def test_a_change_that_is_planned_in_sql_is_not_overwritten(office: Office) -> None:
    user = await Accounts(office.pool).create_user("ann@example.com", stripe_customer_id="cus_a")
    later = datetime.now(UTC) + timedelta(days=1)
    await office.pool.execute("update user_customers set valid_to = $1", later)
    await office.pool.execute(
        "insert into user_customers (user_id, customer_id, valid_from) select $1, customer_id, $2 from user_customers",
        user,
        later,
    )
    await office.pool.execute("update user_customers set valid_to = now() where valid_to is not null")
    for change in (("--stripe-customer", "cus_b"), ("--no-stripe-customer",)):
        done = await office.run("users", "set", "ann@example.com", *change)
        assert (done.status, "at a later time" in done.error) == (1, True)
