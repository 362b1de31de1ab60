"""Events that have waited until their invoice is final, or Stripe takes their time no more: filed at the present.

What is sent never changes, so such an event is superseded, and another one has its amount. One that may have arrived is
not sent again: it went into its own period, or nowhere, and only Stripe's summaries tell which. What a correction takes
back beyond what its new period has becomes credit due, as where windows are frozen.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from gateway.billing import freezing_sql
from gateway.billing import refiling_sql as sql
from gateway.billing.filing import MARGIN, Filing, FilingRules, Subscription, file_amount, month_of
from gateway.billing.freezing import read_subscriptions
from gateway.billing.new_event import NewEvent, insert_event
from gateway.billing.windows import NANO_PER_UNIT

GROUPS_MAX: Final = 1000
"""Customers and meters in one pass."""
_SAME: Final = (
    "customer_id",
    "user_id",
    "customer",
    "meter",
    "window_start",
    "window_seconds",
    "nano",
)
"""What the new event has of the old one."""
_SECOND: Final = timedelta(seconds=1)
_DOUBT: Final = "in doubt when its period's invoice became final; compare Stripe's summaries"


class Replaced(NamedTuple):
    """What has the amount of an event that was replaced."""

    identifier: str | None
    """The new event's; None where all of it became credit due."""
    due: int
    """Whole micro-USD that became credit due."""

    def __str__(self) -> str:
        due = f"{self.due} micro-USD became credit due"
        if self.identifier is None:
            return due
        return f"{self.identifier}; {due}" if self.due else self.identifier


async def refile_overdue(connection: Any, now: datetime, account: str | None, rules: FilingRules) -> tuple[int, int]:
    """Files pending events anew whose time has become too late. Returns how many, and how many are in doubt.

    Also corrections that take back more than their period has, because an event that it had when they were made was
    refused since, or may not have arrived.
    """
    first_open = month_of(now - timedelta(hours=rules.invoice_grace_h) + MARGIN).start
    refiled = doubtful = 0
    for group in await connection.fetch(sql.OVERDUE, now, first_open, account, GROUPS_MAX):
        async with connection.transaction():
            customer, meter = group["customer"], group["meter"]
            payer = await lock_payer(connection, customer, meter)
            subscriptions = await read_subscriptions(connection, customer, meter)
            for old in await connection.fetch(sql.OVERDUE_OF, customer, meter, now, first_open, account):
                if old["first_attempt_at"] is not None:
                    await connection.execute(sql.DOUBT, old["id"], _DOUBT)
                    doubtful += 1
                    continue
                filing = refile(old, now, subscriptions, rules)
                if not old["is_overdue"] and await _takes_back(connection, old, filing) == old["value"]:
                    continue
                replaced = await replace_event(connection, payer, old, filing, now, account, reason=None)
                await connection.execute(sql.SUPERSEDE, old["id"], now, f"filed anew: {replaced}")
                refiled += 1
    return refiled, doubtful


def refile(old: Any, now: datetime, subscriptions: Sequence[Subscription] | None, rules: FilingRules) -> Filing:
    """When an event's amount is filed now, by the time that it has had."""
    filed_at = old["event_timestamp"]
    return file_amount(filed_at, filed_at + _SECOND, now, subscriptions, rules)


async def lock_payer(connection: Any, customer: str, meter: str) -> UUID | None:
    """Who pays for this customer of Stripe's. Until the transaction ends nobody else files anything for them.

    Comes before any lock of an event, as where windows are frozen. None where it is nobody's customer any more.
    """
    payer: UUID | None = await connection.fetchval(sql.LOCK_PAYER, customer, meter)
    return payer


async def replace_event(
    connection: Any,
    payer: UUID | None,
    old: Any,
    filing: Filing,
    now: datetime,
    account: str | None,
    *,
    reason: str | None,
) -> Replaced:
    """Another event with the amount of `old`. The caller ends the old one, and has locked the payer."""
    value = await _takes_back(connection, old, filing)
    if value != old["value"] and payer is None:
        value = old["value"]
        filing = filing._replace(why_not="the period has less than this takes back, and nobody has this customer now")
    due = value - old["value"]
    if due:
        await connection.execute(sql.ADD_DUE, payer, old["meter"], due * NANO_PER_UNIT)
    if not value:
        return Replaced(None, due)
    because = reason or ("late" if filing.is_late else old["reason"])
    same = {name: old[name] for name in _SAME} | {"value": value, "carry_nano": old["carry_nano_after"]}
    event = NewEvent(**same, account=account, reason=because, replaces=old["id"])
    _, made = await insert_event(connection, event, old["seq"] + 1, filing, now)
    return Replaced(made, due)


async def _takes_back(connection: Any, old: Any, filing: Filing) -> int:
    """What of an event's value can be sent: of a correction no more than its period has."""
    value: int = old["value"]
    if value > 0 or filing.period is None:
        return value
    bounds = (old["customer"], old["meter"], *filing.period, old["id"])
    has: int = await connection.fetchval(freezing_sql.IN_PERIOD, *bounds)
    return max(value, -max(0, has))
