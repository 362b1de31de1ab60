"""What the tests of the outbox share: a user with a customer, usage booked for them, an event made of it."""

from datetime import UTC, datetime, timedelta

from gateway.accounts.store import Accounts
from gateway.billing.decisions import Decisions, HeldDecision, HeldEvent
from gateway.billing.filing import FilingRules
from gateway.billing.outbox import HELD_STATES, Outbox
from gateway.billing.windows import Claim, Delivered, Rejected, Retry, StripeAnswer
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Connections, Pool
from tests.support.usage import entries, usage

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
GRACE_S = 300.0
HANGS_S = 60.0
"""Seconds after which something waits that must not wait."""
ALL = [
    "pending", "sent", "duplicate", "rejected", "unknown", "unreportable", "settled", "written_off", "cancelled",
    "superseded",
]  # fmt: skip


async def customer(ledger: Ledger, number: int = 1) -> str:
    """A user with a Stripe customer; returns the user's id."""
    return await Accounts(ledger.pool).create_user(f"user{number}@example.com", stripe_customer_id=f"cus_{number}")


async def book(ledger: Ledger, user_id: str, at: datetime, *nanos: int) -> None:
    await ledger.insert_batch(entries(*(usage(user_id, at, nano) for nano in nanos)))


async def accrued_nano(pool: Connections) -> int:
    """Nano-USD in windows that are not frozen."""
    open_nano = "select sum(billed_nano - credit_nano - frozen_nano - settled_nano) from billing_windows where open"
    return int((await pool.fetch(open_nano))[0][0])


async def events_in(outbox: Outbox, *states: str) -> list[HeldEvent]:
    """The newest first."""
    return await Decisions(outbox._pool, FilingRules()).held(states)


async def oldest_first(outbox: Outbox) -> list[HeldEvent]:
    return (await events_in(outbox, *ALL))[::-1]


async def claim_one(outbox: Outbox, now: datetime) -> Claim:
    (claim,) = await outbox.claim(now, lease_s=60, events_max=10)
    return claim


async def deliver(outbox: Outbox, claim: Claim, now: datetime) -> None:
    await outbox.mark_delivered(claim, StripeAnswer(Delivered(), 200, "req_1", claim.event.identifier), now)


async def reject(outbox: Outbox, claim: Claim, reason: str, now: datetime = TEN + 2 * HOUR) -> None:
    await outbox.mark_rejected(claim, StripeAnswer(Rejected(reason), 400, "req_2", claim.event.identifier), reason, now)


async def reissue(pool: Pool, identifier: str, now: datetime) -> str | None:
    """Somebody has a held event sent again; returns the new one's identifier."""
    decisions = Decisions(pool, FilingRules())
    (event,) = await decisions.held(HELD_STATES, identifier=identifier)
    replaced = await decisions.decide(event, HeldDecision("reissue", "Ada", "a test", None, {}), now)
    return replaced.identifier if replaced else None


async def retry(outbox: Outbox, claim: Claim, reason: str, now: datetime, *, after_s: float, in_doubt: bool) -> None:
    answer = StripeAnswer(Retry(reason, None, in_doubt))
    await outbox.mark_retry(claim, answer, reason, now, after_s=after_s, outcome="in_doubt" if in_doubt else "retry")


async def one_pending(ledger: Ledger, outbox: Outbox) -> HeldEvent:
    await book(ledger, await customer(ledger), TEN, 5_000)
    await outbox.freeze_closed(TEN + 2 * HOUR, GRACE_S)
    (held,) = await oldest_first(outbox)
    return held
