"""`gateway doctor`: what makes invoices other than the months of the books, and whether Stripe tells us anything."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.config.settings import Settings
from gateway.doctor.invoices import check_invoices
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.billed_month import Month, open_month
from tests.support.stripe_shop import DAY, START


@pytest.fixture
async def month(ledger: Ledger) -> AsyncIterator[Month]:
    async with open_month(ledger) as made:
        yield made


async def found(pool: Pool, **environ: str) -> list[str]:
    results = await check_invoices(Settings.of(environ), pool)
    assert {one.level for one in results} <= {"warn"}
    assert all(one.fix for one in results)
    return [one.says for one in results]


async def test_where_nobody_is_billed_nothing_is_said(pool: Pool) -> None:
    assert await found(pool) == []


async def test_what_is_missing_is_named(month: Month, pool: Pool) -> None:
    await month.add_user("ann")
    said = await found(pool)
    assert [text.split(" ")[0] for text in said] == ["STRIPE_WEBHOOK_SECRET", "billing.invoice_grace_h"]
    all_set = {"STRIPE_WEBHOOK_SECRET": "whsec_0123456789abcdef", "BILLING__INVOICE_GRACE_H": "72"}
    assert await found(pool, **all_set) == ["no webhook has come yet"]
    await pool.execute("insert into webhook_inbox (source, event_id, event_type, body) values ('stripe', 'e', 'x', '')")
    assert await found(pool, **all_set) == []
    await pool.execute("delete from stripe_subscriptions")
    assert [text for text in await found(pool, **all_set) if "no subscription is known" in text]


async def test_a_customer_whose_periods_are_not_months_is_named(month: Month, pool: Pool) -> None:
    await month.add_user("ann")
    await month.shop.move_to(START + 9 * DAY + 3600)
    other = await month.shop.subscribe()
    later: Any = {"billing_cycle_anchor_config": {"day_of_month": 1, "hour": 0, "minute": 0, "second": 0}}
    right = await month.shop.subscribe(**later)
    await month.sync()
    (said,) = [text for text in await found(pool) if "first of a month" in text]
    assert other.customer in said
    assert right.customer not in said
    assert month.customer not in said
    await month.shop.client.v1.subscriptions.cancel_async(other.id)
    await month.sync()
    assert [text for text in await found(pool) if "first of a month" in text] == []


async def test_a_customer_who_is_charged_twice_or_not_at_all_is_named(month: Month, pool: Pool) -> None:
    await month.add_user("ann")
    assert [text for text in await found(pool) if "bill all usage" in text or "paused" in text] == []
    second = await month.shop.subscribe(month.customer)
    await month.sync()
    (said,) = [text for text in await found(pool) if "bill all usage" in text]
    assert month.customer in said
    await month.shop.client.v1.subscriptions.cancel_async(second.id)
    await month.sync()
    assert [text for text in await found(pool) if "bill all usage" in text] == []
    await pool.execute("update stripe_subscriptions set status = 'paused' where id <> $1", second.id)
    (said,) = [text for text in await found(pool) if "paused" in text]
    assert month.customer in said
