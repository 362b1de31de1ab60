"""A part of INV-3: what a customer is billed follows from the cost, its lines and the plan that the row names.

Whatever holds today does not matter: `plan_version` of a row is binding.
"""

from decimal import Decimal
from typing import Any, Final

import msgspec

import pricing
from gateway.audit.reads.rows import PricedRow
from gateway.audit.result import Collector, Figures
from gateway.usage.plans import LEGACY, PlanBook, bill, priced_tier, setting_terms

NAMED_MAX: Final = 10_000
"""Rows remembered that were billed by another plan than the one in force."""
_WRONG: Final = "billed amount is not what its plan makes of the cost"


class _Exact(msgspec.Struct, frozen=True):
    """What a correction by a later answer of OpenAI says of the whole call (usage/adjust.py)."""

    cost_usd: str
    billed_usd: str
    lines: tuple[pricing.Line, ...]
    was_nano: int
    """What the row that it corrects was billed."""


class BilledAmounts:
    """Takes rows one by one."""

    def __init__(self, plans: PlanBook, wrong: Collector) -> None:
        """`plans`: all versions that there have ever been. What is wrong goes to `wrong`."""
        self._plans: Final = plans
        self._wrong: Final = wrong
        self._exact: Final = msgspec.json.Decoder(_Exact)
        self._derived = 0
        self._legacy = 0
        self._not_said = 0
        self._by_hand = 0
        self.elsewhere: Final[list[str]] = []
        """Rows that name another plan than the one in force when their call began, NAMED_MAX at most."""
        self.others = 0
        """How many those are."""

    def take(self, row: PricedRow, lines: tuple[pricing.Line, ...]) -> None:
        """Judges one row, with its lines as read."""
        cost, billed = row.cost_nano, row.billed_nano
        if cost is None and billed is None and row.evidence == "unpriced":
            return
        if row.plan_version == LEGACY:
            self._legacy += 1
        elif row.is_by_hand:
            self._by_hand += 1  # a person has said the amount; `gateway corrections` says who and why
        elif row.plan_version is None or (row.is_old and row.evidence == "adjustment"):
            self._not_said += 1
            if row.evidence in ("reported", "drained") and (billed is None or billed < 0 or (billed and not cost)):
                self._wrong.add("billed amount cannot follow from the cost", row.id)
        else:
            self._derive(row, cost or 0, billed, lines)

    def _derive(self, row: PricedRow, cost: int, billed: int | None, lines: tuple[pricing.Line, ...]) -> None:
        assert row.plan_version is not None
        terms = self._plans.named(row.plan_version)
        if terms is None:
            self._wrong.add("plan_version names a plan that there is not", row.id)
            return
        self._derived += 1
        if row.is_old:
            # The migration has found a factor that gives the amount; of a tie it may be either neighbour.
            if billed is None or abs(cost * terms.factor - billed) > Decimal("0.5"):
                self._wrong.add(_WRONG, row.id)
            return
        if row.evidence == "adjustment":
            if row.exact is not None and self._difference(row, row.exact) != billed:
                self._wrong.add(_WRONG, row.id)
            return
        expected = 0 if row.is_not_billed else bill(cost, lines, terms, row.model, _tier(row))
        if billed != expected:
            self._wrong.add(_WRONG, row.id)
        self._compare_with_force(row)

    def _difference(self, row: PricedRow, exact: str) -> int | None:
        """What a correction by a later answer bills; None where the whole amount does not follow from its cost."""
        terms = self._plans.named(row.plan_version or "")
        said = self._exact.decode(exact)
        assert terms is not None
        whole = bill(_nano(said.cost_usd), said.lines, terms, row.model, _tier(row))
        return whole - said.was_nano if whole == _nano(said.billed_usd) else None

    def _compare_with_force(self, row: PricedRow) -> None:
        """Whether its process had the plan that was in force: one that cannot reach PostgreSQL misses what starts."""
        found = self._plans.resolve(
            row.started_at,
            user_id=row.user_id,
            api_key_id=row.api_key_id,
            model=row.model,
            endpoint=row.endpoint,
        )
        named = row.plan_version or ""
        if setting_terms(named) is not None if found is None else found.name == named:
            return
        self.others += 1
        if len(self.elsewhere) < NAMED_MAX:
            self.elsewhere.append(row.id)

    def figures(self, corrected: int) -> Figures:
        """`corrected`: of the rows billed by another plan, those that a person has corrected since."""
        return {
            "billed amounts derived": self._derived,
            "billed before there were plans, not by an exact mark-up": self._legacy,
            "billed by a version that names no plan": self._not_said,
            "billed as a person has said": self._by_hand,
            "billed by another plan than the one in force": self.others - corrected,
        }


def _tier(row: PricedRow) -> str | None:
    billable = None if row.billable is None else msgspec.json.decode(row.billable, type=dict[str, Any] | None)
    return priced_tier(row.service_tier, billable, row.tier_asked)


def _nano(usd: str) -> int:
    return int(Decimal(usd).scaleb(9))
