"""The usage report against a real ledger: both ways of summing agree, to the nano-dollar, for every grouping."""

import io
import itertools
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pydantic import SecretStr
from rich.console import Console

from gateway.commands.report import usage as print_usage
from gateway.core.config import Settings
from gateway.core.errors import ConfigError, OptionError
from gateway.edges.ledger import Ledger, Pool
from gateway.edges.reports import Reports
from gateway.flows.reports import DIMENSIONS, UsageReport, parse_dimensions, usage_report
from tests.usage import entries, usage

DAY = datetime(2026, 11, 21, tzinfo=UTC)
NANO = Decimal("1e-9")
GROUPS = {
    "month": "to_char(created_at at time zone 'UTC', 'YYYY-MM')",
    "day": "to_char(created_at at time zone 'UTC', 'YYYY-MM-DD')",
    "user": "user_id::text",
    "key": "api_key_id::text",
    "model": "model",
    "endpoint": "endpoint",
    "tier": "service_tier",
}


@pytest.fixture
async def filled(ledger: Ledger) -> list[str]:
    """300 calls of two users with three keys over three days, of every kind of evidence. Returns the user ids."""
    rng = random.Random(11)
    users = [await ledger.create_user(f"user{number}@example.com") for number in (1, 2)]
    keys: list[tuple[str, str | None]] = [(users[0], None)]
    for number, user in enumerate((users[0], users[0], users[1])):
        keys.append((user, await ledger.link_key(user, f"key_{number}", name=f"laptop [red]{number}")))
    events = []
    for _ in range(300):
        user, key = rng.choice(keys)
        at = DAY + timedelta(microseconds=rng.randrange(3 * 86_400 * 10**6))
        model = rng.choice(["gpt-5-mini-2025-08-07", "text-embedding-3-small"])
        kind = rng.choice(["reported", "reported", "drained", "estimated", "unpriced", "void"])
        nano = {"unpriced": None, "void": 0}.get(kind, rng.randrange(1, 10**9))
        cost = nano if nano is None else nano // 2
        event = usage(user, at, nano, cost_nano=cost, evidence=kind, model=model, api_key_id=key)  # type: ignore[arg-type]  # one of Evidence
        events.append(event)
        if kind == "unpriced" and rng.random() < 0.5:
            fixed = usage(user, at, 777, evidence="adjustment", adjusts=event.id, model=model, api_key_id=key)
            events.append(fixed)
    await ledger.insert_batch(entries(*(event for event in events if event.adjusts is None)))
    await ledger.insert_batch(entries(*(event for event in events if event.adjusts is not None)))
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
        "count(*) filter (where evidence = 'void'), count(*) filter (where evidence = 'adjustment') "
        f"from openai_usage where created_at >= $1 and created_at < $2 {grouped}",
        since, until,
    )  # fmt: skip
    return {tuple(row.values())[0 if by else 1 :] for row in rows}


def report_sums(report: UsageReport) -> set[tuple[object, ...]]:
    """A report's rows as plain tuples: the grouping, then the figures."""
    names = {"user": "user_id", "key": "key_id"}
    found = set()
    for row in report.to_json()["rows"]:
        figures = [row[name] for name in ("calls", "prompt_tokens", "completion_tokens", "total_tokens")]
        money = [Decimal(row["cost_usd"]), Decimal(row["billed_usd"])]
        kinds = [row[name] for name in ("estimated", "unpriced", "void", "adjustments")]
        found.add((*(row[names.get(name, name)] for name in report.by), *figures, *money, *kinds))
    return found


RANGES = {
    "whole": ("2026-11-21", "2026-11-24"),
    "a day": ("2026-11-22", "2026-11-23"),
    "cut hours": ("2026-11-21T07:31:02Z", "2026-11-23T22:59:59.5+01:00"),
    "inside one hour": ("2026-11-22T10:01:00Z", "2026-11-22T10:59:00Z"),
    "around an hour's end": ("2026-11-22T10:30:00Z", "2026-11-22T11:20:00Z"),
}


@pytest.mark.usefixtures("filled")
async def test_every_grouping_and_range_equals_the_ledger(pool: Pool) -> None:
    combinations = [by for size in range(4) for by in itertools.combinations(DIMENSIONS[:5], size)] + [DIMENSIONS]
    seen = 0
    for (since, until), by in itertools.product(RANGES.values(), combinations):
        report = await usage_report(Reports(pool), by=by, since=since, until=until)
        expected = await ledger_sums(pool, by, instant(since), instant(until))
        assert report_sums(report) == expected, (since, until, by)
        seen += len(expected)
    assert seen > 500


@pytest.mark.usefixtures("filled")
async def test_totals_are_the_sum_of_the_ledger(pool: Pool) -> None:
    report = await usage_report(Reports(pool), by=["user", "day"])
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
    user = await ledger.create_user("user1@example.com")
    await ledger.insert_batch(entries(usage(user, DAY, 1), usage(user, DAY + timedelta(days=1), 10)))
    report = await usage_report(Reports(pool), by=["day"], since="2026-11-21", until="2026-11-22")
    assert report.totals.billed_usd == 1 * NANO


async def test_nothing_used_is_an_empty_report(pool: Pool) -> None:
    report = await usage_report(Reports(pool), by=["user"])
    assert (report.rows, report.totals.calls, report.to_json()["totals"]["cost_usd"]) == ([], 0, "0.000000000")


@pytest.mark.parametrize(
    ("by", "since", "until", "named"),
    [
        (["customer"], None, None, "'customer' is no dimension; there are month, day, user, key, model"),
        (["user; drop table users"], None, None, "is no dimension"),
        (["user"], "yesterday", None, "from: 'yesterday' is neither a date"),
        (
            ["user"],
            None,
            "2026-11-22T10:00:00",
            "until: '2026-11-22T10:00:00' is neither a date .* nor a time with its zone",
        ),
        (["user"], "2026-02-30", None, "from: '2026-02-30' does not exist"),
        (["user"], "2026-11-22", "2026-11-22", "must be before until"),
    ],
)
async def test_a_wrong_option_is_named(
    pool: Pool, by: list[str], since: str | None, until: str | None, named: str
) -> None:
    with pytest.raises(OptionError, match=named):
        await usage_report(Reports(pool), by=by, since=since, until=until)


def test_dimensions_may_come_together_or_apart() -> None:
    assert parse_dimensions(["user, model", "DAY", "user"]) == ("user", "model", "day")


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("width", [80, 120])
async def test_the_table_is_readable_and_its_totals_are_exact(database_url: str, width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width)
    settings = Settings(database_url=SecretStr(database_url))
    report = await print_usage(settings, console, by=["user", "key"])
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
    report = await print_usage(settings, Console(file=out, width=80), by=["key", "model"], as_json=True)
    document = json.loads(out.getvalue(), parse_float=lambda text: pytest.fail(f"a float: {text}"))
    assert document == report.to_json()
    assert sum(Decimal(row["cost_usd"]) for row in document["rows"]) == Decimal(document["totals"]["cost_usd"])
    assert {len(row["key_id"]) for row in document["rows"] if row["key_id"]} == {36}


async def test_without_a_database_the_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        await print_usage(Settings(), Console(file=io.StringIO()))
