"""The rows and ranges at which reports go wrong, in every grouping, against plain SQL on the ledger."""

import itertools
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from gateway.accounts.store import Accounts
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.reports import usage as usage_module
from gateway.reports.store import Reports, UsageRow
from gateway.reports.usage import DIMENSIONS, usage_report
from gateway.stores.postgres import Pool
from tests.reports.test_usage import GROUPS, NOW, instant, ledger_sums, report_sums
from tests.support.usage import entries, usage

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RANGES = {
    "October": ("2026-10-01", "2026-11-01"),
    "November": ("2026-11-01", "2026-12-01"),
    "the negative day": ("2026-11-10", "2026-11-11"),
    "all": ("2026-10-01", "2100-01-01"),
    "kolkata": ("2026-10-31T00:00:00+05:30", "2026-11-01T00:00:00+05:30"),
    # Berlin has set its clocks back on the 25th of October: this day has 25 hours.
    "the long day of Berlin": ("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
    "the short day of New York": ("2026-10-31T00:00:00-04:00", "2026-11-01T00:00:00-04:00"),
    "to the last tick": ("2026-10-31T23:59:59.999999Z", "2026-11-01T00:00:00.000001Z"),
    "one tick": ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00.000001Z"),
}
CENTRE = """
(select coalesce(
  (select c.code from cost_centres c where c.api_key_id = u.api_key_id
     and c.valid_from <= u.booked_at and coalesce(c.valid_to, 'infinity') > u.booked_at),
  (select c.code from cost_centres c where c.user_id = u.user_id
     and c.valid_from <= u.booked_at and coalesce(c.valid_to, 'infinity') > u.booked_at))
 from (select openai_usage.api_key_id, openai_usage.user_id, openai_usage.booked_at) u)
"""


@pytest.fixture
async def awkward(ledger: Ledger, pool: Pool) -> None:
    """Everything that lies on an edge, or is corrected, late, without a price or without an owner."""
    accounts = Accounts(pool)
    ann, bob = [await accounts.create_user(f"{name}@example.com") for name in ("ann", "bob")]
    key = await accounts.link_key(ann, "key_ann", name="laptop")
    one, other = [
        await pool.fetchval("insert into customers (name) values ($1) returning id::text", name) for name in ("A", "B")
    ]
    change = NOVEMBER + 9 * DAY + timedelta(minutes=30)  # in the middle of an hour
    link = "insert into user_customers (user_id, customer_id, valid_from, valid_to) values ($1::uuid, $2::uuid, $3, $4)"
    await pool.execute(link, ann, one, NOVEMBER - 40 * DAY, change)
    await pool.execute(link, ann, other, change, None)
    columns = "user_id, api_key_id, code, valid_from, valid_to"
    centre = f"insert into cost_centres ({columns}) values ($1::uuid, $2::uuid, $3, $4, $5)"
    await pool.execute(centre, ann, None, "users", NOVEMBER - 40 * DAY, None)
    await pool.execute(centre, None, key, "keys", NOVEMBER, NOVEMBER + 5 * DAY)
    meeting = await pool.fetchval(
        "insert into meetings (user_id, room_name) values ($1::uuid, 'r') returning id::text", ann
    )

    edges = [NOVEMBER + n * TICK for n in (-1, 0, 1)]
    edges += [datetime(2026, 10, 25, hour, tzinfo=UTC) + tick for hour in (0, 1, 22, 23) for tick in (-TICK, TICK * 0)]
    edges += [datetime(2026, 10, 30, 18, 30, tzinfo=UTC) - TICK, datetime(2026, 10, 30, 18, 30, tzinfo=UTC)]
    edges += [change - TICK, change]
    calls = [usage(ann, at, 10 + n, api_key_id=key if n % 2 else None) for n, at in enumerate(edges)]
    calls += [usage(bob, at, 1000 + n) for n, at in enumerate(edges)]
    unpriced = [usage(ann, NOVEMBER - TICK, None, evidence="unpriced", model="gpt-99") for _ in range(2)]
    guess = usage(bob, NOVEMBER - HOUR, 5000, evidence="estimated")
    void = usage(bob, NOVEMBER - HOUR, 0, evidence="void")
    calls += [*unpriced, guess, void, usage(ann, NOVEMBER + DAY, 7, cost_nano=3)]
    calls = [
        msgspec.structs.replace(
            each,
            meeting_id=meeting if each.user_id == ann and n % 3 else None,
            service_tier=("flex", "default", None)[n % 3],
        )
        for n, each in enumerate(calls)
    ]
    await ledger.insert_batch(entries(*calls))
    negative = usage(bob, NOVEMBER + 9 * DAY + HOUR, -99_999, evidence="adjustment", adjusts=guess.id, tokens=(-1, -1))
    await ledger.insert_batch(entries(negative))
    await pool.execute("select seal_books($1)", NOVEMBER)
    # Of October, which is sealed: a late call, and corrections of its rows; all are booked now.
    priced = usage(ann, NOVEMBER - TICK, 70, evidence="adjustment", adjusts=unpriced[0].id, model="gpt-99")
    exact = usage(bob, NOVEMBER - HOUR, -400, evidence="adjustment", adjusts=guess.id)
    await ledger.insert_batch(entries(priced, exact, usage(ann, NOVEMBER - TICK, 333), usage(bob, NOVEMBER - DAY, 1)))


@pytest.mark.usefixtures("awkward")
async def test_every_grouping_of_awkward_rows_equals_the_ledger(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUPS, "cost-centre", CENTRE)
    assert set(GROUPS) == set(DIMENSIONS)
    singles = [(), *((name,) for name in DIMENSIONS), tuple(DIMENSIONS)]
    pairs = list(itertools.combinations(DIMENSIONS, 2))
    asked = [
        *itertools.product(RANGES.values(), singles),
        *itertools.product((RANGES["all"], RANGES["kolkata"]), pairs),
    ]
    seen = refused = 0
    for (since, until), by in asked:
        if "customer" in by and ({"hour", "meeting"} & set(by) or "T" in since):
            refused += 1
            with pytest.raises(OptionError, match="whole UTC days"):
                await usage_report(Reports(pool), by=by, now=NOW, since=since, until=until)
            continue
        report = await usage_report(Reports(pool), by=by, now=NOW, since=since, until=until)
        expected = await ledger_sums(pool, by, instant(since), instant(until))
        assert report_sums(report) == expected, (since, until, by)
        seen += len(expected)
    assert seen > 500
    assert refused


@pytest.mark.usefixtures("awkward")
async def test_a_group_too_many_refuses_the_report_and_none_is_left_out(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await usage_report(Reports(pool), by=["day", "user"], now=NOW)
    groups = len(whole.rows)
    for most in (groups + 1, groups):
        monkeypatch.setattr(usage_module, "ROWS_MAX", most)
        report = await usage_report(Reports(pool), by=["day", "user"], now=NOW)
        assert (len(report.rows), totals(report.totals)) == (groups, totals(whole.totals))
    monkeypatch.setattr(usage_module, "ROWS_MAX", groups - 1)
    with pytest.raises(OptionError, match=f"more than {groups - 1} lines"):
        await usage_report(Reports(pool), by=["day", "user"], now=NOW)


def totals(row: UsageRow) -> tuple[object, ...]:
    return row.calls, row.cost_usd, row.billed_usd
