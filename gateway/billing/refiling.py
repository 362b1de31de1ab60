"""Events that have waited until their invoice is final, or Stripe takes their time no more: filed at the present.

What is sent never changes, so such an event is superseded, and another one has its amount. One that may have arrived is
not sent again: it went into its own period, or nowhere, and only Stripe's summaries tell which.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.billing import freezing_sql
from gateway.billing import refiling_sql as sql
from gateway.billing.filing import MARGIN, Filing, FilingRules, Subscription, file_amount, month_of
from gateway.billing.freezing import read_subscriptions
from gateway.billing.new_event import NewEvent, insert_event

GROUPS_MAX: Final = 1000
"""Customers and meters in one pass."""
_SAME: Final = (
    "customer_id",
    "user_id",
    "customer",
    "meter",
    "window_start",
    "window_seconds",
    "value",
    "nano",
    "carry_nano_after",
)
"""What the new event has of the old one."""
_SECOND: Final = timedelta(seconds=1)
_DOUBT: Final = "in doubt when its period's invoice became final; compare Stripe's summaries"


async def refile_overdue(connection: Any, now: datetime, account: str | None, rules: FilingRules) -> tuple[int, int]:
    """Files pending events anew whose time has become too late. Returns how many, and how many are in doubt."""
    first_open = month_of(now - timedelta(hours=rules.invoice_grace_h) + MARGIN).start
    refiled = doubtful = 0
    for group in await connection.fetch(sql.OVERDUE, now, first_open, account, GROUPS_MAX):
        async with connection.transaction():
            customer, meter = group["customer"], group["meter"]
            subscriptions = await read_subscriptions(connection, customer, meter)
            for old in await connection.fetch(sql.OVERDUE_OF, customer, meter, now, first_open, account):
                if old["first_attempt_at"] is not None:
                    await connection.execute(sql.DOUBT, old["id"], _DOUBT)
                    doubtful += 1
                    continue
                filing = refile(old, now, subscriptions, rules)
                made = await replace_event(connection, old, filing, now, account, reason=None)
                await connection.execute(sql.SUPERSEDE, old["id"], now, f"filed anew as {made}")
                refiled += 1
    return refiled, doubtful


def refile(old: Any, now: datetime, subscriptions: Sequence[Subscription] | None, rules: FilingRules) -> Filing:
    """When an event's amount is filed now, by the time that it has had."""
    filed_at = old["event_timestamp"]
    return file_amount(filed_at, filed_at + _SECOND, now, subscriptions, rules)


async def replace_event(
    connection: Any, old: Any, filing: Filing, now: datetime, account: str | None, *, reason: str | None
) -> str:
    """Another event with the amount of `old`; returns its identifier. The caller ends the old one."""
    if old["value"] < 0 and filing.period is not None:
        has = await connection.fetchval(freezing_sql.IN_PERIOD, old["customer"], old["meter"], *filing.period)
        if has + old["value"] < 0:
            filing = filing._replace(why_not="credit due: the period has less than this takes back")
    because = reason or ("late" if filing.is_late else old["reason"])
    event = NewEvent._make([*(old[name] for name in _SAME), account, because, old["id"]])
    _, made = await insert_event(connection, event, old["seq"] + 1, filing, now)
    return made
