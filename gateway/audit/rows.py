"""INV-2, INV-4 and INV-9: what must hold of each ledger row by itself. Judgements only."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from gateway.audit.reads.rows import Estimates, Evidence, Uniqueness
from gateway.audit.result import InvariantResult, judge

_UNIQUE: Final = (
    "A call is counted twice, or could be: restore the missing constraint (migrations/), then correct the surplus row: "
    "`gateway adjust ROW --void`."
)
_EVIDENCE: Final = (
    "A row says more than it can show. Look at its metadata and at the log line of its id; correct it: "
    "`gateway adjust ROW`."
)
_ESTIMATES: Final = (
    "An estimate without a reason, or above its own bound, cannot be explained to a customer: look at its metadata, "
    "and correct it: `gateway adjust ROW`."
)


def uniqueness(read: Uniqueness) -> InvariantResult:
    """INV-2 uniqueness. One row per call, one call per answer of OpenAI, and a correction corrects something.

    On a breach: somebody would be charged twice; or what prevents it has been taken away.
    """
    broken = {
        "missing or switched off": read.guards,
        "id on several rows": read.ids,
        "response id on several rows": read.responses,
        "adjustment of a row that is not there": read.adjusted,
    }
    return judge("INV-2", "uniqueness", {"guards missing": read.guards.found}, broken, _UNIQUE)


def evidence(read: Evidence) -> InvariantResult:
    """INV-4 no invention. Every row can show what it rests on, and a call that did not run costs nothing.

    On a breach: an amount was put into the ledger that nothing vouches for.
    """
    broken = {"row without what its evidence needs": read.lacking}
    unpriced = read.kinds.get("unpriced", 0)
    note = f"{unpriced:,} unpriced: nobody is charged for them until the price book has their price" if unpriced else ""
    return judge("INV-4", "no invention", dict(read.kinds), broken, _EVIDENCE, note=note)


def estimates(read: Estimates, calls: int) -> InvariantResult:
    """INV-9 estimates. Each says why it is one and the most it can have been; how many there are is told by day.

    `calls` is the number of rows in the range that adjust nothing. On a breach: a customer is charged an amount that
    cannot be explained. A rising share is not a breach, but means that calls are cut off.
    """
    rows = sum(day.rows for day in read.days)
    cost = sum((day.cost_usd for day in read.days), Decimal(0))
    bound = sum((day.bound_usd or Decimal(0) for day in read.days), Decimal(0))
    share = (Decimal(100 * rows) / calls if calls else Decimal(0)).quantize(Decimal("0.001"), ROUND_HALF_EVEN)
    figures: dict[str, int | str] = {
        "estimated": rows,
        "% of calls": str(share),
        "cost_usd": f"{cost:.9f}",
        "bound_usd": f"{bound:.9f}",
        "corrected since": sum(day.corrected for day in read.days),
    }
    verdict = judge(
        "INV-9", "estimates", figures, {"estimate without reason or within no bound": read.unbounded}, _ESTIMATES
    )
    days: list[dict[str, int | str]] = [
        {
            "day": day.day.isoformat(),
            "estimated": day.rows,
            "cost_usd": f"{day.cost_usd:.9f}",
            "bound_usd": f"{day.bound_usd or Decimal(0):.9f}",
            "corrected since": day.corrected,
        }
        for day in read.days
    ]
    return verdict._replace(days=tuple(days))
