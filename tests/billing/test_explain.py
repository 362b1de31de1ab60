"""An invoice of the stand-in traced to its calls and back; each sum equals the line, or says why it does not."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from gateway.billing.explain.chain import BilledLine, OutboxEvent, build_chain
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.billed_month import FIRST, Month, open_month
from tests.conftest import METER
from tests.support.invoke import Done, gateway
from tests.support.stripe_shop import DAY, JANUARY, START


@pytest.fixture
async def month(ledger: Ledger) -> AsyncIterator[Month]:
    async with open_month(ledger) as made:
        yield made


async def explain(month: Month, database_url: str, *arguments: str) -> Done:
    return await gateway(month.environment(database_url), "stripe", "explain", *arguments)


async def told(month: Month, database_url: str, *arguments: str) -> Any:
    done = await explain(month, database_url, *arguments, "--json")
    assert (done.status, done.error) == (0, ""), done
    return json.loads(done.out)


def steps(chain: Any) -> dict[str, str]:
    return {step["key"]: step["usd"] for step in chain["steps"]}


async def test_an_invoice_to_its_calls_and_back(month: Month, database_url: str, pool: Pool) -> None:
    ann, bob = await month.add_user("ann"), await month.add_user("bob")
    rows = await month.book(ann, 1, 1_234_567, 999)
    rows += await month.book(bob, 1.5, 50_000_000_001)
    rows += await month.book(ann, 30, 777)
    rows += await month.book(bob, 31, -1_000_000, evidence="adjustment", adjusts=rows[2].id)
    await month.report(START + 3 * DAY)
    rows += await month.book(bob, 30.5, 5_000_000)  # comes when its hour was frozen already
    await month.report(JANUARY + 600)
    invoice = await month.invoice()
    (chain,) = (await told(month, database_url, invoice.id))["chains"]
    line = chain["line"]
    total = sum(row.billed_nano or 0 for row in rows)
    assert (chain["unexplained_usd"], chain["causes"]) == ("0.000000000", [])
    assert Decimal(steps(chain)["rows"]) == Decimal(total).scaleb(-9)
    assert Decimal(steps(chain)["events"]) == Decimal(steps(chain)["line"]) == Decimal(line["quantity"]).scaleb(-6)
    assert abs(Decimal(steps(chain)["carried"])) < Decimal("0.000001")
    added = [Decimal(step["usd"]) for step in chain["steps"] if step["key"] not in ("events", "line")]
    assert sum(added) == Decimal(steps(chain)["events"])
    assert line["amount"] == invoice.total == 5001
    assert {row["id"] for row in chain["rows"]} == {row.id for row in rows}
    # The line alone, and the same as CSV, whose sum is the sum of the rows.
    assert [one["line"]["id"] for one in (await told(month, database_url, line["id"]))["chains"]] == [line["id"]]
    listed = list(csv.DictReader(io.StringIO((await explain(month, database_url, line["id"], "--csv")).out)))
    assert sum(Decimal(each["billed_usd"]) for each in listed) == Decimal(total).scaleb(-9)
    assert {each["line"] for each in listed} == {line["id"]}
    assert {each["user_email"] for each in listed} == {"ann@example.com", "bob@example.com"}
    # And back: from each row to its events and to the line.
    for row in rows:
        (found,) = (await told(month, database_url, row.id))["rows"]
        assert [one["id"] for one in found["lines"]] == [line["id"]]
        assert found["events"]
        assert {one["identifier"] for one in found["events"]} <= {one["identifier"] for one in chain["events"]}
    for event in chain["events"]:
        (traced,) = (await told(month, database_url, event["identifier"]))["events"]
        assert [one["id"] for one in traced["lines"]] == [line["id"]]
        assert [one["outcome"] for one in traced["attempts"]] == ["delivered"]
        assert traced["rows"]
    shown = await explain(month, database_url, invoice.id)
    assert (shown.status, f"= {len(rows)} calls and corrections" in shown.out) == (0, True)


async def test_by_an_id_of_openai(month: Month, database_url: str, pool: Pool) -> None:
    ann = await month.add_user("ann")
    (row,) = await month.book(ann, 1, 1_000)
    await pool.execute("alter table openai_usage disable trigger all")
    await pool.execute("update openai_usage set request_id = 'req_1', response_id = 'resp_1'")
    for name in ("req_1", "resp_1"):
        (found,) = (await told(month, database_url, name))["rows"]
        assert (found["id"], found["lines"]) == (row.id, [])
    done = await explain(month, database_url, "req_1")
    assert "On no invoice that is known here yet." in done.out
    missing = await explain(month, database_url, "resp_2")
    assert (missing.status, "is known here neither as an invoice" in missing.error) == (1, True)


async def test_a_call_without_a_price_is_not_shown_as_0(month: Month, database_url: str, pool: Pool) -> None:
    (row,) = await month.book(await month.add_user("ann"), 1, 1_000)
    await pool.execute("alter table openai_usage disable trigger all")
    await pool.execute("update openai_usage set evidence = 'unpriced', cost_usd = null, billed_usd = null")
    assert (await told(month, database_url, row.id))["rows"][0]["billed_nano"] is None
    (line,) = csv.DictReader(io.StringIO((await explain(month, database_url, row.id, "--csv")).out))
    assert line["billed_usd"] == ""
    assert "0.000000000" not in (await explain(month, database_url, row.id)).out


async def test_what_is_not_on_the_line_says_where_it_is(month: Month, database_url: str, pool: Pool) -> None:
    ann = await month.add_user("ann")
    await month.book(ann, 1, 3_000_000)
    await month.book(ann, 50, 7_000_000)
    await month.report(START + 4 * DAY)
    await pool.execute(
        "update stripe_meter_events set state = 'rejected', delivered_at = null, last_error = 'a test' "
        "where value = 7000"
    )
    # Stripe does not have it, and so the line does not.
    name = await pool.fetchval("select identifier from stripe_meter_events where value = 7000")
    cancel: Any = {"event_name": METER, "type": "cancel", "cancel": {"identifier": name}}
    await month.shop.client.v1.billing.meter_event_adjustments.create_async(cancel)
    invoice = await month.invoice()
    (chain,) = (await told(month, database_url, invoice.id))["chains"]
    assert steps(chain)["events_rejected"] == "-0.007000000"
    assert (steps(chain)["events"], steps(chain)["line"]) == ("0.003000000", "0.003000000")
    assert chain["unexplained_usd"] == "0.000000000"


async def test_late_usage_is_on_the_next_line_and_both_say_so(month: Month, database_url: str) -> None:
    ann = await month.add_user("ann")
    await month.book(ann, 1, 3_000_000)
    await month.report(START + DAY)
    december = await month.invoice()
    (late,) = await month.book(ann, 1.5, 7_000_000)  # of an hour whose invoice is final
    await month.report(JANUARY + 5 * DAY)
    await month.shop.move_to(JANUARY + 31 * DAY + 7200)
    await month.sync()
    january = next(one for one in await month.shop.invoices(customer=month.customer) if one.id != december.id)
    (before,) = (await told(month, database_url, december.id))["chains"]
    assert steps(before)["events_later"] == "-0.007000000"
    assert (steps(before)["events"], before["unexplained_usd"]) == ("0.003000000", "0.000000000")
    (after,) = (await told(month, database_url, january.id))["chains"]
    assert steps(after)["events_earlier"] == "-0.003000000"
    assert (steps(after)["events"], after["unexplained_usd"]) == ("0.007000000", "0.000000000")
    assert [one["reason"] for one in after["events"]] == ["late"]
    (found,) = (await told(month, database_url, late.id))["rows"]
    assert january.id in {one["invoice"] for one in found["lines"]}
    done = await gateway(month.environment(database_url), "reconcile", "stripe", "--month", "2026-12", "--json")
    (own,) = json.loads(done.out)["customers"]
    assert (done.status, own["differences"]) == (
        0, [{"cause": "late", "usd": "-0.007000000", "text": "filed in a later period than the usage is of"}],
    )  # fmt: skip


async def test_what_nothing_explains_is_said_and_fails(month: Month, database_url: str) -> None:
    ann = await month.add_user("ann")
    await month.book(ann, 1, 3_000_000)
    await month.report(START + DAY)
    await month.shop.use(month.customer, 500, START + DAY, "of somebody else")
    invoice = await month.invoice()
    done = await explain(month, database_url, invoice.id)
    assert done.status == 1
    assert "Stripe bills 500 micro-USD more than was delivered" in done.out
    assert "NOT EXPLAINED: 0.000500000 USD" in done.out


def line(quantity: int, amount: int) -> BilledLine:
    return BilledLine(
        "in_1", None, "paid", FIRST + timedelta(days=32), "cus_1", "il_1", amount, "usd", Decimal(quantity), METER,
        FIRST, FIRST + timedelta(days=31),
    )  # fmt: skip


def event(value: int, *, delivered_days: float = 1) -> OutboxEvent:
    return OutboxEvent(
        1, "e", uuid4(), None, "cus_1", METER, FIRST, FIRST, value, "sent", "usage", None,
        FIRST + timedelta(days=delivered_days), None, None,
    )  # fmt: skip


def test_a_negative_period_is_billed_as_zero() -> None:
    chain = build_chain(line(0, 0), [event(-5)], [], [], 0)
    assert "negative" in chain.causes[0]


def test_what_was_delivered_after_the_invoice_was_final_is_not_on_it() -> None:
    chain = build_chain(line(0, 0), [event(5, delivered_days=40)], [], [], 0)
    assert "after the invoice was final" in chain.causes[0]
    assert chain.unexplained_nano == 0


def test_an_amount_that_is_not_the_price_of_the_quantity_is_said() -> None:
    chain = build_chain(line(1_234_567, 124), [], [], [], 0)
    assert chain.causes[-1] == "1234567 micro-USD are 123 cents, and the line has 124"
