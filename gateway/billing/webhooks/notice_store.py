"""Notices, the outbox's events that they are about, and the hours that have to be compared because of them."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from gateway.billing.webhooks.notices import LATE, Notice
from gateway.stores.postgres import Table

Verdict = Literal["agrees", "rejected", "unknown"]
LAG: Final = timedelta(minutes=15)
"""After which Stripe's summaries have what they will have."""

_NOTICE: Final = """
insert into public.stripe_notices (event_id, event_type, occurred_at, meter_id, meter, validated_from, validated_to,
  errors, detail)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb) on conflict do nothing returning event_id
"""
# Only what Stripe has been sent can be what it did not count. A decision of a person stays.
_REJECT: Final = """
with named as (select * from unnest($1::text[], $2::text[]) as n (identifier, reason)),
refused as (
  update public.stripe_meter_events e
  set state = 'rejected', delivered_at = null, next_attempt_at = null, last_error = n.reason
  from named n where e.identifier = n.identifier and e.state in ('pending', 'sent', 'duplicate', 'unknown')
  returning e.id, e.attempts, e.identifier, n.reason
), noted as (
  insert into public.stripe_attempts (event_id, n, at, identifier, idempotency_key, outcome, stripe_request_id, error)
  select id, attempts, $3, identifier, identifier, 'rejected', $4, reason from refused
)
select identifier from refused
"""
_MATCHED: Final = "update public.stripe_notices set matched = $2 where event_id = $1"
# All that was under way or delivered while Stripe looked: of these it names samples only.
_RECHECK: Final = """
insert into public.stripe_rechecks (notice_id, meter, customer, hour, event_ids, due_at)
select $1, e.meter, e.customer, date_bin(interval '1 hour', e.event_timestamp, timestamptz 'epoch'),
  array_agg(e.id order by e.id), greatest(now(), $5) + $6::interval
from public.stripe_meter_events e
where e.state in ('sent', 'duplicate') and e.delivered_at >= $3 and e.first_attempt_at <= $4
  and e.meter = $2
group by e.meter, e.customer, date_bin(interval '1 hour', e.event_timestamp, timestamptz 'epoch')
on conflict do nothing
"""
_DUE: Final = """
update public.stripe_rechecks set due_at = now() + interval '5 minutes'
where id = (
  select id from public.stripe_rechecks where checked_at is null and due_at <= now() order by due_at, id limit 1
  for update skip locked)
returning id, notice_id, meter, customer, hour, event_ids
"""
_DELIVERED: Final = """
select id, identifier, value from public.stripe_meter_events
where meter = $1 and customer = $2 and state in ('sent', 'duplicate')
  and event_timestamp >= $3 and event_timestamp < $3 + interval '1 hour'
"""
# What is on its way, or was delivered so lately that the summaries may not have it yet.
_MOVING: Final = """
select exists (select from public.stripe_meter_events
  where meter = $1 and customer = $2 and event_timestamp >= $3 and event_timestamp < $3 + interval '1 hour'
  and (state in ('sent', 'duplicate') and delivered_at > now() - $4::interval
    or state = 'pending' and first_attempt_at is not null))
"""
_DOUBT: Final = """
update public.stripe_meter_events set state = 'unknown', delivered_at = null, last_error = $2
where id = any($1::bigint[]) and state in ('sent', 'duplicate')
"""
_CHECKED: Final = """
update public.stripe_rechecks set checked_at = now(), delivered = $2, counted = $3, verdict = $4 where id = $1
"""


class DueRecheck(NamedTuple):
    """An hour of a customer whose events have to be compared with Stripe's summaries."""

    id: int
    notice_id: str
    meter: str
    customer: str
    hour: datetime
    event_ids: Sequence[int]
    """Of the events that Stripe may have meant."""


class DeliveredEvent(NamedTuple):
    """An event that counts as delivered."""

    id: int
    identifier: str
    value: int


class NoticeStore(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def keep(self, notice: Notice, meter: str | None) -> list[str]:
        """Keeps a notice, rejects the events that it names, and plans the comparison of the others: once, however often
        it is told. The identifiers of the events that were rejected by it."""
        about = (notice.id, notice.type, notice.occurred_at, notice.meter_id, meter, notice.since, notice.until)
        async with self._connection() as connection, connection.transaction():
            new = await connection.fetchval(_NOTICE, *about, notice.errors, json.dumps(notice.detail, default=str))
            if new is None:
                return []
            named = {one.identifier: one.reason for one in notice.samples}
            rejected = await _reject(connection, named, notice.occurred_at, notice.id)
            await connection.execute(_MATCHED, notice.id, len(rejected))
            if notice.errors > len(rejected) and meter is not None:
                since = (notice.since or notice.occurred_at) - LATE
                until = (notice.until or notice.occurred_at) + LATE
                await connection.execute(_RECHECK, notice.id, meter, since, until, notice.occurred_at, LAG)
        return rejected

    async def next_recheck(self) -> DueRecheck | None:
        """One that is due, leased for five minutes; None when there is none."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_DUE)
        if row is None:
            return None
        return DueRecheck._make([*row.values()])

    async def delivered(self, recheck: DueRecheck) -> list[DeliveredEvent]:
        """What counts as delivered in its hour."""
        async with self._connection() as connection:
            rows = await connection.fetch(_DELIVERED, recheck.meter, recheck.customer, recheck.hour)
        return [DeliveredEvent(*row.values()) for row in rows]

    async def is_moving(self, recheck: DueRecheck) -> bool:
        """Whether its hour cannot be compared yet, because something was sent for it a moment ago."""
        async with self._connection() as connection:
            return bool(await connection.fetchval(_MOVING, recheck.meter, recheck.customer, recheck.hour, LAG))

    async def finish(
        self, recheck: DueRecheck, verdict: Verdict, events: Sequence[DeliveredEvent], delivered: int, counted: int
    ) -> None:
        """What the comparison said, and what it means for these events, in one transaction."""
        why = f"Stripe has {counted} of {delivered} micro-USD of this hour ({recheck.notice_id})"
        async with self._connection() as connection, connection.transaction():
            if verdict == "rejected":
                named = {one.identifier: f"Stripe did not count it: {why}" for one in events}
                at = await connection.fetchval("select now()")
                await _reject(connection, named, at, recheck.notice_id)
            elif verdict == "unknown":
                await connection.execute(_DOUBT, [one.id for one in events], f"may not have been counted: {why}")
            await connection.execute(_CHECKED, recheck.id, delivered, counted, verdict)


async def _reject(connection: Any, reasons: dict[str, str], at: datetime, notice_id: str) -> list[str]:
    rows = await connection.fetch(_REJECT, list(reasons), list(reasons.values()), at, notice_id)
    return [row["identifier"] for row in rows]
