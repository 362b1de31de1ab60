"""`gateway adjust`: what could not be corrected is, once, and every report, window and audit agrees."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.config.settings import BillingSettings, Settings
from gateway.corrections.booking import correct
from gateway.corrections.change import CorrectableRow, Target, WantedRow, adjustment_row, plan_change
from gateway.corrections.store import Reason
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.usage.plans import markup_terms
from tests.corrections.corrections_at_work import LAST_MONTH, NANO, Books
from tests.support.audits import audited
from tests.support.events import AT
from tests.support.plans import BEGAN, make_plan, plant


@pytest.fixture
def books(ledger: Ledger, pool: Pool, database_url: str) -> Books:
    return Books(ledger, pool, database_url)


async def test_what_could_not_be_corrected_is_and_all_sums_agree(books: Books, tmp_path: Path) -> None:
    await books.call(2_514_309_780)
    unpriced = await books.call(None)
    with pytest.raises(asyncpg.RestrictViolationError) as refused:
        await books.pool.execute("update openai_usage set cost_usd = 4")
    assert "gateway adjust" in str(refused.value.hint)

    done = await books.adjust(unpriced.id, "--cost", "4", "--ticket", "FIN-7")
    assert done["changes"][0]["cost_usd_before"] is None
    assert (done["rows"], done["cost_usd"], done["billed_usd"]) == (1, "4.000000000", "4.800000000")

    report = await books.run("report", "usage", "--by", "", "--json", why=None)
    totals = json.loads(report.out)["totals"]
    assert (totals["cost_usd"], totals["billed_usd"]) == ("6.514309780", "7.817171736")
    assert (totals["unpriced"], totals["unpriced_open"], totals["adjustments"]) == (1, 0, 1)
    assert await books.adjustments() == 1
    _, found = await audited(books.env | {"GATEWAY_DATA_DIR": str(tmp_path)}, "--all")
    assert {found[name]["state"] for name in ("INV-2", "INV-5", "INV-6", "INV-10")} == {"ok"}


async def test_nothing_is_booked_without_yes(books: Books) -> None:
    event = await books.call(2 * NANO)
    done = await books.run("adjust", event.id, "--cost", "3")
    assert "2.000000000 → 3.000000000 (+1.000000000)" in done.out
    assert "2.400000000 → 3.600000000 (+1.200000000)" in done.out
    assert f"{LAST_MONTH:%Y-%m}, booked in {datetime.now(UTC):%Y-%m}" in done.out
    assert "no Stripe customer" in done.out
    assert "preview" in done.out
    assert await books.adjustments() == 0
    assert await books.pool.fetchval("select count(*) from corrections") == 0


async def test_the_same_command_twice_is_once_and_a_changed_row_is_corrected_again(books: Books) -> None:
    event = await books.call(2 * NANO)
    first = await books.adjust(event.id, "--cost", "3")
    again = await books.run("adjust", event.id, "--cost", "3", "--yes")
    assert again.out.endswith("Nothing to correct.\n")
    assert (await books.sums(), await books.adjustments()) == ((3 * NANO, 3_600_000_000), 1)
    await books.adjust(event.id, "--billed", "1")
    third = await books.adjust(event.id, "--cost", "3", "--billed", "3.6")
    assert third["changes"][0]["corrections_before"] == 2
    assert third["changes"][0]["billed_usd_difference"] == "2.600000000"
    assert (await books.sums(), await books.adjustments()) == ((3 * NANO, 3_600_000_000), 3)
    assert first["id"] != third["id"]
    # A void call has no tokens either.
    await books.adjust(event.id, "--void")
    assert await books.sums() == (0, 0)
    assert await books.pool.fetchval("select sum(total_tokens)::int from openai_usage") == 0
    assert await books.adjustments() == 4


async def test_two_people_who_correct_at_once_correct_once(books: Books) -> None:
    event = await books.call(2 * NANO)
    settings = Settings(
        database_url=SecretStr(books.env["DATABASE_URL"]), billing=BillingSettings(markup=Decimal("1.2"))
    )
    wanted, now = [WantedRow(event.id, cost_nano=5 * NANO)], datetime.now(UTC)
    done = await asyncio.gather(*(correct(settings, wanted, Reason("a test", None), now=now) for _ in range(4)))
    assert sorted(each.planned.sums.rows for each in done) == [0, 0, 0, 1]
    assert (await books.sums(), await books.adjustments()) == ((5 * NANO, 6 * NANO), 1)


async def test_a_row_is_named_by_any_of_its_ids(books: Books) -> None:
    event = await books.call(NANO)
    await books.adjust(event.id.upper(), "--cost", "2")
    child = str(await books.pool.fetchval("select id from openai_usage where adjusts is not null"))
    await books.adjust(child, "--cost", "3")
    # Ids of OpenAI's come with a call that has them.
    from_openai = (
        "insert into openai_usage (id, user_id, endpoint, model, evidence, cost_usd, billed_usd, request_id,"
        " response_id, started_at, completed_at) select gen_random_uuid(), user_id, endpoint, model, evidence, 1, 1.2,"
        " $1, $2, started_at, completed_at from openai_usage where id = $3"
    )
    await books.pool.execute(from_openai, "req_1", "resp_1", event.id)
    await books.pool.execute(from_openai, "req_2", "resp_2", event.id)
    await books.pool.execute(from_openai, "req_2", "resp_3", event.id)
    one = await books.adjust("req_1", "--cost", "2")
    other = await books.adjust("resp_1", "--cost", "3")
    assert other["changes"][0]["row"] == one["changes"][0]["row"] != event.id
    twice = await books.run("adjust", "req_2", "--cost", "3", "--yes")
    assert "2 rows" in twice.error
    unknown = await books.run("adjust", "req_3", "--cost", "3", "--yes")
    assert "no row for req_3" in unknown.error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--cost", "1.0000000001"), "nine decimals"),
        (("--cost", "-1"), "0 to"),
        (("--cost", "nan"), "is not an amount"),
        (("--void", "--cost", "1"), "leave the amounts out"),
        ((), "nothing to correct"),
        (("--cost", "1", "--why", " "), "--why"),
        (("--cost", "1", "--ticket", "a\nb"), "--ticket"),
    ],
)
async def test_a_wrong_option_is_named(books: Books, arguments: tuple[str, ...], named: str) -> None:
    event = await books.call(NANO)
    done = await books.run("adjust", "--why", "w", event.id, *arguments, "--yes", why=None)
    assert (done.status, named in done.error) == (1, True), done
    assert await books.adjustments() == 0


async def test_what_is_billed_is_not_guessed(books: Books) -> None:
    event = await books.call(NANO)
    done = await books.run("adjust", event.id, "--cost", "2", "--yes", BILLING__MARKUP="1.5")
    assert "does not follow from its cost alone by its plan (markup:1.5)" in done.error
    unpriced = await books.call(None)
    done = await books.run("adjust", unpriced.id, "--billed", "2", "--yes")
    assert "its cost is not known" in done.error
    assert await books.adjustments() == 0


async def test_the_preview_says_what_budgets_and_invoice_get(books: Books) -> None:
    books.user = await Accounts(books.pool).create_user("ann@example.com", stripe_customer_id="cus_ann")
    event = await books.call(NANO)
    for options in (("--period", "day"), ("--model", "gpt-5-mini"), ("--model", "gpt-4.1")):
        done = await books.run("budgets", "set", "--user", "ann@example.com", "--limit", "5", *options, why=None)
        assert done.error == ""
    await books.run("credits", "add", "ann@example.com", "9", "--mode", "prepaid", why=None)
    done = await books.run("adjust", event.id, "--cost", "3", "--json")
    told = json.loads(done.out)
    assert told["invoices"][0]["stripe_customer_id"] == "cus_ann"
    assert told["invoices"][0]["billed_usd"] == "2.400000000"
    window = datetime.fromisoformat(told["invoices"][0]["window_start"])
    assert abs(datetime.now(UTC) - window) < timedelta(hours=2)
    assert sorted((each["name"], each["usd"]) for each in told["budgets"]) == [
        ("prepaid credit", "2.400000000"),
        ("the user's daily budget", "2.000000000"),
        ("the user's monthly budget for gpt-5-mini", "2.000000000"),
    ]


async def test_a_correction_is_for_whoever_pays_for_the_row(books: Books) -> None:
    books.user = await Accounts(books.pool).create_user("ann@example.com", stripe_customer_id="cus_first")
    event = await books.call(NANO)
    moved = await books.run("users", "set", "ann@example.com", "--stripe-customer", "cus_second", why=None)
    assert moved.error == ""
    done = await books.adjust(event.id, "--cost", "3")
    assert [each["stripe_customer_id"] for each in done["invoices"]] == ["cus_first"]
    rows = await books.pool.fetch(
        "select c.stripe_customer_id from openai_usage u join customers c on c.id = u.customer_id"
    )
    assert [row[0] for row in rows] == ["cus_first", "cus_first"]


async def test_looking_at_an_estimate_settles_it_once(books: Books) -> None:
    event = await books.call(NANO, evidence="estimated")
    assert (await books.adjust(event.id, "--cost", "1"))["rows"] == 1
    assert (await books.adjust(event.id, "--cost", "1"))["rows"] == 0
    assert (await books.sums(), await books.adjustments()) == ((NANO, 1_200_000_000), 1)


AMOUNTS = st.integers(0, 10**15)
TERMS = markup_terms(Decimal("1.2"))


def correctable(cost: int, billed: int, *, unpriced: bool = False, corrections: int = 0) -> CorrectableRow:
    row_id = "0193a8f0-1234-7abc-8def-0123456789ab"
    return CorrectableRow(
        row_id, "u", "e", None, None, "chat", "m", None, "reported", AT, AT, None, "v", unpriced, corrections, 5, 6, 11,
        cost, billed, TERMS.name, AT, None,
    )  # fmt: skip


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.one_of(st.none(), AMOUNTS), st.integers(0, 9))
def test_a_row_and_its_correction_are_what_was_wanted(
    cost: int, billed: int, wanted: int, wanted_billed: int | None, corrections: int
) -> None:
    row = correctable(cost, billed, corrections=corrections)
    asked = WantedRow(row.id, cost_nano=wanted, billed_nano=wanted_billed)
    try:
        change = plan_change(row, asked, TERMS)
    except OptionError:
        assert wanted_billed is None
        return
    event = adjustment_row(change, "c", "adjust", AT)
    assert event.cost_nano is not None
    assert event.billed_nano is not None
    assert (cost + event.cost_nano, billed + event.billed_nano) == (wanted, change.target.billed_nano)
    assert wanted_billed in (None, change.target.billed_nano)
    assert event.id == adjustment_row(change, "another", "adjust", AT + timedelta(1)).id
    assert event.id != adjustment_row(change, "c", "reprice", AT).id
    later = row._replace(corrections=corrections + 1)
    assert event.id != adjustment_row(change._replace(row=later), "c", "adjust", AT).id


@pytest.mark.parametrize("plan_version", ["markup:3", "standard@1"])
async def test_a_correction_is_billed_by_the_plan_of_the_row(books: Books, plan_version: str) -> None:
    """Whatever holds today: here that is 1.2."""
    await plant(books.pool, make_plan("standard", "3", valid_to=BEGAN + timedelta(days=1)))
    event = await books.call(NANO, billed=3 * NANO, plan_version=plan_version)
    done = await books.adjust(event.id, "--cost", "2")
    assert done["changes"][0]["billed_usd_difference"] == "3.000000000"
    assert await books.pool.fetchval("select plan_version from openai_usage where adjusts is not null") == plan_version


async def test_a_row_billed_by_a_list_of_prices_needs_the_amount_too(books: Books) -> None:
    own = {"usd_per_unit": {"gpt-5-mini": {"input_tokens": "1"}}, "factor": "1"}
    await plant(books.pool, make_plan("own", kind="price_list", rates=own))
    event = await books.call(NANO, billed=7 * NANO, plan_version="own@1")
    void = await books.call(0, billed=0, evidence="void", plan_version="own@1")
    unpriced = await books.call(None, plan_version="own@1")
    for row in (event, void, unpriced):
        done = await books.run("adjust", row.id, "--cost", "2", "--yes")
        assert "does not follow from its cost alone by its plan (own@1)" in done.error
    await books.adjust(event.id, "--cost", "2", "--billed", "8")


@given(AMOUNTS)
def test_what_is_billed_follows_the_cost_at_the_mark_up(wanted: int) -> None:
    for row in (correctable(10, 12), correctable(0, 0, unpriced=True)):
        change = plan_change(row, WantedRow(row.id, cost_nano=wanted), TERMS)
        assert abs(change.target.billed_nano * 10 - wanted * 12) <= 5


def test_what_is_void_has_nothing_left() -> None:
    row = correctable(10, 12)
    change = plan_change(row, WantedRow(row.id, void=True), TERMS)
    event = adjustment_row(change, "c", "adjust", AT)
    assert change.target == Target(row.id, 0, 0, void=True)
    assert (event.cost_nano, event.billed_nano, event.plan_version) == (-10, -12, "markup:1.2")
    assert (event.prompt_tokens, event.completion_tokens, event.total_tokens) == (-5, -6, -11)
