"""INV-5, INV-6 and INV-10: every sum kept beside the ledger is the sum of its rows. Judgements only."""

from decimal import Decimal
from typing import Final

from gateway.audit.budgets import Counted
from gateway.audit.reads.snapshot import Offenders, unless
from gateway.audit.reads.sums import Amounts, CounterTotals, Rollups
from gateway.audit.result import InvariantResult, judge

_ROLLUPS: Final = (
    "Reports and limits read these sums; the ledger's rows are the truth. Somebody changed a sum or a row by hand, or "
    "two versions of the writer disagree: find out which, before rebuilding the sum from the rows. Workers make the "
    "counters of budgets from the ledger again, every limits.recount_s: see that one runs."
)
_AMOUNTS: Final = (
    "Stop billing (unset STRIPE_SECRET_KEY at the workers) until it is clear whether too much or too little is on its "
    "way: docs/billing.md, 'From a call to an invoice', has the equation."
)
_COUNTERS: Final = (
    "An entry was committed without being counted, or counted without being committed: compare usage_quarantine and "
    "flush_counters with the log of the batch writer."
)


def rollups(read: Rollups, budgets: Counted, faults: Offenders | None = None) -> InvariantResult:
    """INV-5 roll-ups. Reports, calls per key, budgets and the writers' counters are the sums of the ledger's rows.

    `faults` are of kept results, which must not be carried on then. On a breach: believe the ledger, not the report,
    until the sum has been rebuilt.
    """
    totals = read.totals
    ever, inserted = totals["rows_ever"], totals["inserted_ever"]
    figures: dict[str, int | str] = {
        "rows": count(totals["rows"]),
        "calls": count(totals["calls"]),
        "cost_usd": str(totals["cost_usd"]),
        "billed_usd": str(totals["billed_usd"]),
        "rows ever": count(ever),
        "budget periods": budgets.periods,
    }
    broken = {
        "hour of usage_hourly is not the sum of its rows": read.hours,
        "day of usage_daily is not the sum of its rows": read.days,
        "day of usage_daily_meetings is not the sum of its rows": read.meetings,
        "day of usage_daily_units is not the sum of its rows' lines": read.units,
        "month of usage_monthly is not the sum of its hours": read.monthly,
        "api_keys.usage_count is not the number of calls": read.keys,
        "flush_counters.inserted is not the number of rows": unless(
            ever == inserted, f"{inserted:,} counted, {ever:,} rows in usage_daily"
        ),
        "budget's counter in Redis is not what was spent": budgets.wrong,
        "kept result of an audit is not genuine": faults,
    }
    return judge("INV-5", "roll-ups", figures, broken, _ROLLUPS, note=budgets.why_not)


def amounts(read: Amounts) -> InvariantResult:
    """INV-6 billing. What is billed is in exactly one place: a window, a meter event, or the left-over below 1 unit.

    On a breach: a customer would be charged too much or too little; stop sending before looking further.
    """
    figures: dict[str, int | str] = {
        "USD in windows": usd(read.totals["nano"]),
        "USD paid by credit": usd(read.totals["credit"]),
        "USD settled by hand": usd(read.totals["settled"] + read.totals["settled_events"] * 1000),
        "USD written off": usd(read.totals["written_off"] + read.totals["written_off_events"] * 1000),
        "USD not frozen": usd(read.totals["unfrozen"]),
        "USD delivered": usd(read.totals["delivered"] * 1000),
        "USD waiting to be sent": usd(read.totals["waiting"] * 1000),
        "USD held for a person": usd(read.totals["held"] * 1000),
        "USD carried": usd(read.totals["carry"]),
        "USD due to customers": usd(read.totals["credit_due"]),
    }
    broken = {
        "window is not what its rows are billed": read.windows,
        "window from before payers is not what its rows are billed": read.old_windows,
        "user's windows from before payers are not what their rows are billed": read.owed,
        "amount was moved from windows from before payers and did not arrive, or the other way round": None
        if read.moved is None
        else unless(read.moved[0] == read.moved[1], f"{usd(read.moved[0])} USD taken, {usd(read.moved[1])} USD put"),
        "frozen amount is not meter events plus carry": read.frozen,
        "carry is not between 0 and 999 nano-USD": read.carry,
        "outbox_totals is not the sum of the events": read.counted,
    }
    several = "windows of several lengths in the range, or cut by it: compared per payer in total, not one by one"
    return judge("INV-6", "billing", figures, broken, _AMOUNTS, note=several if read.windows is None else "")


def counters(read: CounterTotals) -> InvariantResult:
    """INV-10 quarantine. Whatever the writers have read is a row, a known repeat, or in quarantine: nothing else.

    On a breach: an entry of the stream may have been dropped. Entries that wait in quarantine are no breach, but
    each is a call that nobody has been charged for: `resolved_at` is for the person who has seen to it.
    """
    totals = read.totals
    broken = {
        "writer's entries are not inserted + duplicates + quarantined": read.slots,
        "quarantine does not hold what was counted": unless(
            totals["quarantined"] == totals["kept"], f"{totals['quarantined']:,} counted, {totals['kept']:,} kept"
        ),
    }
    waiting = totals["waiting"]
    entries = "entry in quarantine needs" if waiting == 1 else "entries in quarantine need"
    waits = f"{waiting:,} {entries} attention: `gateway quarantine list`" if waiting else ""
    return judge("INV-10", "quarantine", totals, broken, _COUNTERS, note=waits)


def usd(nano: int) -> str:
    """Nano-USD, any sign, as exact USD."""
    return f"{Decimal(nano).scaleb(-9):.9f}"


def count(value: object) -> int:
    """A count that PostgreSQL gave."""
    if not isinstance(value, int):
        raise TypeError(f"a count is an int, not {type(value).__name__}")
    return value
