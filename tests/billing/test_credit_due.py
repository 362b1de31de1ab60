"""A correction that its new period cannot take back becomes credit due, whichever way it comes there."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.billing import freezing_sql
from gateway.billing.outbox import Outbox
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import (
    GRACE_S,
    HANGS_S,
    HOUR,
    book,
    claim_one,
    customer,
    deliver,
    oldest_first,
    reissue,
    reject,
)
from tests.billing.test_cancelling import BALANCE
from tests.conftest import METER
from tests.support.usage import entries, usage

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
OCTOBER_31 = NOVEMBER - 4 * HOUR
LATER = NOVEMBER + 10 * HOUR


@pytest.fixture
def outbox(pool: Pool) -> Outbox:
    return Outbox(pool)


async def corrected(ledger: Ledger, outbox: Outbox) -> str:
    """100 micro-USD of October are at Stripe, their whole correction is still to be sent; returns the user."""
    user = await customer(ledger)
    wrong = usage(user, OCTOBER_31, 100_000)
    await ledger.insert_batch(entries(wrong))
    await outbox.freeze_closed(OCTOBER_31 + 2 * HOUR, GRACE_S)
    await deliver(outbox, await claim_one(outbox, OCTOBER_31 + 2 * HOUR), OCTOBER_31 + 2 * HOUR)
    await ledger.insert_batch(
        entries(usage(user, OCTOBER_31 + HOUR, -100_000, evidence="adjustment", adjusts=wrong.id))
    )
    await outbox.freeze_closed(OCTOBER_31 + 3 * HOUR, GRACE_S)
    return user


async def values(outbox: Outbox) -> list[tuple[int, str]]:
    return [(held.value, held.state) for held in await oldest_first(outbox)]


async def due(pool: Pool) -> int:
    assert await pool.fetchval(BALANCE) == 0
    return int(await pool.fetchval("select sum(credit_due_nano) from billing_carry"))


@pytest.mark.parametrize("has", [0, 30])
async def test_a_correction_that_waited_over_the_edge(ledger: Ledger, outbox: Outbox, pool: Pool, has: int) -> None:
    user = await corrected(ledger, outbox)
    if has:
        await book(ledger, user, NOVEMBER + 5 * HOUR, has * 1_000)
        await outbox.freeze_closed(LATER, GRACE_S)
    assert await outbox.refile_overdue(LATER) == (1, 0)
    assert await values(outbox) == [
        (100, "sent"),
        (-100, "superseded"),
        *([(30, "pending"), (-30, "pending")] if has else []),
    ]
    assert await due(pool) == (100 - has) * 1_000
    said = await pool.fetchval("select error from stripe_attempts where outcome = 'refiled'")
    assert f"{100 - has} micro-USD became credit due" in said
    # What is used later pays for it, and only the rest is sent.
    await book(ledger, user, LATER, 250_000)
    await outbox.freeze_closed(LATER + 2 * HOUR, GRACE_S)
    assert (await values(outbox))[-1] == (250 - 100 + has, "pending")
    assert await due(pool) == 0


async def test_a_correction_of_what_stripe_refused(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """The period has not what it was about to have; what it cannot give back would be lost to the customer."""
    user = await customer(ledger)
    wrong = usage(user, OCTOBER_31, 100_000)
    await ledger.insert_batch(entries(wrong, usage(user, OCTOBER_31 - HOUR, 30_000)))
    await outbox.freeze_closed(OCTOBER_31 + 2 * HOUR, GRACE_S)
    at = OCTOBER_31 + 3 * HOUR
    await deliver(outbox, await claim_one(outbox, at), at)
    correction = usage(user, OCTOBER_31 + HOUR, -80_000, evidence="adjustment", adjusts=wrong.id)
    await ledger.insert_batch(entries(correction))
    await outbox.freeze_closed(at, GRACE_S)
    assert await outbox.refile_overdue(at) == (0, 0)
    await reject(outbox, await claim_one(outbox, at), "400: no", at)
    assert await outbox.refile_overdue(at) == (1, 0)
    assert await values(outbox) == [(30, "sent"), (100, "rejected"), (-80, "superseded"), (-30, "pending")]
    assert (await oldest_first(outbox))[-1].timestamp == (await oldest_first(outbox))[-2].timestamp
    assert await due(pool) == 50_000
    assert await outbox.refile_overdue(at) == (0, 0)


async def test_a_correction_that_somebody_has_sent_again(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    await corrected(ledger, outbox)
    at = OCTOBER_31 + 3 * HOUR
    await reject(outbox, await claim_one(outbox, at), "400: no", at)
    identifier = (await oldest_first(outbox))[-1].identifier
    assert await reissue(pool, identifier, LATER) is None
    assert await values(outbox) == [(100, "sent"), (-100, "superseded")]
    assert await due(pool) == 100_000
    evidence = await pool.fetchrow(
        "select evidence ->> 'credit_due', evidence ->> 'sent_again_as' from stripe_decisions"
    )
    assert tuple(evidence or ()) == ("100", None)


async def test_a_correction_is_sent_again_whole_where_its_period_takes_it(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    await corrected(ledger, outbox)
    at = OCTOBER_31 + 3 * HOUR
    await reject(outbox, await claim_one(outbox, at), "400: no", at)
    await reissue(pool, (await oldest_first(outbox))[-1].identifier, at + timedelta(minutes=20))
    assert await values(outbox) == [(100, "sent"), (-100, "superseded"), (-100, "pending")]
    assert await due(pool) == 0


async def test_corrections_refiled_at_once_take_back_once(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """Whoever files something anew waits for whoever freezes for the payer, and sees what that has taken back."""
    user = await corrected(ledger, outbox)
    await book(ledger, user, NOVEMBER + 5 * HOUR, 30_000)
    payer = await pool.fetchval("select payer_of($1, now())", user)
    async with pool.acquire() as freezer, freezer.transaction():
        await freezer.fetchrow(freezing_sql.CARRY_LOCK, payer, METER)
        refiling = asyncio.create_task(outbox.refile_overdue(LATER))
        done, _ = await asyncio.wait({refiling}, timeout=0.5)
        assert not done
    assert await asyncio.wait_for(refiling, HANGS_S) == (1, 0)
    assert await due(pool) == 100_000


async def test_a_correction_of_nobodys_customer_waits_for_a_person(ledger: Ledger, outbox: Outbox, pool: Pool) -> None:
    """As one of the version before payers, for a customer that nobody had any more when payers came."""
    await corrected(ledger, outbox)
    await pool.execute("update customers set stripe_customer_id = 'cus_other'")
    assert await outbox.refile_overdue(LATER) == (1, 0)
    assert (await values(outbox))[-1] == (-100, "unreportable")
    assert await due(pool) == 0
