"""What a correction does beside the ledger: where it lands on an invoice, and which budgets and credit it moves."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from gateway.config.settings import BillingSettings
from gateway.corrections.change import RowChange
from gateway.limits.budgets import Budget
from gateway.limits.spending import BudgetRow, Spending
from gateway.stores.postgres import Connections

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class InvoiceEffect(NamedTuple):
    """What one user's invoice gets: the sum of the differences, in the window of now."""

    user_id: str
    email: str
    customer: str | None
    """Who pays for the rows, at Stripe; None: the amount accrues until somebody does."""
    window_start: datetime
    window_end: datetime
    frozen_at: datetime
    """When the window is closed and reported."""
    billed_nano: int


class BudgetEffect(NamedTuple):
    """A budget in which the difference counts, in the period of its instant; or prepaid credit."""

    user_id: str
    budget_id: str | None
    """None: credit."""
    name: str
    nano: int
    """The difference: cost for a budget, billed amount for credit."""


class Effects(NamedTuple):
    """All that a correction does."""

    at: datetime
    """When it counts."""
    months: list[tuple[str, str, int]]
    """Month in which the row was booked, month in which the correction is booked, rows."""
    invoices: list[InvoiceEffect]
    budgets: list[BudgetEffect]


async def find_effects(
    connections: Connections, changes: Sequence[RowChange], billing: BillingSettings, at: datetime
) -> Effects:
    """What they do that count `at` an instant. Raises DependencyDown."""
    by_user: dict[str, list[RowChange]] = {}
    for change in changes:
        by_user.setdefault(change.row.user_id, []).append(change)
    window = timedelta(seconds=billing.window_s)
    start = _EPOCH + (at - _EPOCH) // window * window
    invoices, budgets = [], []
    spending = Spending(connections)
    for user_id, theirs in by_user.items():
        frozen_at = start + window + timedelta(seconds=billing.grace_s)
        email = theirs[0].row.email
        by_payer: dict[str | None, int] = {}
        for change in theirs:
            by_payer[change.row.customer] = by_payer.get(change.row.customer, 0) + change.billed_nano
        invoices += [
            InvoiceEffect(user_id, email, customer, start, start + window, frozen_at, billed)
            for customer, billed in by_payer.items()
        ]
        for row in await spending.budgets(user_id, inactive_too=False):
            budget = _budget(row)
            counted = [each for each in theirs if budget.counts_call(*_scope(each))]
            if counted:
                nano = sum(each.cost_nano for each in counted)
                budgets.append(BudgetEffect(user_id, row.id, budget.name(), nano))
        if await spending.credits(user_id):
            budgets.append(BudgetEffect(user_id, None, "prepaid credit", sum(by_payer.values())))
    return Effects(at, _months(changes, at), invoices, budgets)


def _scope(change: RowChange) -> tuple[str | None, str | None, str]:
    row = change.row
    return row.api_key_id, row.meeting_id, row.model


def _months(changes: Iterable[RowChange], at: datetime) -> list[tuple[str, str, int]]:
    rows: dict[str, int] = {}
    for change in changes:
        month = f"{change.row.booked_at.astimezone(UTC):%Y-%m}"
        rows[month] = rows.get(month, 0) + 1
    return [(month, f"{at.astimezone(UTC):%Y-%m}", count) for month, count in sorted(rows.items())]


def _budget(row: BudgetRow) -> Budget:
    return Budget(
        id=row.id,
        user_id=row.user_id,
        limit_nano=0,
        period=row.period,  # type: ignore[arg-type]  # the table's own check
        hard=row.is_hard,
        since=row.created_at,
        api_key_id=row.api_key_id,
        meeting_id=row.meeting_id,
        model=row.model,
    )
