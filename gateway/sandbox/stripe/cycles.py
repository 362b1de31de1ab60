"""Where a subscription's billing periods begin and end. Pure.

docs.stripe.com, billing-cycle: every boundary is the anchor plus whole intervals, in UTC; a day that a month lacks is
its last one (31 January, 28 February, 31 March); an anchor ahead ends a first, shorter period.
"""

import calendar
from datetime import UTC, datetime, timedelta
from typing import Any, Final

_DAYS: Final = {"day": 1, "week": 7}
_MONTHS: Final = {"month": 1, "year": 12}
INTERVALS: Final = (*_DAYS, *_MONTHS)


def boundary(anchor: int, interval: str, count: int, number: int, *, day: int | None = None) -> int:
    """The instant `number` intervals after the anchor; `day` is the anchor's of a longer month, 31 say."""
    start = datetime.fromtimestamp(anchor, UTC)
    if interval in _DAYS:
        return int((start + timedelta(days=_DAYS[interval] * count * number)).timestamp())
    months = start.year * 12 + start.month - 1 + _MONTHS[interval] * count * number
    year, month = months // 12, months % 12 + 1
    fits = min(day or start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=fits).timestamp())


def next_boundary(anchor: int, interval: str, count: int, after: int, *, day: int | None = None) -> int:
    """The first boundary later than `after`."""
    start, then = datetime.fromtimestamp(anchor, UTC), datetime.fromtimestamp(after, UTC)
    if interval in _DAYS:
        number = (then - start).days // (_DAYS[interval] * count) - 1
    else:
        months = (then.year - start.year) * 12 + then.month - start.month
        number = months // (_MONTHS[interval] * count) - 1
    while (found := boundary(anchor, interval, count, number, day=day)) <= after:
        number += 1
    return found


def anchor_of(config: dict[str, Any], start: int) -> int:
    """The first instant later than `start` that `billing_cycle_anchor_config` describes; what it leaves out of the
    time is the start's (docs.stripe.com, billing-cycle).
    """
    then = datetime.fromtimestamp(start, UTC)
    time = {unit: config.get(unit, getattr(then, unit)) for unit in ("hour", "minute", "second")}
    for ahead in range(13):
        months = then.year * 12 + then.month - 1 + ahead
        year, month = months // 12, months % 12 + 1
        if config.get("month") not in (None, month):
            continue
        day = min(config["day_of_month"], calendar.monthrange(year, month)[1])
        found = int(datetime(year, month, day, tzinfo=UTC, **time).timestamp())
        if found > start:
            return found
    raise ValueError(f"no such anchor: {config}")
