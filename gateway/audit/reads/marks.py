"""Kept marks, and the sums that go on from them (marks.py). Reads only.

All of it rests on this: what is booked before the seal of the books stays as it is. So the days of `usage_daily` before
it, what windows before it were billed by their own rows, and what credit paid of these never change. What does change
later (amounts that a customer takes over, what is settled, frozen, cancelled) is counted by what is small at any age:
decisions, windows that are open, totals of the outbox.
"""

from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from gateway.audit.marks import Mark, MarkSums
from gateway.audit.reads.snapshot import Offenders, Snapshot, unless
from gateway.kit.instants import rfc3339

# The newest marks, $1 of them, or all.
MARKS: Final = """
select until, as_of, made_by, rows, key_calls, owed_nano, credit_nano, previous, mac
from public.audit_marks order by id desc limit $1
"""
SEALED: Final = "select nullif(sealed_until, '-infinity') as until from public.books"
# Whether there is a window with a part on each side of $1. None is as long as 31 days (`billing.window_s`).
IS_CUT: Final = """
select coalesce(bool_or(window_start + window_seconds * interval '1 second' > $1), false) as is_cut
from public.billing_windows where window_start < $1 and window_start > $1 - interval '744 hours'
"""
DAYS: Final = """
select coalesce(sum(rows), 0)::bigint as rows,
  coalesce(sum(calls) filter (where api_key_id is not null), 0)::bigint as key_calls
from public.usage_daily
where ($1::timestamptz is null or day >= ($1 at time zone 'UTC')::date)
  and ($2::timestamptz is null or day < ($2 at time zone 'UTC')::date)
"""
_SPAN: Final = "($1::timestamptz is null or window_start >= $1) and ($2::timestamptz is null or window_start < $2)"
WINDOWS: Final = f"""
select coalesce(sum(owed), 0)::bigint as owed_nano, coalesce(sum(credit), 0)::bigint as credit_nano from (
  select case when customer_id is null then frozen_nano
    else billed_nano - accrued_nano - credit_nano - settled_nano end as owed, credit_nano as credit
  from public.billing_windows where {_SPAN}
  union all
  select frozen_nano - moved_nano, 0 from public.stripe_windows where {_SPAN}
) windows
"""  # noqa: S608 - constants of this file
# What has to be equal to the sums of all time. Of what customers owe, some is not frozen yet; what they took over by
# decision is in no window as its own.
COUNTERS: Final = """
select
  (select coalesce(sum(inserted), 0)::bigint from public.flush_counters) as rows,
  (select coalesce(sum(usage_count), 0)::bigint from public.api_keys) as key_calls,
  ((select coalesce(sum(value), 0) * 1000 from public.outbox_totals where state not in ('superseded', 'cancelled'))
    + (select coalesce(sum(nano), 0) from public.stripe_carry)
    + (select coalesce(sum(nano - credit_due_nano), 0) from public.billing_carry)
    + (select coalesce(sum(billed_nano - credit_nano - frozen_nano - settled_nano), 0) from public.billing_windows
      where open and customer_id is not null)
    - (select coalesce(sum(nano), 0) from public.accrued_decisions where action = 'bill'))::bigint as owed_nano,
  (select coalesce(sum(used_nano), 0)::bigint from public.credit_balances) as credit_nano
"""


class SumsSince(NamedTuple):
    """A mark, what came after it, and what both must add up to."""

    until: datetime
    kept: MarkSums
    since: MarkSums
    counters: MarkSums

    @property
    def sums(self) -> MarkSums:
        """Of all time."""
        return MarkSums(*(before + after for before, after in zip(self.kept, self.since, strict=True)))

    def compare(self, place: int) -> Offenders:
        """Whether one of the sums, by its place, is what the counters say."""
        added, counted = self.sums[place], self.counters[place]
        name = MarkSums._fields[place]
        return unless(added == counted, f"{name} on from {rfc3339(self.until)}: {added:,}, counted {counted:,}")


ROWS, KEY_CALLS, OWED, CREDIT = range(4)
"""Places in MarkSums."""


async def read_marks(view: Snapshot, count: int | None = None) -> list[Mark]:
    """The newest `count`, or all, the newest first."""
    rows = await view.rows(MARKS, count)
    return [
        Mark(row["until"], row["as_of"], row["made_by"], _mark_sums(row), row["previous"], row["mac"]) for row in rows
    ]


async def is_cut(view: Snapshot, at: datetime) -> bool:
    """Whether a window lies on both sides of this instant."""
    return bool((await view.row(IS_CUT, at))["is_cut"])


async def read_since(view: Snapshot, mark: Mark) -> SumsSince:
    """What came after a mark."""
    return SumsSince(mark.until, mark.sums, await _sums(view, mark.until, None), await _counters(view))


async def measure(view: Snapshot) -> SumsSince | None:
    """The books as they are sealed now; None where nothing is, or a window lies across the seal."""
    sealed = (await view.row(SEALED))["until"]
    if sealed is None or await is_cut(view, sealed):
        return None
    before, after = await _sums(view, None, sealed), await _sums(view, sealed, None)
    return SumsSince(sealed, before, after, await _counters(view))


async def _sums(view: Snapshot, since: datetime | None, until: datetime | None) -> MarkSums:
    days, windows = await view.row(DAYS, since, until), await view.row(WINDOWS, since, until)
    return MarkSums(days["rows"], days["key_calls"], windows["owed_nano"], windows["credit_nano"])


async def _counters(view: Snapshot) -> MarkSums:
    return _mark_sums(await view.row(COUNTERS))


def _mark_sums(row: "asyncpg.Record") -> MarkSums:
    return MarkSums(*(row[name] for name in MarkSums._fields))
