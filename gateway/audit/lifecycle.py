"""INV-8: everything that has begun ends in time. Only the rules; the limits are here."""

from datetime import timedelta
from typing import Final

from gateway.audit.reads.lifecycle import Lifecycle
from gateway.audit.reads.snapshot import Offenders
from gateway.audit.result import InvariantResult, judge

ITEM_LATE: Final = timedelta(hours=1)
"""How long the next look at an open item may be overdue."""
WINDOW_LATE: Final = timedelta(hours=1)
"""How long after its end, grace and last usage a window may stay unfrozen."""
EVENT_LATE: Final = timedelta(hours=24)
"""How long a meter event may be on its way, or wait for a person."""
SWEEP_LATE_S: Final = 900
"""Seconds beyond journal.open_max_s that the sweeper has: it asks OpenAI for ten minutes before it estimates."""
_LOOK: Final = (
    "Something has stopped: see that serve (sweeps, ships) and worker (polls, freezes, sends) run and do not wait for "
    "a dependency; `gateway billing held` lists the meter events that need a person."
)


def lifecycle(read: Lifecycle, never_settled: Offenders, *, has_journal: bool, has_stripe: bool) -> InvariantResult:
    """INV-8 lifecycle. No call stays open, no window unfrozen, no meter event unsent beyond its time.

    `has_stripe`: whether amounts are to be sent at all; without it they accrue, and no window is late. On a breach:
    a background part has stopped, and money waits.
    """
    broken = {
        "call without an end": never_settled,
        "open item overdue": read.items,
        "window not frozen": read.windows if has_stripe else None,
        "meter event pending for too long": read.pending,
        "meter event that waits for a person": read.held,
    }
    notes = [] if has_journal else ["calls without an end not checked: no journal here"]
    if read.windows.found and not has_stripe:
        notes.append("no Stripe key, no meter event yet: amounts accrue")
    return judge("INV-8", "lifecycle", read.counts, broken, _LOOK, note="; ".join(notes))
