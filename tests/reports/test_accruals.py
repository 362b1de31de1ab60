"""`gateway report accruals`: each amount of a month once, where it stands."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.accounts.store import Accounts
from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.refresh import Mirror
from gateway.billing.mirror.store import MirrorStore
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.billed_month import FIRST, Month, open_month
from tests.support.invoke import gateway
from tests.support.stripe_shop import DAY, START


@pytest.fixture
async def month(ledger: Ledger) -> AsyncIterator[Month]:
    async with open_month(ledger) as made:
        yield made


async def accruals(database_url: str, during: str = "2026-12") -> dict[tuple[str, str], str]:
    done = await gateway({"DATABASE_URL": database_url}, "report", "accruals", "--during", during, "--json")
    assert (done.status, done.error) == (0, "")
    report = json.loads(done.out)
    found = {(row["cause"], row["customer"]): row["usd"] for row in report["rows"]}
    assert len(found) == len(report["rows"])
    earned = [row for row in report["rows"] if row["kind"] == "earned_not_invoiced"]
    assert sum(Decimal(row["usd"]) for row in earned) == Decimal(report["earned_not_invoiced_usd"])
    return found


async def test_a_month_from_open_windows_to_the_invoice(month: Month, database_url: str, pool: Pool) -> None:
    ann = await month.add_user("ann")
    nobody = await Accounts(pool).create_user("nobody@example.com")
    await month.book(ann, 1, 3_000_000)
    await month.book(nobody, 1, 7_000)
    cus = month.customer
    unbilled = {("unbilled", ""): "0.000007000"}
    assert await accruals(database_url) == {("open", cus): "0.003000000"} | unbilled
    await month.report(START + DAY)
    assert await accruals(database_url) == {("delivered", cus): "0.003000000"} | unbilled
    await pool.execute("update stripe_meter_events set state = 'unknown', delivered_at = null")
    assert await accruals(database_url) == {("held", cus): "0.003000000"} | unbilled
    await pool.execute("update stripe_meter_events set state = 'sent', delivered_at = now()")
    await month.invoice()
    assert await accruals(database_url) == unbilled
    table = await gateway({"DATABASE_URL": database_url}, "report", "accruals", "--during", "2026-12")
    assert "earned, not invoiced: 0.000007000" in table.out
    listed = (await gateway({"DATABASE_URL": database_url}, "report", "accruals", "--during", "2026-12", "--csv")).out
    assert [row["usd"] for row in csv.DictReader(io.StringIO(listed))] == ["0.000007000"]
    wrong = await gateway({"DATABASE_URL": database_url}, "report", "accruals", "--during", "2026-12-01")
    assert wrong.error.startswith("--during:")


async def test_usage_is_earned_when_it_completes(month: Month, database_url: str, pool: Pool) -> None:
    """A call of December that is booked in January is December's revenue, and none of January's."""
    ann = await month.add_user("ann")
    await pool.execute("select seal_books($1)", FIRST + timedelta(days=40))
    await month.book(ann, 10, 5_000)
    booked = await pool.fetchval("select booked_at from openai_usage")
    assert booked >= FIRST + timedelta(days=40)
    later = f"{booked:%Y-%m}"
    assert await accruals(database_url) == {("booked_later", month.customer): "0.000005000"}
    assert await accruals(database_url, later) == {
        ("open", month.customer): "0.000005000", ("earned_before", month.customer): "-0.000005000",
    }  # fmt: skip


async def test_credit_that_is_not_used(month: Month, database_url: str, pool: Pool) -> None:
    ann = await Accounts(pool).create_user("ann@example.com")
    await pool.execute("insert into credit_entries (user_id, amount_usd, created_at) values ($1, 20, $2)", ann, FIRST)
    await month.book(ann, 24 * 20, 5_000_000_000)
    for category, cents in (("paid", 700), ("promotional", 300)):
        given: Any = {
            "customer": month.customer, "category": category,
            "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": cents}},
            "applicability_config": {"scope": {"price_type": "metered"}},
        }  # fmt: skip
        grant = await month.shop.client.v1.billing.credit_grants.create_async(given)
        await Mirror(StripeReader(month.billing), MirrorStore(pool)).refresh(
            "credit_grant", grant.id, event=None, occurred_at=None
        )
    paid = await pool.fetchval("select id from stripe_credit_grants where category = 'paid'")
    grants = {(f"credit_grant {paid}", month.customer): "7.000000000"}
    assert await accruals(database_url) == grants | {("prepaid_credit", ""): "15.000000000"}
    await month.book(ann, 24 * 40, 6_000_000_000)
    assert await accruals(database_url) == grants | {("prepaid_credit", ""): "15.000000000"}
    assert await accruals(database_url, "2027-01") == grants | {("prepaid_credit", ""): "9.000000000"}
    assert await accruals(database_url, "2026-11") == grants  # nobody had given any
