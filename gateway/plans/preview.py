"""What a change of plans would have done to the usage of a past month. Pure.

Amounts are of whole groups of calls: a row's own rounding, less than a nano-dollar each, is left out.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from gateway.usage.plans import PlanBook, Terms, bill_exactly
from pricing import Line

_QUANTUM: Final = Decimal("1e-9")


class Used(NamedTuple):
    """What was used in a period by calls that plans treat alike; amounts in USD."""

    user_id: str
    email: str
    api_key_id: str | None
    model: str
    endpoint: str
    tier: str | None
    unit: str | None
    calls: int
    quantity: Decimal
    usd: Decimal
    billed_usd: Decimal

    @property
    def call(self) -> dict[str, Any]:
        """What `PlanBook.resolve` asks for."""
        names = ("user_id", "api_key_id", "model", "endpoint")
        return {name: getattr(self, name) for name in names}


class UserChange(NamedTuple):
    """One user's month: only the calls that the change is for; USD."""

    user_id: str
    email: str
    calls: int
    cost_usd: Decimal
    billed_usd: Decimal
    """As it was billed."""
    after_usd: Decimal
    """As it would be billed."""


def changes_of(
    used: Iterable[Used], before: PlanBook, after: PlanBook, at: datetime, setting: Terms
) -> list[UserChange]:
    """Per user, by e-mail address, those calls that `before` and `after` bill by other terms at that instant."""
    found: dict[str, UserChange] = {}
    for group in used:
        old, new = (book.resolve(at, **group.call) or setting for book in (before, after))
        if old.name == new.name:
            continue
        lines = () if group.unit is None else (Line(group.unit, f"{group.quantity:f}", "", f"{group.usd:f}"),)
        change = found.get(group.user_id) or UserChange(group.user_id, group.email, 0, *(Decimal(0),) * 3)
        found[group.user_id] = change._replace(
            calls=change.calls + group.calls,
            cost_usd=change.cost_usd + group.usd,
            billed_usd=change.billed_usd + group.billed_usd,
            after_usd=change.after_usd + bill_exactly(group.usd, lines, new, group.model, group.tier),
        )
    rounded = [change._replace(after_usd=change.after_usd.quantize(_QUANTUM)) for change in found.values()]
    return sorted(rounded, key=lambda change: change.email)
