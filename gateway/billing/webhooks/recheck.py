"""Compares hours with Stripe's summaries, because a notice tells of more lost events than it names."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import chain, combinations
from typing import Final

import structlog

from gateway.billing.stripe import Billing
from gateway.billing.webhooks.notice_store import DeliveredEvent, DueRecheck, NoticeStore, Verdict
from gateway.billing.windows import Rejected

HOUR: Final = timedelta(hours=1)
SUSPECTS_MAX: Final = 12
"""Events of one hour of a customer of which every combination is tried; there are one or two as a rule."""
_log: Final = structlog.get_logger("gateway.billing")


class HourRecheck:
    """One per worker."""

    def __init__(self, store: NoticeStore, billing: Billing) -> None:
        self._store: Final = store
        self._billing: Final = billing

    async def step_once(self) -> bool:
        """Compares one hour; False when none is due. Raises ConfigError, DependencyDown: then it is due again later."""
        due = await self._store.next_recheck()
        if due is None:
            return False
        if await self._store.is_moving(due):
            return True  # in five minutes again, by its lease
        found = await self._billing.read_counts(due.meter, due.customer, due.hour, due.hour + HOUR)
        counted = 0 if isinstance(found, Rejected) else int(found.get(due.hour, 0))
        events = await self._store.delivered(due)
        verdict, about = judge(events, due, counted)
        if verdict != "agrees":
            _log.error(
                "stripe_events_not_counted",
                meter=due.meter,
                hour=due.hour.isoformat(),
                verdict=verdict,
                events=len(about),
                help="docs/billing.md",
            )
        await self._store.finish(due, verdict, about, sum(one.value for one in events), counted)
        return True


def judge(events: Sequence[DeliveredEvent], due: DueRecheck, counted: int) -> tuple[Verdict, Sequence[DeliveredEvent]]:
    """Which events Stripe has not counted: those whose values are what is missing, when no others would be it too.
    Otherwise a person decides."""
    missing = sum(one.value for one in events) - counted
    suspects = [one for one in events if one.id in due.event_ids]
    if missing == 0 or not suspects:
        return "agrees", ()
    fitting = _that_sum_up(suspects, missing) if len(suspects) <= SUSPECTS_MAX else []
    if len(fitting) == 1:
        return "rejected", fitting[0]
    if not fitting and missing < 0 and all(one.value > 0 for one in suspects):
        return "agrees", ()  # Stripe has more than we have sent: that is of somebody else, and nothing of ours is lost
    return "unknown", suspects


def _that_sum_up(events: Sequence[DeliveredEvent], value: int) -> list[tuple[DeliveredEvent, ...]]:
    """Every choice of them whose values sum to this."""
    choices = chain.from_iterable(combinations(events, count) for count in range(1, len(events) + 1))
    return [choice for choice in choices if sum(one.value for one in choice) == value]
