"""The whole audit: reads each subject from one snapshot and judges it. Changes nothing."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pricing
from gateway.audit import delivery, journal, lifecycle, payers, rows, sums
from gateway.audit.budgets import Counted
from gateway.audit.kept import NO_SECRETS, Kept, make_mark
from gateway.audit.reads.delivery import delivered_hours
from gateway.audit.reads.journal import Journaled, read_folder
from gateway.audit.reads.lifecycle import Lifecycle, read_lifecycle
from gateway.audit.reads.payers import read_payers
from gateway.audit.reads.plans import count_corrected, read_plans
from gateway.audit.reads.rows import priced_rows, read_estimates, read_evidence, read_uniqueness
from gateway.audit.reads.snapshot import AuditRange, Snapshot
from gateway.audit.reads.sums import read_amounts, read_counters, read_rollups, window_lengths
from gateway.audit.reprice import Reprice
from gateway.audit.result import AuditReport, InvariantResult
from gateway.audit.span import align_range, window_length
from gateway.journal.reader import Segments
from gateway.kit.errors import ConfigError

GRACE_S: Final = 60.0
"""Seconds that a settled call has to arrive in the ledger."""


class Policy(NamedTuple):
    """What the judgements go by, from the settings."""

    open_max_s: float
    """Seconds after which no call is open any more."""
    billing_grace_s: float
    """Seconds after its end at which a window is frozen."""
    grace_s: float = GRACE_S
    has_stripe_key: bool = False


NOTHING_KEPT: Final = Kept(NO_SECRETS)


async def audit(
    view: Snapshot,
    wanted: AuditRange,
    now: datetime,
    *,
    book: pricing.Book,
    policy: Policy,
    folder: Path,
    budgets: Counted,
    stripe: delivery.Summaries | None = None,
    why_no_stripe: str = delivery.NOT_ASKED,
    kept: Kept = NOTHING_KEPT,
) -> AuditReport:
    """Every invariant over the rows completed in `wanted`, widened to whole hours and windows.

    `now` (UTC) is when the view was opened; `folder` is this host's journal, which need not be there; `budgets` is what
    the comparison of their counters gave; `kept` is what sums of all time go on from. Raises
    DependencyDown when Postgres does not answer or the journal may not be read, ConfigError when the login does not see
    every row. Stripe not answering is a result.
    """
    if not await view.sees_all():
        raise ConfigError(
            "DATABASE_URL: row security hides rows from this login, so an audit would find nothing wrong; "
            "use the owner of the tables, or a member of service_role"
        )
    span = align_range(wanted, await window_lengths(view, align_range(wanted, ())))
    window_s = window_length(span, await window_lengths(view, span))
    begun = await _journal(view, folder)
    rollups = await read_rollups(view, span, kept.since)
    sums_of_all_time = [
        sums.rollups(rollups, budgets),
        sums.amounts(await read_amounts(view, span, window_s, kept.since)),
        payers.payers(await read_payers(view, kept.since)),
    ]
    are_right = kept.since is None and all(verdict.state == "ok" for verdict in sums_of_all_time)
    verdicts = [
        journal.completeness(begun, now, policy.grace_s),
        rows.uniqueness(await read_uniqueness(view, span)),
        await _exactness(view, span, book),
        rows.evidence(await read_evidence(view, span)),
        sums.rollups(rollups, budgets, kept.faults),
        sums_of_all_time[1],
        await _audit_delivery(view, span, now, policy.billing_grace_s, stripe, why_no_stripe),
        _lifecycle(await _read_lifecycle(view, now, policy), begun, now, policy),
        rows.estimates(await read_estimates(view, span), sums.count(rollups.totals["calls"])),
        sums.counters(await read_counters(view)),
        sums_of_all_time[2],
    ]
    mark = await make_mark(view, kept.newest, now) if are_right else None
    return AuditReport(span, tuple(verdicts), kept.says, mark)


async def _journal(view: Snapshot, folder: Path) -> journal.Calls | None:
    """None where there is no segment."""
    met = Journaled()
    read = await journal.read_calls(view, read_folder(folder, met, Segments(folder).writer_lives), met)
    return read if met.segments else None


async def _exactness(view: Snapshot, span: AuditRange, book: pricing.Book) -> InvariantResult:
    again = Reprice(book, await read_plans(view))
    async for row in priced_rows(view, span):
        again.take(row)
    return again.verdict(await count_corrected(view, again.billed.elsewhere))


async def _read_lifecycle(view: Snapshot, now: datetime, policy: Policy) -> Lifecycle:
    return await read_lifecycle(
        view,
        items_before=now - lifecycle.ITEM_LATE,
        windows_before=now - lifecycle.WINDOW_LATE - timedelta(seconds=policy.billing_grace_s),
        events_before=now - lifecycle.EVENT_LATE,
    )


def _lifecycle(read: Lifecycle, begun: journal.Calls | None, now: datetime, policy: Policy) -> InvariantResult:
    return lifecycle.lifecycle(
        read,
        journal.never_settled(begun, now, policy.open_max_s + lifecycle.SWEEP_LATE_S + policy.grace_s),
        has_journal=begun is not None,
        has_stripe=policy.has_stripe_key or bool(read.counts["meter_events"]),
    )


async def _audit_delivery(
    view: Snapshot, span: AuditRange, now: datetime, grace_s: float, stripe: delivery.Summaries | None, why_not: str
) -> InvariantResult:
    if stripe is None:
        return delivery.stripe_not_checked(why_not)
    asked = delivery.asked_span(span, now, grace_s)
    hours = delivered_hours(view, asked, settled_by=now - delivery.LAG)
    return await delivery.stripe_agrees(hours, asked, stripe)
