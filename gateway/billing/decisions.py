"""The events that wait for a person, in PostgreSQL: what is known of them, and how a decision is written down.

What was decided is never changed again: an event that is sent again is a new one, and the first stays as it was.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from gateway.billing import decisions_sql as sql
from gateway.billing.filing import FilingRules, file_at_present
from gateway.billing.freezing import read_subscriptions
from gateway.billing.refiling import Replaced, lock_payer, refile, replace_event
from gateway.billing.summaries import HourSent
from gateway.stores.postgres import Connections, Table

Action = Literal["reissue", "delivered", "settle", "write-off"]
HOUR: Final = timedelta(hours=1)
EVENTS_MAX: Final = 10_000
"""Held events that are looked at together; the newest."""
NO_PERIOD: Final = "Stripe has no subscription of this customer that could invoice it now"


class HeldEvent(NamedTuple):
    """One event of the outbox as people see it."""

    id: int
    identifier: str
    customer: str
    customer_name: str | None
    emails: str | None
    meter: str
    window_start: datetime
    seq: int
    value: int
    """Whole micro-USD."""
    timestamp: datetime
    state: str
    reason: str
    attempts: int
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None
    first_attempt_at: datetime | None
    last_attempt_at: datetime | None

    @property
    def was_sent(self) -> bool:
        """Whether an attempt may have reached Stripe."""
        return self.attempts > 0 or self.first_attempt_at is not None

    @property
    def hour(self) -> datetime:
        """The hour under which Stripe sums it up."""
        return self.timestamp.replace(minute=0, second=0, microsecond=0)


class CreditDue(NamedTuple):
    """What corrections owe to a customer."""

    customer: str
    name: str | None
    meter: str
    nano: int


class HeldDecision(NamedTuple):
    """What somebody has decided about an event."""

    action: Action
    who: str
    why: str
    reference: str | None
    evidence: Mapping[str, object]


class Decisions(Table):
    """All methods raise DependencyDown("postgres")."""

    def __init__(self, pool: Connections, rules: FilingRules) -> None:
        super().__init__(pool)
        self._rules: Final = rules

    async def held(
        self,
        states: Sequence[str],
        *,
        identifier: str | None = None,
        error: str | None = None,
    ) -> list[HeldEvent]:
        """Events in some states, newest first; `error` is a part of the last error, in any case of letters."""
        rows = await self._rows(sql.HELD, list(states), identifier, error, EVENTS_MAX)
        return [HeldEvent(*row.values()) for row in rows]

    async def credit_due(self) -> list[CreditDue]:
        """What waits for later usage, or for a credit note; most first."""
        return [CreditDue(*row.values()) for row in await self._rows(sql.CREDIT_DUE, 10_000)]

    async def hour_sent(self, event: HeldEvent) -> HourSent:
        """What else was sent for the event's hour."""
        (row,) = await self._rows(sql.HOUR, event.customer, event.meter, event.hour, event.hour + HOUR, event.id)
        last = max((at for at in (row["last_at"], event.last_attempt_at or event.first_attempt_at) if at), default=None)
        return HourSent(row["delivered"], tuple(row["undecided"]), last, row["is_sending"])

    async def decide(self, event: HeldEvent, decision: HeldDecision, now: datetime) -> Replaced | None:
        """Writes a decision down and does it; returns what has the amount now, where it is sent again.

        Raises KeyError when the event is no longer as it was, ValueError when it cannot be sent now.
        """
        async with self._connection() as connection, connection.transaction():
            is_sent = decision.action == "reissue"
            payer = await lock_payer(connection, event.customer, event.meter) if is_sent else None
            row = await connection.fetchrow(sql.LOCK, event.id, event.state, event.attempts)
            if row is None:
                raise KeyError(event.identifier)
            replaced, evidence = None, dict(decision.evidence)
            state, said, delivered_at = _ENDS[decision.action], None, None
            if is_sent:
                replaced = await self._send_again(connection, payer, row, now)
                said = f"sent again: {replaced}"
                evidence |= {"sent_again_as": replaced.identifier, "credit_due": replaced.due}
            elif decision.action == "delivered":
                delivered_at = now
            reference = decision.reference if decision.action == "settle" else None
            await connection.execute(sql.END, event.id, state, delivered_at, reference, said)
            noted = (decision.who, decision.action, decision.why, decision.reference, json.dumps(evidence))
            await connection.execute(sql.DECIDED, event.id, *noted)
            return replaced

    async def _send_again(self, connection: Any, payer: UUID | None, row: Any, now: datetime) -> Replaced:
        """A person has decided that it is sent: into its own period while that takes it, else into today's."""
        subscriptions = await read_subscriptions(connection, row["customer"], row["meter"])
        filing = refile(row, now, subscriptions, self._rules._replace(holds_late=False))
        if filing.why_not is not None:
            present = file_at_present(now, subscriptions, self._rules)
            if present is None:
                raise ValueError(NO_PERIOD)
            filing = present
        return await replace_event(connection, payer, row, filing, now, row["account"], reason="reissue")


_ENDS: Final[Mapping[str, str]] = {
    "reissue": "superseded",
    "delivered": "sent",
    "settle": "settled",
    "write-off": "written_off",
}
"""Action → the state in which the event ends."""
