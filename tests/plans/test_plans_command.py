"""`gateway plans …`: what is made, what it would do, what is refused, and which plan holds."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.kit.instants import rfc3339
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from pricing import Line
from tests.support.events import call, linked, new_id
from tests.support.invoke import Done, gateway
from tests.support.plans import make_plan, plant

Run = Callable[..., Awaitable[Done]]
DAY = timedelta(days=1)
SOON = datetime.now(UTC).replace(microsecond=0) + DAY
FIRST = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
LAST_MONTH = FIRST - DAY


@pytest.fixture
def run(database_url: str) -> Run:
    async def command(*arguments: str) -> Done:
        return await gateway({"DATABASE_URL": database_url, "GATEWAY_OPERATOR": "Ada"}, "plans", *arguments)

    return command


async def read(run: Run, *arguments: str) -> Any:
    done = await run(*arguments, "--json")
    assert done.error == "", done.error
    return json.loads(done.out)


async def used(ledger: Ledger, user: str, key: str | None, number: int, **changes: Any) -> None:
    """A call of last month that cost 1,000,000 nano-USD and was billed 1,200,000."""
    usual: dict[str, Any] = {
        "api_key_id": key,
        "started_at": LAST_MONTH,
        "completed_at": LAST_MONTH,
        "cost_nano": 1_000_000,
        "billed_nano": 1_200_000,
        "plan_version": "markup:1.2",
        "cost_lines": (Line("input_tokens", "4000", "0.00000025", "0.001"),),
    }
    event = call(user, new_id(Random(number)), **{**usual, **changes})
    await ledger.insert_batch([LedgerEntry.of(event)])


async def test_a_plan_is_shown_first_and_made_with_yes(run: Run, pool: Pool) -> None:
    shown = await run("set", "standard", "--markup", "1.5")
    assert "Nothing was changed; --yes makes the change." in shown.out
    assert await pool.fetchval("select count(*) from plans") == 0
    made = await read(run, "set", "standard", "--markup", "1.5", "--yes")
    assert (made["plan_version"], made["applied"], made["ended"]) == ("standard@1", True, None)
    starts = datetime.fromisoformat(made["valid_from"]) - datetime.now(UTC)
    assert timedelta(seconds=60) < starts <= timedelta(seconds=180)
    row = await pool.fetchrow("select name, version, kind, rates::text, made_by, valid_to from plans")
    assert row is not None
    assert tuple(row) == ("standard", 1, "markup", '{"factor": "1.5"}', "Ada", None)
    event = await pool.fetchrow("select verb, subject, subject_id, after::text from admin_events")
    assert event is not None
    assert tuple(event)[:3] == ("set", "plan", "standard@1")
    assert json.loads(event["after"])["rates"] == {"factor": "1.5"}


async def test_a_new_version_ends_the_one_before_it(run: Run, pool: Pool) -> None:
    await plant(pool, make_plan("standard"))
    made = await read(run, "set", "standard", "--markup", "1.7", "--from", rfc3339(SOON), "--yes")
    assert (made["plan_version"], made["ended"]["plan_version"]) == ("standard@2", "standard@1")
    assert made["ended"]["valid_to"] == made["valid_from"] == rfc3339(SOON)
    ended = await pool.fetchrow("select valid_to, ended_by from plans where version = 1")
    assert ended is not None
    assert tuple(ended) == (SOON, "Ada")
    # A third one that starts before the second takes its place: the second never holds.
    again = await run("set", "standard", "--free", "--from", rfc3339(SOON - timedelta(hours=1)), "--yes")
    assert "plan standard@1 holds for default at that time" in again.error
    later = await read(run, "set", "standard", "--free", "--from", rfc3339(SOON), "--yes")
    assert (later["plan_version"], later["ended"]["valid_to"]) == ("standard@3", rfc3339(SOON))
    listed = await read(run, "list")
    assert [each["plan_version"] for each in listed] == ["standard@1", "standard@3"]
    assert len(await read(run, "list", "--all")) == 3
    shown = await run("show", "standard")
    assert shown.out.count("digest ") == 3
    assert "somebody changed it" not in shown.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("p",), "one of --markup, --discount, --prices, --free"),
        (("p", "--markup", "1", "--free"), "one of --markup, --discount, --prices, --free"),
        (("p", "--markup", "x"), "factor: 'x' is not a decimal"),
        (("p", "--markup", "1001"), "factor: 0 to 1000"),
        (("p", "--discount", "101"), "percent: 0 to 100"),
        (("P", "--free"), "a name has 1 to 63"),
        (("p", "--free", "--from", "2026-01-01"), "--from: at least 60 s ahead"),
        (("p", "--free", "--from", "2999-01-02", "--until", "2999-01-01"), "it ends before it starts"),
        (("p", "--free", "--user", "nobody@example.com"), "there is no user"),
        (("p", "--free", "--key", "key_none"), "there is no key"),
        (("p", "--free", "--customer", "cus_none"), "there is no customer"),
        (("p", "--free", "--endpoint", "models"), "--endpoint: 'models' is not one of chat"),
        (("p", "--free", "--endpoint", "chat", "--model", "gpt-5"), "one of: model, endpoint"),
        (("p", "--free", "--otherwise", "1"), "--otherwise"),
    ],
)
async def test_what_is_refused(run: Run, pool: Pool, arguments: tuple[str, ...], error: str) -> None:
    done = await run("set", *arguments, "--yes")
    assert error in done.error
    assert await pool.fetchval("select count(*) from plans") == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[]", "an object by model"),
        ("{", "not JSON"),
        ('{"gpt-5": {}}', "'gpt-5' has no object with prices"),
        ('{"gpt-5": {"scale": {"input_tokens": "1"}}}', "in a tier of default, flex, priority, ultrafast"),
        ('{"gpt-5": {"flex": {"tokens": "1"}}}', "'gpt-5' has no unit 'tokens'"),
        ('{"gpt-none": {"input_tokens": "1"}}', "the price book has no model 'gpt-none'"),
        ('{"gpt-5": {"input_token": "1"}}', "'gpt-5' has no unit 'input_token'"),
        ('{"gpt-5": {"input_tokens": "1", "input_tokens": "2"}}', "a name is there twice"),
        ('{"gpt-5": {"input_tokens": 1e-6}}', "'1e-6' is not a decimal"),
        ('{"gpt-5": {"input_tokens": -1}}', "'-1' is not a decimal"),
    ],
)
async def test_a_list_of_prices_that_is_refused(run: Run, tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "prices.json").write_text(text)
    done = await run("set", "p", "--prices", str(tmp_path / "prices.json"), "--otherwise", "1", "--yes")
    assert error in done.error


async def test_a_list_of_prices_is_kept_as_it_was_written(run: Run, pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(
        '{"gpt-5": {"input_tokens": 0.00000150, "flex": {"output_tokens": "0.00001"}}}'
    )
    await read(run, "set", "own", "--prices", str(tmp_path / "prices.json"), "--otherwise", "1.2", "--yes")
    assert json.loads(await pool.fetchval("select rates::text from plans")) == {
        "factor": "1.2",
        "usd_per_unit": {"gpt-5": {"input_tokens": "0.00000150", "flex": {"output_tokens": "0.00001"}}},
    }
    shown = (await run("show", "own")).out
    assert "2 own price(s)" in shown
    assert "  gpt-5 output_tokens (flex): 0.00001 USD\n" in shown


async def test_one_plan_holds_in_a_scope(run: Run, pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    await read(run, "set", "one", "--markup", "1.5", "--user", user, "--yes")
    assert "plan one@1 holds for user:" in (await run("set", "two", "--free", "--user", "a@example.com", "--yes")).error
    assert "another scope needs another name" in (await run("set", "one", "--free", "--yes")).error
    await read(run, "set", "two", "--free", "--user", user, "--model", "gpt-5", "--yes")


async def test_the_preview_tells_what_it_does_to_the_usage_of_last_month(
    run: Run, pool: Pool, ledger: Ledger, tmp_path: Path
) -> None:
    ann, ann_key = await linked(ledger, "ann")
    bob, _ = await linked(ledger, "bob")
    cid, _ = await linked(ledger, "cid")
    await plant(pool, make_plan("cids", "2", user_id=cid))
    for number, (user, key) in enumerate(((ann, ann_key), (ann, None), (bob, None), (cid, None))):
        await used(ledger, user, key, number)
    await used(ledger, bob, None, 9, completed_at=FIRST, started_at=FIRST)  # of this month
    everybody = await read(run, "set", "standard", "--markup", "1.5")
    assert everybody["month"] == f"{LAST_MONTH:%Y-%m}"
    amounts = {each["email"]: (each["calls"], each["billed_usd"], each["after_usd"]) for each in everybody["users"]}
    assert amounts == {
        "ann@example.com": (2, "0.002400000", "0.003000000"),
        "bob@example.com": (1, "0.001200000", "0.001500000"),
    }  # cid has a plan of their own
    of_key = await read(run, "set", "k", "--discount", "10", "--key", ann_key)
    assert [(each["calls"], each["after_usd"]) for each in of_key["users"]] == [(1, "0.000900000")]
    (tmp_path / "prices.json").write_text('{"gpt-5-mini": {"input_tokens": "0.000001"}}')
    list_of_prices = ("--prices", str(tmp_path / "prices.json"), "--otherwise", "1")
    own = await read(run, "set", "own", *list_of_prices, "--user", bob)
    assert [(each["calls"], each["cost_usd"], each["after_usd"]) for each in own["users"]] == [
        (1, "0.001", "0.004000000")
    ]
    ended = await read(run, "end", "cids")
    assert [(each["email"], each["after_usd"]) for each in ended["users"]] == [("cid@example.com", "0.001000000")]
    table = (await run("set", "standard", "--markup", "1.5")).out
    assert "Difference of all: 0.000900000 USD." in table
    dan, _ = await linked(ledger, "dan")
    await used(ledger, dan, None, 10, service_tier="flex")
    (tmp_path / "prices.json").write_text(
        '{"gpt-5-mini": {"input_tokens": "0.000001", "flex": {"input_tokens": "0.0000005"}}}'
    )
    flex = await read(run, "set", "own", *list_of_prices, "--user", dan)
    assert [each["after_usd"] for each in flex["users"]] == ["0.002000000"]


async def test_an_end_is_set_once(run: Run, pool: Pool) -> None:
    await plant(pool, make_plan("a"))
    assert "--at: at least 60 s ahead" in (await run("end", "a", "--at", "2026-11-01", "--yes")).error
    assert "there is none called 'b'" in (await run("end", "b", "--yes")).error
    ended = await read(run, "end", "a", "--at", rfc3339(SOON), "--yes")
    assert (ended["plan_version"], ended["valid_to"]) == ("a@1", rfc3339(SOON))
    assert "without an end" in (await run("end", "a", "--yes")).error
    event = await pool.fetchrow("select verb, before::text, after::text from admin_events")
    assert event is not None
    assert [json.loads(event[name])["valid_to"] for name in ("before", "after")] == [None, rfc3339(SOON)]
    # One that has not begun never does.
    await read(run, "set", "later", "--free", "--model", "gpt-5", "--from", rfc3339(SOON), "--yes")
    assert "without --at it never does" in (await run("end", "later", "--at", rfc3339(SOON - DAY / 2), "--yes")).error
    never = await read(run, "end", "later", "--yes")
    assert never["valid_to"] == never["valid_from"] == rfc3339(SOON)


async def test_explain_names_the_plan_and_all_that_were_considered(run: Run, pool: Pool, ledger: Ledger) -> None:
    user, key = await linked(ledger)
    setting = await read(run, "explain", "--user", user)
    assert (setting["plan_version"], setting["candidates"]) == ("markup:1", [])
    await plant(
        pool,
        make_plan("all"),
        make_plan("mini", model="gpt-5-mini"),
        make_plan("anns", user_id=user, valid_to=datetime(2026, 6, 1, tzinfo=UTC)),
        make_plan("keys", api_key_id=key, endpoint="responses"),
    )
    found = await read(run, "explain", "--key", key, "--model", "gpt-5-mini-2025-08-07", "--endpoint", "chat")
    names = [(each["plan_version"], each["holds"]) for each in found["candidates"]]
    assert names == [("anns@1", False), ("mini@1", True), ("all@1", False)]
    before = await read(run, "explain", "--user", user, "--at", "2026-05-01")
    assert before["plan_version"] == "anns@1"
    assert "ROW, --user or --key is needed" in (await run("explain")).error


async def test_explain_derives_the_amount_of_a_row(run: Run, pool: Pool, ledger: Ledger) -> None:
    user, _ = await linked(ledger)
    event = call(
        user, new_id(Random(1)), cost_nano=25_000, billed_nano=37_500, plan_version="all@1", started_at=LAST_MONTH
    )
    await ledger.insert_batch([LedgerEntry.of(event)])
    await plant(pool, make_plan("all"))
    found = await read(run, "explain", event.id)
    assert found["row"] == {
        "id": event.id,
        "plan_version": "all@1",
        "cost_usd": "0.000025000",
        "billed_usd": "0.000037500",
        "derived_usd": "0.000037500",
    }
    unpriced = call(user, new_id(Random(3)), evidence="unpriced", cost_nano=None, billed_nano=None, cost_lines=())
    await ledger.insert_batch([LedgerEntry.of(unpriced)])
    assert f"{unpriced.id}: cost unknown USD, billed unknown USD" in (await run("explain", unpriced.id)).out
    assert "the ledger has no row" in (await run("explain", new_id(Random(2)))).error
    assert "leave out the options" in (await run("explain", event.id, "--user", user)).error
