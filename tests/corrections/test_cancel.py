"""`gateway adjust --cancel`: the call, its window and Stripe have one whole amount, or nothing is changed."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.config.settings import Settings
from gateway.corrections.booking import Booked
from gateway.corrections.change import WantedRow
from gateway.corrections.reissuing import correct_and_reissue
from gateway.corrections.store import Reason
from gateway.kit.errors import Expected
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent
from tests.billing.test_cancelling import BALANCE
from tests.conftest import METER
from tests.corrections.corrections_at_work import Books
from tests.support.audits import audited
from tests.support.stand_ins import Clock, sandbox_at

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
WINDOW = NOW.replace(minute=0, second=0, microsecond=0) - 2 * HOUR
FIRST = f"{METER}:cus_1:{int(WINDOW.timestamp())}:0"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW.timestamp())) as running:
        running.stripe.customers.add(0, {}, customer_id="cus_1")
        yield running


@pytest.fixture
async def bill(sandbox: Sandbox, pool: Pool) -> AsyncIterator[UsageReporter]:
    billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url)
    await billing.ensure_meter(METER)
    log = structlog.get_logger()
    yield UsageReporter(Outbox(pool), billing, grace_s=300, monotonic=lambda: 0.0, random=lambda: 0.5, log=log)
    await billing.close()


@pytest.fixture
async def books(ledger: Ledger, pool: Pool, database_url: str, sandbox: Sandbox) -> Books:
    made = Books(ledger, pool, database_url)
    made.env |= {"STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY, "STRIPE_BASE_URL": sandbox.stripe_base_url}
    made.user = await Accounts(ledger.pool).create_user("ann@example.com", stripe_customer_id="cus_1")
    await pool.execute("update user_customers set valid_from = '-infinity'")
    return made


async def delivered(books: Books, bill: UsageReporter) -> UsageEvent:
    """A call of 12,000 micro-USD, with another of 1,000 in the same window, both at Stripe."""
    await books.call(1_000_000, billed=1_000_000, at=WINDOW)
    wrong = await books.call(10_000_000, billed=12_000_000, at=WINDOW + timedelta(minutes=5))
    await bill.step_once(NOW)
    return wrong


async def events(pool: Pool) -> list[tuple[object, ...]]:
    rows = await pool.fetch("select value, state, event_timestamp from stripe_meter_events order by id")
    return [tuple(row) for row in rows]


async def test_the_window_is_cancelled_and_sent_anew_with_the_correction(
    books: Books, pool: Pool, bill: UsageReporter, sandbox: Sandbox, tmp_path: Path
) -> None:
    wrong = await delivered(books, bill)
    asked = ("adjust", wrong.id, "--cost", "0.005", "--cancel")
    last = WINDOW + HOUR - timedelta(seconds=1)
    seen = await books.run(*asked)
    assert f"Stripe: {FIRST} (0.013000000 USD) would be cancelled" in seen.out
    assert f"window {WINDOW:%Y-%m-%d %H:%M}" in seen.out
    assert "this was a preview" in seen.out
    assert (await books.adjustments(), await events(pool)) == (0, [(13_000, "sent", last)])

    done = json.loads((await books.run(*asked, "--yes", "--json")).out)
    assert done["cancelled"] == [{"identifier": FIRST, "usd": "0.013000000"}]
    assert done["invoices"][0]["billed_usd"] == "-0.006000000"
    await bill.step_once(NOW)
    assert await events(pool) == [(13_000, "cancelled", last), (7_000, "sent", last)]
    assert [event.value for event in sandbox.stripe.events if not event.cancelled] == ["7000"]
    assert (await books.adjustments(), await pool.fetchval(BALANCE)) == (1, 0)
    row = await pool.fetchrow("select completed_at = booked_at, booked_at from openai_usage where adjusts is not null")
    assert tuple(row or ()) == (True, wrong.completed_at)
    decided = await pool.fetchrow("select who, action, why from stripe_decisions")
    assert tuple(decided or ()) == ("Ada", "cancel", "a test")
    listed = json.loads((await books.run("corrections", "list", "--json", why=None)).out)
    assert [(each["id"], each["billed_usd"]) for each in listed] == [(done["id"], "-0.006000000")]
    bridge = await books.run("billing", "status", why=None)
    assert (bridge.status, bridge.error) == (0, ""), bridge
    _, found = await audited(books.env | {"GATEWAY_DATA_DIR": str(tmp_path)}, "--all")
    assert {found[name]["state"] for name in ("INV-2", "INV-5", "INV-6", "INV-10", "INV-11")} == {"ok"}

    again = await books.run(*asked, "--yes")
    assert again.out.endswith("Nothing to correct.\n")
    await bill.step_once(NOW)
    assert len(await events(pool)) == 2


async def test_two_at_once_are_one(books: Books, pool: Pool, bill: UsageReporter, sandbox: Sandbox) -> None:
    """Neither gives the amount back twice, which would charge it twice."""
    wrong = await delivered(books, bill)
    settings = Settings(
        database_url=SecretStr(books.env["DATABASE_URL"]),
        stripe_secret_key=SecretStr(credentials.STRIPE_SECRET_KEY),
        stripe_base_url=sandbox.stripe_base_url,
    )
    wanted = WantedRow(wrong.id, void=True)
    done = await asyncio.gather(
        *(correct_and_reissue(settings, wanted, Reason("a test", None), now=NOW, is_sure=True) for _ in range(3)),
        return_exceptions=True,
    )
    assert sum(not isinstance(each, Exception) for each in done) == 1, done
    assert all(isinstance(each, Booked | Expected) for each in done), done
    await bill.step_once(NOW)
    assert [(value, state) for value, state, _ in await events(pool)] == [(13_000, "cancelled"), (1_000, "sent")]
    assert (await books.adjustments(), await pool.fetchval(BALANCE)) == (1, 0)


async def test_what_cannot_be_cancelled_is_not_corrected_either(books: Books, pool: Pool, bill: UsageReporter) -> None:
    wrong = await delivered(books, bill)
    asked = ("adjust", wrong.id, "--void", "--cancel", "--yes")

    async def refused(named: str, *arguments: str, **env: str) -> None:
        done = await books.run(*(arguments or asked), **env)
        assert (done.status, named in done.error) == (1, True), done
        assert await books.adjustments() == 0
        assert [state for _, state, _ in await events(pool)] == ["sent"]

    unsent = await books.call(1_000_000, at=NOW)
    await refused("nothing of the window", "adjust", unsent.id, "--void", "--cancel", "--yes")
    await refused("only with one ROW", "adjust", "--file", "x", "--cancel")
    await refused("billing.four_eyes", BILLING__FOUR_EYES="true")
    await refused("Stripe answered 401", STRIPE_SECRET_KEY="sk_test_of_another_account")
    invoice = (
        "insert into stripe_invoices (id, customer, status, currency, period_start, period_end, subtotal, total,"
        " created_at, finalized_at, lines, is_live, asked_at) values ('in_1', 'cus_1', 'paid', 'usd', $1, $2, 1, 1, $2,"
        " $2, '[]', false, now())"
    )
    await pool.execute(invoice, WINDOW - HOUR, WINDOW + HOUR)
    await refused("final invoice in_1")
    await pool.execute("delete from stripe_invoices")
    await pool.execute("update stripe_meter_events set delivered_at = delivered_at - interval '24 hours'")
    await refused("24 hours")
    await pool.execute("select seal_books($1)", NOW)
    await refused("is sealed")
    # The ordinary road is open: the difference goes with the window of now.
    assert (await books.run("adjust", wrong.id, "--void", "--yes")).error == ""
