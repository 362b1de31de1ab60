"""Claims and marks against a real PostgreSQL: an event is sent by one worker at a time, and never after its time."""

import asyncio
from datetime import timedelta

import pytest

from gateway.billing import outbox_sql as sql
from gateway.billing.outbox import Outbox
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import (
    GRACE_S,
    HANGS_S,
    HOUR,
    TEN,
    book,
    claim_one,
    customer,
    deliver,
    events_in,
    oldest_first,
    one_pending,
    reissue,
    reject,
    retry,
)


@pytest.fixture
def outbox(pool: Pool) -> Outbox:
    return Outbox(pool)


async def test_one_event_per_customer_and_meter_at_a_time(ledger: Ledger, outbox: Outbox) -> None:
    now = TEN + 5 * HOUR
    for number in (1, 2):
        user = await customer(ledger, number)
        for hours in range(3):
            await book(ledger, user, TEN + hours * HOUR, 5_000)
    await outbox.freeze_closed(now, GRACE_S)
    claims = await outbox.claim(now, lease_s=60, events_max=10)
    assert sorted(claim.event.customer for claim in claims) == ["cus_1", "cus_2"]
    assert await outbox.claim(now + timedelta(seconds=59), lease_s=60, events_max=10) == []
    await deliver(outbox, claims[0], now)
    (following,) = await outbox.claim(now, lease_s=60, events_max=10)
    assert following.event.customer == claims[0].event.customer
    assert following.event.timestamp > claims[0].event.timestamp  # oldest first


async def test_workers_claiming_at_once_share_nothing(ledger: Ledger, outbox: Outbox) -> None:
    now = TEN + 2 * HOUR
    for number in range(12):
        await book(ledger, await customer(ledger, number), TEN, 5_000)
    await outbox.freeze_closed(now, GRACE_S)
    rounds = await asyncio.gather(*(outbox.claim(now, lease_s=60, events_max=5) for _ in range(8)))
    ids = [claim.id for claims in rounds for claim in claims]
    while left := await outbox.claim(now, lease_s=60, events_max=5):
        ids += [claim.id for claim in left]
    assert len(ids) == len(set(ids)) == 12


async def test_a_worker_passes_by_an_event_that_another_one_is_claiming(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    await one_pending(ledger, outbox)
    now = TEN + 2 * HOUR
    async with pool.acquire() as other, other.transaction():
        claimed = await other.fetch(
            sql.CLAIM, now, now + timedelta(seconds=60), 5, now - 20 * HOUR, None, "", "", None, None
        )
        assert len(claimed) == 1
        assert await asyncio.wait_for(outbox.claim(now, lease_s=60, events_max=5), HANGS_S) == []
    assert await outbox.claim(now, lease_s=60, events_max=5) == []


async def test_a_lost_claim_is_sent_again_as_the_same_event(ledger: Ledger, outbox: Outbox) -> None:
    await one_pending(ledger, outbox)
    now = TEN + 2 * HOUR
    lost = await claim_one(outbox, now)
    again = await claim_one(outbox, now + timedelta(seconds=60))
    assert again.event == lost.event
    assert (lost.attempts, again.attempts) == (1, 2)
    assert (lost.doubt_since, again.doubt_since) == (None, now)  # nobody knows whether the first one arrived


async def test_what_a_worker_says_after_its_lease_counts_only_if_it_delivered(ledger: Ledger, outbox: Outbox) -> None:
    held = await one_pending(ledger, outbox)
    now = TEN + 2 * HOUR
    lost = await claim_one(outbox, now)
    await claim_one(outbox, now + timedelta(seconds=60))
    await reject(outbox, lost, "too late")
    await retry(outbox, lost, "too late", now, after_s=0, in_doubt=False)
    assert await outbox.claim(now + timedelta(seconds=61), lease_s=60, events_max=1) == []
    await deliver(outbox, lost, now)
    (after,) = await events_in(outbox, "sent")
    assert (after.identifier, after.delivered_at) == (held.identifier, now)


async def test_doubt_of_twenty_hours_is_never_sent_again(ledger: Ledger, outbox: Outbox) -> None:
    await one_pending(ledger, outbox)
    now = TEN + 2 * HOUR
    claim = await claim_one(outbox, now)
    await retry(outbox, claim, "no answer", now, after_s=1, in_doubt=True)
    last = await claim_one(outbox, now + timedelta(hours=19, minutes=59))
    await retry(outbox, last, "429", now, after_s=1, in_doubt=False)  # a later no does not settle the first
    late = now + timedelta(hours=20)
    assert await outbox.claim(late, lease_s=60, events_max=1) == []
    assert await outbox.expire_doubtful(late) == 1
    (unknown,) = await events_in(outbox, "unknown")
    assert "429" in (unknown.last_error or "")
    assert await outbox.claim(late + 100 * HOUR, lease_s=60, events_max=1) == []


async def test_an_event_that_certainly_did_not_arrive_never_becomes_unknown(ledger: Ledger, outbox: Outbox) -> None:
    await one_pending(ledger, outbox)
    now = TEN + 2 * HOUR
    for _ in range(3):
        claim = await claim_one(outbox, now)
        await retry(outbox, claim, "429", now, after_s=1, in_doubt=False)
        now += 15 * HOUR
        assert await outbox.expire_doubtful(now) == 0
    assert (await claim_one(outbox, now)).doubt_since is None


async def test_an_event_is_not_given_up_while_it_is_being_sent(ledger: Ledger, outbox: Outbox) -> None:
    await one_pending(ledger, outbox)
    now = TEN + 2 * HOUR
    claim = await claim_one(outbox, now)
    await retry(outbox, claim, "no answer", now, after_s=1, in_doubt=True)
    almost = now + timedelta(hours=20) - timedelta(seconds=10)
    await claim_one(outbox, almost)
    assert await outbox.expire_doubtful(almost + timedelta(seconds=30)) == 0
    assert await outbox.expire_doubtful(almost + timedelta(seconds=60)) == 1


async def test_a_person_sends_a_rejected_event_again_under_a_new_identifier(
    ledger: Ledger, outbox: Outbox, pool: Pool
) -> None:
    held = await one_pending(ledger, outbox)
    now = TEN + 2 * HOUR
    await reject(outbox, await claim_one(outbox, now), "no such meter")
    fresh = await reissue(pool, held.identifier, now)
    assert fresh == held.identifier[:-1] + "1"
    before, after = await oldest_first(outbox)  # its amount counts once: the first one is superseded
    assert (before.identifier, before.state, before.value) == (held.identifier, "superseded", held.value)
    assert (after.identifier, after.state, after.value) == (fresh, "pending", held.value)
    assert fresh in (before.last_error or "")
    assert (await claim_one(outbox, now)).event.identifier == fresh
