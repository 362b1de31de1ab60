"""Counts what stands against closing a month: in PostgreSQL, in the stream, in this host's journal. Holds no rule."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.audit.journal import read_calls
from gateway.audit.reads.journal import Journaled, read_folder
from gateway.audit.reads.snapshot import Snapshot
from gateway.journal.reader import Segments
from gateway.kit.ids import is_uuid, unix_ms_of

_COUNTS: Final = """
select
  (select count(*) from public.usage_quarantine where resolved_at is null) as quarantined,
  (select count(*) from public.open_items where state = 'open' and opened_at < $2) as open_items,
  (select count(*) from public.correction_proposals p
    where not exists (select from public.correction_decisions d where d.proposal_id = p.id)) as proposals,
  (select count(*) from public.billing_windows
    where customer_id is not null and open and window_start >= $1 and window_start < $2) as windows_open,
  (select count(*) from public.stripe_meter_events
    where state = 'pending' and coalesce(original_window, window_start) >= $1
      and coalesce(original_window, window_start) < $2) as events_sending,
  (select count(*) from public.stripe_meter_events
    where state in ('rejected', 'unknown', 'unreportable') and coalesce(original_window, window_start) >= $1
      and coalesce(original_window, window_start) < $2) as events_held,
  (select count(distinct user_id) from public.billing_windows
    where customer_id is null and open and window_start >= $1 and window_start < $2) as unbilled_payers
"""
# Rows booked in the month whose cost is not known for sure, and that nothing has corrected since. What was booked in it
# was completed before its end, which the index on evidence and time answers.
_UNSURE: Final = """
select count(*) filter (where evidence = 'unpriced') as unpriced,
  count(*) filter (where evidence = 'estimated') as estimated,
  (coalesce(sum(cost_usd) filter (where evidence = 'estimated'), 0) * 1000000000)::bigint as estimated_nano
from public.openai_usage u
where evidence in ('estimated', 'unpriced') and created_at < $2 and booked_at >= $1 and booked_at < $2
  and not exists (select from public.openai_usage a where a.adjusts = u.id)
"""


class Counts(NamedTuple):
    """What PostgreSQL has of the month."""

    quarantined: int
    open_items: int
    proposals: int
    windows_open: int
    events_sending: int
    events_held: int
    unbilled_payers: int
    unpriced: int
    estimated: int
    estimated_nano: int


class JournalCounts(NamedTuple):
    """What this host's journal has."""

    segments: int
    open: int
    """Calls that began before the month's end and that the ledger lacks."""


async def read_counts(connection: Any, since: datetime, until: datetime) -> Counts:
    """Of the month from `since` until `until`."""
    counted = await connection.fetchrow(_COUNTS, since, until)
    return Counts(*counted.values(), *(await connection.fetchrow(_UNSURE, since, until)).values())


async def read_journal(connection: Any, folder: Path, until: datetime) -> JournalCounts:
    """Raises DependencyDown when the journal may not be read."""
    met = Journaled()
    calls = await read_calls(Snapshot(connection), read_folder(folder, met, Segments(folder).writer_lives), met)
    return JournalCounts(met.segments, sum(began_before(event_id, until) for event_id in calls.unknown))


def began_before(event_id: str, until: datetime) -> bool:
    """Whether a call began before `until`; one whose id says no time may have."""
    return not is_uuid(event_id) or unix_ms_of(event_id) < int(until.timestamp()) * 1000
