"""The usage report against a real ledger: both ways of summing agree, to the nano-dollar, for every grouping."""

import io
import itertools
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.ledger.store import Ledger
from gateway.reports.commands import usage as print_usage
from gateway.reports.store import Reports, UsageFilter
from gateway.reports.usage import DIMENSIONS, UsageReport, parse_dimensions, parse_range, usage_report
from gateway.stores.postgres import Pool
from tests.support.usage import entries, usage

DAY = datetime(2026, 11, 21, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
NANO = Decimal("1e-9")
GROUPS = {
    "week": "date_trunc('week', booked_at at time zone 'UTC')::date::text",
    "customer": "customer_id::text",
    "evidence": "evidence",
    "month": "to_char(booked_at at time zone 'UTC', 'YYYY-MM')",
    "day": "to_char(booked_at at time zone 'UTC', 'YYYY-MM-DD')",
    "hour": "to_char(booked_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:00:00\"Z\"')",
    "user": "user_id::text",
    "key": "api_key_id::text",
    "meeting": "meeting_id::text",
    "model": "model",
    "endpoint": "endpoint",
    "tier": "service_tier",
}

OPEN = "not exists (select from openai_usage a where a.adjusts = openai_usage.id)"
ONE_MEETING = "insert into meetings (user_id, room_name, ended_at) values ($1, 'daily', now()) returning id::text"


@pytest.fixture
async def filled(ledger: Ledger, pool: Pool) -> list[str]:
    """300 calls of two users with three keys over three days, of every kind of evidence. Returns the user ids.

    Half belong to one of two meetings in the same room; corrections come up to two hours after what they correct.
    """
    rng = random.Random(11)
    users = [await Accounts(ledger.pool).create_user(f"user{number}@example.com") for number in (1, 2)]
    keys: list[tuple[str, str | None]] = [(users[0], None)]
    for number, user in enumerate((users[0], users[0], users[1])):
        keys.append((user, await Accounts(ledger.pool).link_key(user, f"key_{number}", name=f"laptop [red]{number}")))
    meetings = [await pool.fetchval(ONE_MEETING, users[0]) for _ in range(2)]
    events = []
    for _ in range(300):
        user, key = rng.choice(keys)
        at = DAY + timedelta(microseconds=rng.randrange(3 * 86_400 * 10**6))
        model = rng.choice(["gpt-5-mini-2025-08-07", "text-embedding-3-small"])
        kind = rng.choice(["reported", "reported", "drained", "estimated", "unpriced", "void"])
        nano = {"unpriced": None, "void": 0}.get(kind, rng.randrange(1, 10**9))
        cost = nano if nano is None else nano // 2
        event = usage(user, at, nano, cost_nano=cost, evidence=kind, model=model, api_key_id=key)  # type: ignore[arg-type]  # one of Evidence
        where = {"meeting_id": rng.choice([None, None, *meetings]), "endpoint": rng.choice(["chat", "responses"])}
        where["service_tier"] = rng.choice(["default", "flex", None])
        events.append(msgspec.structs.replace(event, **where))
        if rng.random() < 0.2:
            later = at + timedelta(seconds=rng.randrange(7200))
            change = rng.randrange(-777, 778)
            fixed = usage(user, later, change, evidence="adjustment", adjusts=event.id, model=model, api_key_id=key)
            events.append(msgspec.structs.replace(fixed, **where))
    first, others = events[: len(events) // 2], events[len(events) // 2 :]
    await Accounts(pool).set_stripe_customer(users[1], "cus_2")
    for part in (first, others):
        await ledger.insert_batch(entries(*(event for event in part if event.adjusts is None)))
        await ledger.insert_batch(entries(*(event for event in part if event.adjusts is not None)))
        # The rest of the first day comes late, and is booked when it comes.
        await pool.execute("select seal_books($1)", DAY + timedelta(days=1))
    return users


def instant(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T00:00:00Z" if len(text) == 10 else text)


async def ledger_sums(pool: Pool, by: tuple[str, ...], since: datetime, until: datetime) -> set[tuple[object, ...]]:
    """The same question asked of openai_usage alone, in other words."""
    groups = ", ".join(GROUPS[name] for name in by) or "'all'"
    grouped = f"group by {groups}" if by else "having count(*) > 0"
    rows = await pool.fetch(
        f"select {groups}, count(*) filter (where adjusts is null), sum(prompt_tokens), sum(completion_tokens), "
        "sum(total_tokens), coalesce(sum(cost_usd), 0), coalesce(sum(billed_usd), 0), "
        "count(*) filter (where evidence = 'estimated'), count(*) filter (where evidence = 'unpriced'), "
        "count(*) filter (where evidence = 'void'), count(*) filter (where evidence = 'adjustment'), "
        f"count(*) filter (where evidence = 'estimated' and {OPEN}), "
        f"count(*) filter (where evidence = 'unpriced' and {OPEN}), "
        "coalesce(sum(cost_usd) filter (where evidence = 'estimated'), 0), "
        f"coalesce(sum(cost_usd) filter (where evidence = 'estimated' and {OPEN}), 0), "
        "count(*) filter (where evidence not in ('unpriced', 'void')) = 0 "
        "and count(*) filter (where evidence = 'unpriced') > 0 "
        f"from openai_usage where booked_at >= $1 and booked_at < $2 {grouped}",
        since, until,
    )  # fmt: skip
    return {tuple(row.values())[0 if by else 1 :] for row in rows}


def report_sums(report: UsageReport) -> set[tuple[object, ...]]:
    """A report's rows as plain tuples: the grouping, then the figures."""
    names = {"user": "user_id", "key": "key_id", "meeting": "meeting_id", "customer": "customer_id"}
    names["cost-centre"] = "cost_centre"
    found = set()
    for row in report.to_json()["rows"]:
        figures = [row[name] for name in ("calls", "prompt_tokens", "completion_tokens", "total_tokens")]
        money = [Decimal(row["cost_usd"] or 0), Decimal(row["billed_usd"] or 0)]
        names_of_counts = ("estimated", "unpriced", "void", "adjustments", "estimated_open", "unpriced_open")
        kinds = [row[name] for name in names_of_counts]
        amounts = [Decimal(row[name] or 0) for name in ("estimated_cost_usd", "estimated_open_cost_usd")]
        unpriced = row["cost_usd"] is None
        assert (row["billed_usd"] is None) == (row["reported_cost_usd"] is None) == unpriced
        found.add((*(row[names.get(name, name)] for name in report.by), *figures, *money, *kinds, *amounts, unpriced))
    return found


RANGES = {
    "whole": ("2026-11-21", "2026-11-24"),
    "with what is late": ("2026-11-21", "2100-01-01"),
    "a day": ("2026-11-22", "2026-11-23"),
    "cut hours": ("2026-11-21T07:31:02Z", "2026-11-23T22:59:59.5+01:00"),
    "inside one hour": ("2026-11-22T10:01:00Z", "2026-11-22T10:59:00Z"),
    "around an hour's end": ("2026-11-22T10:30:00Z", "2026-11-22T11:20:00Z"),
}


@pytest.mark.usefixtures("filled")
async def test_every_grouping_and_range_equals_the_ledger(pool: Pool) -> None:
    singles = [(name,) for name in DIMENSIONS if name in GROUPS]
    most = tuple(name for name in GROUPS if name != "customer")
    combinations = [(), *singles, ("meeting", "hour"), ("user", "day", "meeting"), ("customer", "user", "month"), most]
    seen = 0
    for (since, until), by in itertools.product(RANGES.values(), combinations):
        if "customer" in by and "T" in since + until:
            with pytest.raises(OptionError, match="whole UTC days"):
                await usage_report(Reports(pool), by=by, now=NOW, since=since, until=until)
            continue
        report = await usage_report(Reports(pool), by=by, now=NOW, since=since, until=until)
        expected = await ledger_sums(pool, by, instant(since), instant(until))
        assert report_sums(report) == expected, (since, until, by)
        seen += len(expected)
    assert seen > 500


@pytest.mark.usefixtures("filled")
async def test_totals_are_the_sum_of_the_ledger(pool: Pool) -> None:
    report = await usage_report(Reports(pool), by=["user", "day"], now=NOW)
    truth = await pool.fetchrow(
        "select sum(cost_usd), sum(billed_usd), count(*) filter (where adjusts is null) from openai_usage"
    )
    assert truth is not None
    cost, billed, calls = truth
    assert (report.totals.cost_usd, report.totals.billed_usd, report.totals.calls) == (cost, billed, calls)
    assert calls == 300
    assert billed == (await pool.fetchval("select sum(billed_usd) from usage_hourly"))
    assert report.totals.unpriced > 0 < report.totals.adjustments


async def test_ranges_are_half_open(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(ledger.pool).create_user("user1@example.com")
    await ledger.insert_batch(entries(usage(user, DAY, 1), usage(user, DAY + timedelta(days=1), 10)))
    report = await usage_report(Reports(pool), by=["day"], now=NOW, during="2026-11-21")
    assert report.totals.billed_usd == 1 * NANO


async def test_nothing_used_is_an_empty_report(pool: Pool) -> None:
    report = await usage_report(Reports(pool), by=["user"], now=NOW)
    assert (report.rows, report.totals.calls, report.to_json()["totals"]["cost_usd"]) == ([], 0, "0.000000000")


@pytest.mark.parametrize(
    ("by", "since", "until", "named"),
    [
        (
            ["colour"],
            None,
            None,
            "'colour' is not a dimension; there are month, week, day, hour, user, key, meeting, customer",
        ),
        (["user; drop table users"], None, None, "is not a dimension"),
        (["user"], "last-week", None, "from: 'last-week' is neither a date .* nor one of today, yesterday, this-month"),
        (
            ["user"],
            None,
            "2026-11-22T10:00:00",
            "until: '2026-11-22T10:00:00' is neither a date .* nor a time with its zone",
        ),
        (["user"], "2026-02-30", None, "from: '2026-02-30' does not exist"),
        (["user"], "2026-13", None, "from: '2026-13-01' does not exist"),
        (["user"], "2026-11-22", "2026-11-22", "must be before until"),
        (["user"], "today", "this-month", r"from .today. must be before until .this-month., which is not part"),
    ],
)
async def test_a_wrong_option_is_named(
    pool: Pool, by: list[str], since: str | None, until: str | None, named: str
) -> None:
    with pytest.raises(OptionError, match=named):
        await usage_report(Reports(pool), by=by, now=NOW, since=since, until=until)


def test_dimensions_may_come_together_or_apart() -> None:
    assert parse_dimensions(["user, model", "DAY", "user"]) == ("user", "model", "day")


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("width", [80, 120])
async def test_the_table_is_readable_and_its_totals_are_exact(database_url: str, width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width)
    settings = Settings(database_url=SecretStr(database_url))
    report = await print_usage(settings, console, now=NOW, by=["user", "key"])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    (total,) = (line for line in lines if line.startswith("total"))
    assert f"{report.totals.cost_usd:.9f}  {report.totals.billed_usd:.9f}" in total
    text = " ".join(out.getvalue().split())
    for wanted in ("user1@example.com", "[red]0", "(no key)", "estimated", "unpriced", "total"):
        assert wanted in text
    for row in report.rows:
        assert f"{row.cost_usd:.9f}" in text  # never cut off


@pytest.mark.usefixtures("filled")
async def test_json_is_whole_and_exact(database_url: str) -> None:
    out = io.StringIO()
    settings = Settings(database_url=SecretStr(database_url))
    report = await print_usage(settings, Console(file=out, width=80), now=NOW, by=["key", "meeting"], form="json")
    document = json.loads(out.getvalue(), parse_float=lambda text: pytest.fail(f"a float: {text}"))
    assert document == report.to_json()
    assert sum(Decimal(row["cost_usd"]) for row in document["rows"]) == Decimal(document["totals"]["cost_usd"])
    assert {len(row["key_id"]) for row in document["rows"] if row["key_id"]} == {36}


async def test_without_a_database_the_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        await print_usage(Settings(), Console(file=io.StringIO()), now=NOW)


@pytest.mark.usefixtures("filled")
async def test_a_filter_leaves_exactly_its_own(pool: Pool) -> None:
    others = {"key_id": "api_key_id", "tier": "service_tier"}
    columns = {name: others.get(name, name) for name in UsageFilter._fields if name not in ("snapshots", "customer_id")}
    for (since, until), (name, column) in itertools.product((RANGES["whole"], RANGES["cut hours"]), columns.items()):
        rows = await pool.fetch(
            f"select {column}::text, count(*) filter (where adjusts is null), coalesce(sum(billed_usd), 0), "
            "sum(total_tokens) from openai_usage "
            f"where booked_at >= $1 and booked_at < $2 and {column} is not null group by 1",
            instant(since), instant(until),
        )  # fmt: skip
        assert len(rows) > 1
        for value, *expected in rows:
            of = UsageFilter(**{name: value})
            report = await usage_report(Reports(pool), by=[], now=NOW, since=since, until=until, of=of)
            assert [report.totals.calls, report.totals.billed_usd, report.totals.total_tokens] == expected


@pytest.mark.usefixtures("filled")
async def test_a_meeting_has_its_room_and_usage_without_one_is_a_group(pool: Pool) -> None:
    report = await usage_report(Reports(pool), by=["meeting"], now=NOW)
    assert sorted((row.room_name or "", row.meeting_id is None) for row in report.rows) == [
        ("", True), ("daily", False), ("daily", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "since", "until"),
    [
        ({}, None, None),
        ({"since": "2026-11"}, "2026-11-01", None),
        ({"since": "last-month", "until": "this-month"}, "2026-10-01", "2026-11-01"),
        ({"since": "yesterday", "until": "2026-11-23T10:00:00+01:00"}, "2026-11-22", "2026-11-23T09:00:00Z"),
        ({"during": "2026-12"}, "2026-12-01", "2027-01-01"),
        ({"during": "2028-02"}, "2028-02-01", "2028-03-01"),
        ({"during": "2026-02-28"}, "2026-02-28", "2026-03-01"),
        ({"during": "today"}, "2026-11-23", "2026-11-24"),
        ({"during": "yesterday"}, "2026-11-22", "2026-11-23"),
        ({"during": "this-month"}, "2026-11-01", "2026-12-01"),
        ({"during": "last-month"}, "2026-10-01", "2026-11-01"),
    ],
)
def test_ranges_have_friendly_names(options: dict[str, str], since: str | None, until: str | None) -> None:
    asked: dict[str, str | None] = {"since": None, "until": None, "during": None, **options}
    expected = tuple(None if text is None else instant(text) for text in (since, until))
    assert parse_range(**asked, now=NOW) == expected


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("today", None, "today"), "during: it is a whole range by itself"),
        ((None, None, "2026-11-23T10:00:00Z"), "during: .* is neither a date .* nor a month .* nor one of today"),
        ((None, None, "2026-00"), "does not exist"),
        ((None, None, "9999-12"), "does not end before the calendar does"),
        ((None, None, "9999-12-31"), "does not end before the calendar does"),
        (("", None, None), "from: '' is neither"),
    ],
)
def test_what_is_no_range_is_refused(asked: tuple[str | None, str | None, str | None], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        parse_range(*asked, NOW)


def test_a_month_begins_where_utc_says_so() -> None:
    abroad = datetime.fromisoformat("2026-12-01T00:30:00+01:00")
    assert parse_range(None, None, "this-month", abroad) == (instant("2026-11-01"), instant("2026-12-01"))
