"""Reports: what was used and what it costs, for a range of time, by the dimensions finance asks for.

Money stays a Decimal and becomes a string in JSON, never a float. Must not render: that is the caller's.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_bound, parse_period, rfc3339
from gateway.reports.store import EVERYTHING, Reports, UsageFilter, UsageRow

DIMENSIONS: Final = (
    "month", "week", "day", "hour", "user", "key", "meeting", "customer", "cost-centre", "model", "endpoint", "tier",
    "evidence",
)  # fmt: skip
"""What usage may be grouped by."""
ROWS_MAX: Final = 100_000
"""Groups in one report; more are refused, never cut off silently."""

_FIELDS: Final = {
    "month": ("month",),
    "week": ("week",),
    "day": ("day",),
    "hour": ("hour",),
    "user": ("user_id", "email"),
    "key": ("key_id", "key_name"),
    "meeting": ("meeting_id", "room_name"),
    "customer": ("customer_id", "customer"),
    "cost-centre": ("cost_centre",),
    "model": ("model",),
    "endpoint": ("endpoint",),
    "tier": ("tier",),
    "evidence": ("evidence",),
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
_OPEN_COUNTS: Final = ("estimated_open", "unpriced_open")
_AMOUNTS: Final = (
    "reported_cost_usd", "drained_cost_usd", "estimated_cost_usd", "adjustment_cost_usd", "estimated_open_cost_usd",
)  # fmt: skip


class UsageReport(NamedTuple):
    """One usage report."""

    by: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    of: UsageFilter
    rows: list[UsageRow]
    totals: UsageRow
    """The sums over all rows; its dimensions are None."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: instants in RFC 3339, dates ISO, money as a string with nine decimals."""
        return {
            "from": rfc3339(self.since),
            "until": rfc3339(self.until),
            "by": list(self.by),
            "filter": self.of.asked(),
            "rows": [self.labels(row) | amounts(row) for row in self.rows],
            "totals": amounts(self.totals),
        }

    def labels(self, row: UsageRow) -> dict[str, str | None]:
        """What `row` is grouped by, whole, as JSON and CSV name it: an id has its label beside it."""
        found: dict[str, str | None] = {}
        for field in self.label_fields():
            value = getattr(row, field)
            if isinstance(value, datetime):
                value = rfc3339(value)
            elif field == "month":
                value = f"{value:%Y-%m}"
            found[field] = value.isoformat() if field in ("day", "week") else value
        return found

    def label_fields(self) -> list[str]:
        """The names of `labels`, in order."""
        return [field for dimension in self.by for field in _FIELDS[dimension]]

    def span(self) -> str:
        """The range that was used, in words."""
        begins = "from the beginning" if self.since is None else f"from {_moment(self.since)}"
        return f"{begins} until {'now' if self.until is None else _moment(self.until)} (UTC)"


async def usage_report(
    source: Reports,
    *,
    by: Sequence[str],
    now: datetime,
    since: str | None = None,
    until: str | None = None,
    during: str | None = None,
    of: UsageFilter = EVERYTHING,
) -> UsageReport:
    """Usage of calls completed in [since, until), each an instant or the first one of a period; None means no bound.

    `during` names a whole period instead (kit/instants.py says which there are; `now` decides what today is).
    `by`: any of DIMENSIONS, several at once; empty gives the total alone. Raises OptionError when an option is
    wrong or the report would be too large, DependencyDown when Postgres is away.
    """
    dimensions = parse_dimensions(by)
    begins, ends = parse_range(since, until, during, now)
    rows = await source.usage(dimensions, begins, ends, of=of, rows_max=ROWS_MAX + 1)
    if len(rows) > ROWS_MAX:
        raise OptionError(f"more than {ROWS_MAX} lines: narrow from and until, or group by less")
    return UsageReport(dimensions, begins, ends, of, rows, _total(rows))


def parse_range(
    since: str | None, until: str | None, during: str | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """The half-open range in UTC that these options name. Raises OptionError."""
    if during is not None:
        if since is not None or until is not None:
            raise OptionError("during: it is a whole range by itself; leave out from and until")
        return parse_period(during, "during", now)
    begins = None if since is None else parse_bound(since, "from", now)
    ends = None if until is None else parse_bound(until, "until", now)
    if begins is not None and ends is not None and begins >= ends:
        raise OptionError(f"from ({since}) must be before until ({until}), which is not part of the range")
    return begins, ends


def parse_dimensions(by: Sequence[str]) -> tuple[str, ...]:
    """The dimensions of `by` (each entry may hold several, with commas), without repeats, in the order asked for.

    Raises OptionError naming the unknown one and all that there are.
    """
    asked = [name.strip().lower() for entry in by for name in entry.split(",") if name.strip()]
    for name in asked:
        if name not in DIMENSIONS:
            raise OptionError(f"by: {name!r} is not a dimension; there are {', '.join(DIMENSIONS)}")
    return tuple(dict.fromkeys(asked))


def _total(rows: list[UsageRow]) -> UsageRow:
    names = (*_COUNTS, *_OPEN_COUNTS, "priced_rows")
    counts = {name: sum(getattr(row, name) for row in rows) for name in names}
    money = ("cost_usd", "billed_usd", *_AMOUNTS)
    sums = {name: sum((getattr(row, name) for row in rows), Decimal(0)) for name in money}
    blank = dict.fromkeys(UsageRow._fields)
    return UsageRow(**{**blank, **counts, **sums})


def amounts(row: UsageRow) -> dict[str, Any]:
    """The figures of a row: counts as integers, money as a string with nine decimals, None where no amount is known."""
    counts = {name: getattr(row, name) for name in _COUNTS}
    money = {name: money_text(row, name) for name in ("cost_usd", "billed_usd")}
    still_open = {name: getattr(row, name) for name in _OPEN_COUNTS}
    return counts | money | still_open | {name: money_text(row, name) for name in _AMOUNTS}


def money_text(row: UsageRow, name: str) -> str | None:
    """An amount with nine decimals; None in a group whose calls have no price."""
    return None if row.is_unpriced else f"{getattr(row, name):.9f}"


def _moment(at: datetime) -> str:
    """As short as it can be said without rounding."""
    return f"{at:%Y-%m-%d %H:%M}" if not at.second and not at.microsecond else at.replace(tzinfo=None).isoformat(" ")
