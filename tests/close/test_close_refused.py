"""What a finance person would want refused: each is listed, and nothing is closed until it is right or accepted."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.close.rows import decode_rows
from gateway.close.verify import read_lines
from gateway.sandbox import credentials
from tests.close.site import ACCEPT, FIRST, OCTOBER, SEPTEMBER, Site, items
from tests.support.audits import insert
from tests.support.stripe_shop import open_shop

SET_STATE = "update stripe_meter_events set state = $2, delivered_at = $3, next_attempt_at = null where customer = $1"
MICRO = timedelta(microseconds=1)


async def test_months_are_closed_in_their_order(site: Site) -> None:
    await insert(site.ledger, [site.maker.reported(SEPTEMBER - timedelta(days=20))])
    await site.bill()
    assert items((await site.told("2026-09", "--dry-run"))["findings"])["earlier"] == (1, None)
    assert (await site.told("2026-09", *ACCEPT))["refused"] == ["earlier"]
    await site.told("2026-08", *ACCEPT)
    await site.told("2026-09", *ACCEPT)
    for month in ("2026-08", "2026-09"):
        await site.close("reopen", month, "--why", "a wrong plan")
    assert (await site.told("2026-09", *ACCEPT))["refused"] == ["earlier"]


async def test_a_month_without_usage_may_be_closed(site: Site) -> None:
    done = await site.told("2026-03", *ACCEPT)
    assert (done["closed"], done["rows"]) == (True, 0)


@pytest.mark.parametrize("month", ["2027-01", "2999-12"])
async def test_a_month_in_the_future_is_never_closed(site: Site, month: str) -> None:
    assert "month" in (await site.told(month))["refused"]
    assert await site.pool.fetchval("select sealed_until = '-infinity' from books")


@pytest.mark.parametrize("month", ["9999-12", "10000-01", "2026-13", "0000-01", "2026-09-01", "2026", "=1+1"])
async def test_what_is_no_month_is_said(site: Site, month: str) -> None:
    done = await site.close(month)
    assert (done.status, "MONTH" in done.error) == (1, True), done


async def test_what_no_event_was_made_of_is_listed(site: Site) -> None:
    waiting = site.maker.reported(FIRST + timedelta(days=5))
    await insert(site.ledger, [waiting])
    found = items((await site.told("2026-09", *ACCEPT, "--dry-run"))["findings"])
    assert found["sending"] == (1, f"{Decimal(waiting.billed_nano or 0).scaleb(-9):.9f}")
    await site.bill()
    assert (await site.told("2026-09", *ACCEPT, "--dry-run"))["refused"] == []


async def test_a_correction_that_waits_for_somebody_is_listed(site: Site) -> None:
    proposal = await site.pool.fetchval(
        "insert into correction_proposals (id, made_by, why, kind, targets, rows, cost_nano, billed_nano)"
        " values (gen_random_uuid(), 'Ada', 'a test', 'void', '[]', 1, -5, -6) returning id"
    )
    assert items((await site.told("2026-09", "--dry-run"))["findings"])["corrections"] == (1, None)
    await site.pool.execute(
        "insert into correction_decisions (proposal_id, decided_by, approved) values ($1, 'Bob', false)", proposal
    )
    assert "corrections" not in items((await site.told("2026-09", "--dry-run"))["findings"])


async def unread(site: Site) -> str:
    """Why Stripe was not read."""
    findings = (await site.told("2026-09", "--dry-run"))["findings"]
    (found,) = (each for each in findings if each["item"] == "stripe")
    assert (found["count"], found["usd"]) == (0, None)
    return str(found["look"])


async def test_what_stripe_has_differently_is_listed(site: Site) -> None:
    """Compared with the stand-in, which lacks what we say was delivered; once we say that it waits, that is right."""
    async with open_shop() as shop:
        customer = (await shop.client.v1.customers.create_async({"email": "bob@example.com"})).id
        bob = await Accounts(site.pool).create_user("bob@example.com", stripe_customer_id=customer)
        used = site.maker.reported(FIRST, user_id=bob, api_key_id=None)
        await insert(site.ledger, [used])
        await Outbox(site.pool).freeze_closed(FIRST + timedelta(hours=3), 300)
        await site.pool.execute(SET_STATE, customer, "sent", datetime.now(UTC) - timedelta(hours=1))
        site.env |= {"STRIPE_BASE_URL": shop.sandbox.stripe_base_url}
        assert "Stripe answered 401" in await unread(site)
        site.env |= {"STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY}
        found = items((await site.told("2026-09", "--dry-run"))["findings"])
        assert (found["stripe"], "held" in found) == ((1, None), False)
        await site.pool.execute(SET_STATE, customer, "rejected", None)
        found = items((await site.told("2026-09", "--dry-run"))["findings"])
        assert ("stripe" in found, "held" in found) == (False, True)
    del site.env["STRIPE_SECRET_KEY"]
    assert "STRIPE_SECRET_KEY is not set" in await unread(site)


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's local time is 14 hours ahead of UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Pacific/Kiritimati")
        time.tzset()
        yield
    time.tzset()


async def test_a_month_is_one_of_utc_wherever_it_is_closed(site: Site, far_east: None) -> None:
    """Whatever the time zone of this process is."""
    edges = [SEPTEMBER - MICRO, SEPTEMBER, OCTOBER - MICRO, OCTOBER]
    events = [site.maker.reported(at - timedelta(seconds=2)) for at in edges]  # completed two seconds later
    assert [event.completed_at for event in events] == edges
    await insert(site.ledger, events)
    await site.bill()
    assert time.timezone == -14 * 3600
    done = await site.told("2026-09", *ACCEPT, "--accept", "earlier=a test of its own")
    packed = {row.id: row for line in read_lines(Path(done["pack"])) for row in decode_rows(line)}
    assert [event.id in packed for event in events] == [False, True, True, False]
    assert len(packed) == len(site.events) + 2
    assert packed[events[2].id].booked_at == OCTOBER - MICRO
    assert await site.pool.fetchval("select sealed_until from books") == datetime(2026, 10, 1, tzinfo=UTC)
