"""What a month comes to, by customer and model, added up row by row. Pure."""

from typing import Any, Final

from gateway.billing.bridge import usd
from gateway.close.rows import PackRow

_SUMS: Final = ("rows", "calls", "late_rows", "unpriced", "prompt_tokens", "completion_tokens", "total_tokens",
                "cost_nano", "billed_nano")  # fmt: skip
NOBODY: Final = "nobody"
"""Instead of a customer's id: nobody pays for it yet."""


class Totals:
    """Takes rows one by one. Memory grows with customers and models, never with rows."""

    def __init__(self) -> None:
        self._groups: Final[dict[tuple[str, str], list[int]]] = {}
        self._margins: Final[dict[str, int]] = {}

    def add(self, row: PackRow) -> None:
        """One more row."""
        cost, billed = row.cost_nano or 0, row.billed_nano or 0
        values = (
            1,
            int(row.adjusts is None),
            int(row.booked_at != row.completed_at),
            int(row.cost_nano is None),
            row.prompt_tokens or 0,
            row.completion_tokens or 0,
            row.total_tokens or 0,
            cost,
            billed,
        )
        group = self._groups.setdefault((row.customer_id or NOBODY, row.model), [0] * len(_SUMS))
        for place, value in enumerate(values):
            group[place] += value
        plan = row.plan_version or "unknown"
        self._margins[plan] = self._margins.get(plan, 0) + billed - cost

    def margins(self) -> dict[str, int]:
        """Billed less cost by plan version, nano-USD."""
        return dict(self._margins)

    def sum(self, name: str) -> int:
        """One figure over everything."""
        place = _SUMS.index(name)
        return sum(group[place] for group in self._groups.values())

    def by_customer(self, name: str) -> dict[str, int]:
        """One figure by customer, NOBODY among them, where it is not 0."""
        place, sums = _SUMS.index(name), dict[str, int]()
        for (customer, _), group in self._groups.items():
            sums[customer] = sums.get(customer, 0) + group[place]
        return {customer: value for customer, value in sums.items() if value}

    def to_json(self) -> dict[str, Any]:
        """Plain values in a fixed order; amounts are strings of USD."""
        return {
            "total": _plain([self.sum(name) for name in _SUMS]),
            "by_customer_and_model": [
                {"customer": customer, "model": model, **_plain(group)}
                for (customer, model), group in sorted(self._groups.items())
            ],
            "margin_by_plan": {plan: usd(nano) for plan, nano in sorted(self._margins.items())},
        }


def _plain(values: list[int]) -> dict[str, int | str]:
    figures: dict[str, int | str] = {}
    for name, value in zip(_SUMS, values, strict=True):
        figures |= {f"{name.removesuffix('_nano')}_usd": usd(value)} if name.endswith("_nano") else {name: value}
    return figures
