"""The Stripe outbox in Postgres: windows frozen into meter events, and the state of each event.

Must not speak to Stripe, and must never give an event out again whose fate has been in doubt for longer
than Stripe remembers identifiers. Every instant is an argument, UTC.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from gateway.billing import freezing_sql
from gateway.billing import outbox_sql as sql
from gateway.billing.filing import FilingRules
from gateway.billing.freezing import freeze_payer
from gateway.billing.refiling import refile_overdue
from gateway.billing.windows import (
    DOUBT_MAX,
    Claim,
    Duplicate,
    FreezeCounts,
    MeterEvent,
    StripeAnswer,
)
from gateway.stores.postgres import Connections, Table

DEFAULT_RULES: Final = FilingRules()
HELD_STATES: Final = ("rejected", "unknown", "unreportable")
"""States that only a person ends."""


class OutboxStatus(NamedTuple):
    """What is in the outbox; costs the same however much it holds."""

    counts: dict[str, int]
    """Events per state (docs/billing.md)."""
    values: dict[str, int]
    """Whole micro-USD per state."""
    oldest_pending_at: datetime | None


_FIRST: Final = ("", "")
"""Before every customer and meter."""


class Outbox(Table):
    """The outbox over one connection pool. All methods raise DependencyDown("postgres") when it is away."""

    def __init__(self, pool: Connections, rules: FilingRules = DEFAULT_RULES) -> None:
        """`rules`: when an amount is filed under which time."""
        super().__init__(pool)
        self._rules: Final = rules
        self.after = _FIRST
        """The customer and meter behind which the next claim begins."""

    async def now(self) -> datetime:
        """This instant, by the clock that is one for all processes."""
        async with self._connection() as connection:
            at: datetime = await connection.fetchval(sql.NOW)
            return at

    async def freeze_closed(
        self, now: datetime, grace_s: float, *, account: str | None = None, groups_max: int = 1000
    ) -> FreezeCounts:
        """Freezes every window that ended at least `grace_s` seconds before `now`, late usage of frozen ones too.

        A negative `grace_s` closes windows before their end. One transaction per customer and meter; safe from many
        workers at once. `account` is the Stripe account that the events are for. `groups_max` bounds the pass; the next
        one goes on.
        """
        closed_by = now - timedelta(seconds=grace_s)
        windows = events = 0
        async with self._connection() as connection:
            payers = await connection.fetch(freezing_sql.CLOSED, closed_by, groups_max)
            for row in payers:
                payer = row["customer_id"], row["meter"]
                async with connection.transaction():
                    done = await freeze_payer(connection, payer, closed_by, now, account, self._rules)
                windows += done.windows
                events += done.events
        return FreezeCounts(windows, events)

    async def claim(self, now: datetime, *, lease_s: float, events_max: int, account: str | None = None) -> list[Claim]:
        """Leases due events of an account for `lease_s` seconds, one per customer and meter at most.

        A claim that is never marked is claimed again after the lease, under the same identifier. Customers take turns:
        a claim goes on behind the last customer that the one before has looked at.
        """
        claims: list[Claim] = []
        until, doubt, begun_at = now + timedelta(seconds=lease_s), now - DOUBT_MAX, self.after
        async with self._connection() as connection:
            # To the last customer, then from the first one to where it began.
            for stop in [(None, None)] if begun_at == _FIRST else [(None, None), begun_at]:
                while len(claims) < events_max:
                    wanted = events_max - len(claims)
                    rows = await connection.fetch(sql.CLAIM, now, until, wanted, doubt, account, *self.after, *stop)
                    claims += [_claim(row) for row in rows if row["id"] is not None]
                    if not rows or rows[0]["found"] < wanted:
                        self.after = _FIRST
                        break
                    self.after = rows[0]["last_customer"], rows[0]["last_meter"]
        return claims

    async def of_other_accounts(self, account: str) -> dict[str, int]:
        """How many events wait for each other Stripe account than `account`."""
        async with self._connection() as connection:
            return {row["account"]: row["count"] for row in await connection.fetch(sql.OF_OTHERS, account)}

    async def meters_waiting(self, account: str) -> list[str]:
        """The meters for which events of this account wait."""
        async with self._connection() as connection:
            return [row["meter"] for row in await connection.fetch(sql.METERS_WAITING, account)]

    async def refile_overdue(self, now: datetime, *, account: str | None = None) -> tuple[int, int]:
        """Files events at the present whose period's invoice takes them no more; returns how many, and how many of
        these are in doubt instead."""
        async with self._connection() as connection:
            return await refile_overdue(connection, now, account, self._rules)

    async def expire_doubtful(self, now: datetime, *, account: str | None = None) -> int:
        """Moves events that may have arrived and are older than 20 h to `unknown`; returns how many."""
        async with self._connection() as connection:
            return _affected(await connection.execute(sql.EXPIRE, now - DOUBT_MAX, now, account))

    async def mark_delivered(self, claim: Claim, answer: StripeAnswer, now: datetime) -> None:
        """Stripe has it. Holds even when the lease has run out: a delivery stays true."""
        is_repeat = isinstance(answer.outcome, Duplicate)
        noted = _note(claim, answer, now, "duplicate" if is_repeat else "delivered", None)
        async with self._connection() as connection:
            await connection.execute(sql.MARK_DELIVERED, *noted, "duplicate" if is_repeat else "sent")

    async def mark_rejected(self, claim: Claim, answer: StripeAnswer, reason: str, now: datetime) -> None:
        """Stripe will never take it; it waits for a person."""
        async with self._connection() as connection:
            await connection.execute(sql.MARK_REJECTED, *_note(claim, answer, now, "rejected", reason))

    async def mark_retry(
        self,
        claim: Claim,
        answer: StripeAnswer,
        reason: str,
        now: datetime,
        *,
        after_s: float,
        outcome: Literal["retry", "in_doubt", "stopped", "not_sent"],
    ) -> None:
        """Due again after `after_s` seconds. `in_doubt`: this attempt may have reached Stripe."""
        doubt_since = claim.doubt_since or (now if outcome == "in_doubt" else None)
        due = now + timedelta(seconds=after_s)
        async with self._connection() as connection:
            await connection.execute(sql.MARK_RETRY, *_note(claim, answer, now, outcome, reason), due, doubt_since)

    async def customers_of(self, identifiers: Sequence[str]) -> list[str]:
        """The customers of these events."""
        async with self._connection() as connection:
            return [row["customer"] for row in await connection.fetch(sql.CUSTOMERS_OF, list(identifiers))]

    async def status(self) -> OutboxStatus:
        """Reads only."""
        async with self._connection() as connection, connection.transaction(isolation="repeatable_read"):
            states = await connection.fetch(sql.COUNTS)
            oldest = await connection.fetchval(sql.OLDEST)
        counts = {row["state"]: row["count"] for row in states}
        return OutboxStatus(counts, {row["state"]: row["value"] for row in states}, oldest)

    async def unpaid_users(self) -> int:
        """How many users owe something that no customer pays."""
        async with self._connection() as connection:
            return int(await connection.fetchval(sql.UNPAID_USERS))


def _claim(row: Any) -> Claim:
    event = MeterEvent(row["meter"], row["customer"], row["value"], row["identifier"], row["event_timestamp"])
    return Claim(row["id"], row["attempts"], row["doubt_since"], event)


def _note(claim: Claim, answer: StripeAnswer, now: datetime, outcome: str, reason: str | None) -> tuple[object, ...]:
    """The first nine parameters of a mark: what is kept of an attempt."""
    about = (claim.event.identifier, answer.idempotency_key, outcome)
    return (claim.id, claim.attempts, now, *about, answer.http_status, answer.request_id, reason)


def _affected(status: str) -> int:
    """Rows of a command tag such as `UPDATE 3`."""
    return int(status.rsplit(" ", 1)[1])
