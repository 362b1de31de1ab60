"""Reports: what was used and what it costs, for a range of time, by the dimensions finance asks for.

Money stays a Decimal and becomes a string in JSON, never a float. Must not render: that is the caller's.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

from gateway.core.errors import OptionError
from gateway.core.instants import parse_instant
from gateway.edges.reports import UsageRow

DIMENSIONS: Final = ("month", "day", "user", "key", "model", "endpoint", "tier")
"""What usage may be grouped by."""
ROWS_MAX: Final = 100_000
"""Groups in one report; more are refused, never cut off silently."""

_FIELDS: Final = {
    "month": ("month",),
    "day": ("day",),
    "user": ("user_id", "email"),
    "key": ("key_id", "key_name"),
    "model": ("model",),
    "endpoint": ("endpoint",),
    "tier": ("tier",),
}
_COUNTS: Final = (
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "estimated",
    "unpriced",
    "void",
    "adjustments",
)


class UsageSource(Protocol):
    """What a report needs of the reports edge."""

    async def usage(
        self, by: tuple[str, ...], since: datetime | None, until: datetime | None, *, rows_max: int
    ) -> list[UsageRow]: ...


class UsageReport(NamedTuple):
    """One usage report."""

    by: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    rows: list[UsageRow]
    totals: UsageRow
    """The sums over all rows; its dimensions are None."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: instants in RFC 3339, dates ISO, money as a string with nine decimals."""
        return {
            "from": _instant(self.since),
            "until": _instant(self.until),
            "by": list(self.by),
            "rows": [_dimensions(self.by, row) | _amounts(row) for row in self.rows],
            "totals": _amounts(self.totals),
        }


async def usage_report(
    source: UsageSource, *, by: Sequence[str], since: str | None = None, until: str | None = None
) -> UsageReport:
    """Usage of calls completed in [since, until), each a UTC date or an RFC 3339 time, or None for no bound.

    `by`: any of DIMENSIONS, several at once; empty gives the total alone. Raises OptionError when an option is
    wrong or the report would be too large, DependencyDown when Postgres is away.
    """
    dimensions = parse_dimensions(by)
    begins = None if since is None else parse_instant(since, "from")
    ends = None if until is None else parse_instant(until, "until")
    if begins is not None and ends is not None and begins >= ends:
        raise OptionError(f"from ({since}) must be before until ({until}), which is not part of the range")
    rows = await source.usage(dimensions, begins, ends, rows_max=ROWS_MAX + 1)
    if len(rows) > ROWS_MAX:
        raise OptionError(f"more than {ROWS_MAX} lines: narrow from and until, or group by less")
    return UsageReport(dimensions, begins, ends, rows, _total(rows))


def parse_dimensions(by: Sequence[str]) -> tuple[str, ...]:
    """The dimensions of `by` (each entry may hold several, with commas), without repeats, in the order asked for.

    Raises OptionError naming the unknown one and all that there are.
    """
    asked = [name.strip().lower() for entry in by for name in entry.split(",") if name.strip()]
    for name in asked:
        if name not in DIMENSIONS:
            raise OptionError(f"by: {name!r} is no dimension; there are {', '.join(DIMENSIONS)}")
    return tuple(dict.fromkeys(asked))


def _total(rows: list[UsageRow]) -> UsageRow:
    counts = {name: sum(getattr(row, name) for row in rows) for name in _COUNTS}
    cost = sum((row.cost_usd for row in rows), Decimal(0))
    billed = sum((row.billed_usd for row in rows), Decimal(0))
    blank = dict.fromkeys(UsageRow._fields)
    return UsageRow(**{**blank, **counts, "cost_usd": cost, "billed_usd": billed})


def _dimensions(by: tuple[str, ...], row: UsageRow) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for field in (field for dimension in by for field in _FIELDS[dimension]):
        value = getattr(row, field)
        found[field] = f"{value:%Y-%m}" if field == "month" else value.isoformat() if field == "day" else value
    return found


def _amounts(row: UsageRow) -> dict[str, Any]:
    counts = {name: getattr(row, name) for name in _COUNTS}
    return counts | {"cost_usd": f"{row.cost_usd:.9f}", "billed_usd": f"{row.billed_usd:.9f}"}


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
