"""What meetings have cost: usage of a range of time by meeting, per participant-minute, and what belongs to no meeting.

Money stays a Decimal. Must not render: that is the caller's.
"""

from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, NamedTuple

from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.reports.store import MeetingTime, Reports, UsageFilter, UsageRow
from gateway.reports.usage import ROWS_MAX, UsageReport, amounts, money_text, parse_range, usage_report

_NANO: Final = Decimal("0.000000001")
_PERCENT: Final = Decimal("0.01")
_TENTH: Final = Decimal("0.1")


class MeetingCost(NamedTuple):
    """One meeting: as it took place, whatever the range, and its usage within the range."""

    time: MeetingTime
    usage: UsageRow | None
    """None: no call named it."""

    @property
    def cost_usd(self) -> Decimal:
        """Exact to 1e-9."""
        return Decimal(0) if self.usage is None else self.usage.cost_usd

    @property
    def billed_usd(self) -> Decimal:
        """Exact to 1e-9."""
        return Decimal(0) if self.usage is None else self.usage.billed_usd

    @property
    def cost_text(self) -> str | None:
        """With nine decimals; None where no amount is known."""
        return f"{Decimal(0):.9f}" if self.usage is None else money_text(self.usage, "cost_usd")

    @property
    def billed_text(self) -> str | None:
        """The same of what is billed."""
        return f"{Decimal(0):.9f}" if self.usage is None else money_text(self.usage, "billed_usd")

    @property
    def calls(self) -> int:
        """Calls that named it."""
        return 0 if self.usage is None else self.usage.calls

    @property
    def minutes(self) -> Decimal:
        """Participant-minutes, to a tenth."""
        return (self.time.participant_seconds / Decimal(60)).quantize(_TENTH, ROUND_HALF_EVEN)

    @property
    def per_minute(self) -> Decimal | None:
        """USD of cost per participant-minute, rounded to the nano-dollar; None where nobody was there, or no amount is
        known."""
        seconds = 0 if self.cost_text is None else self.time.participant_seconds
        return (self.cost_usd * 60 / Decimal(seconds)).quantize(_NANO, ROUND_HALF_EVEN) if seconds else None

    def to_json(self) -> dict[str, Any]:
        """Plain values; money as a string with nine decimals."""
        time = self.time
        per_minute = self.per_minute
        return {
            "meeting_id": time.id,
            "room_name": time.room_name,
            "email": time.email,
            "status": time.status,
            "started_at": rfc3339(time.started_at),
            "ended_at": rfc3339(time.ended_at),
            "duration_seconds": time.duration_seconds,
            "participants": time.participants,
            "participant_minutes": str(self.minutes),
            "calls": self.calls,
            "total_tokens": 0 if self.usage is None else self.usage.total_tokens,
            "cost_usd": self.cost_text,
            "billed_usd": self.billed_text,
            "cost_usd_per_participant_minute": None if per_minute is None else f"{per_minute:.9f}",
        }


class MeetingReport(NamedTuple):
    """The dearest first; then those without usage, the latest first."""

    usage: UsageReport
    rows: list[MeetingCost]
    unattributed: UsageRow | None
    """Usage that named no meeting; None when there was none."""

    @property
    def unattributed_percent(self) -> Decimal:
        """Share of the range's cost that belongs to no meeting, to 0.01; 0 where nothing was spent."""
        total = self.usage.totals.cost_usd
        if self.unattributed is None or not total:
            return Decimal(0)
        return (Decimal(100) * self.unattributed.cost_usd / total).quantize(_PERCENT, ROUND_HALF_EVEN)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "from": rfc3339(self.usage.since),
            "until": rfc3339(self.usage.until),
            "meetings": [row.to_json() for row in self.rows],
            "unattributed": None if self.unattributed is None else amounts(self.unattributed),
            "unattributed_percent": str(self.unattributed_percent),
            "totals": amounts(self.usage.totals),
        }


async def meeting_report(
    source: Reports,
    *,
    now: datetime,
    since: str | None = None,
    until: str | None = None,
    during: str | None = None,
    user_id: str | None = None,
) -> MeetingReport:
    """Meetings with usage in the range, or that began in it; options as of `usage_report`. A participant who is still
    there counts until `now`. Raises OptionError, DependencyDown."""
    of = UsageFilter(user_id=user_id)
    usage = await usage_report(source, by=["meeting"], now=now, since=since, until=until, during=during, of=of)
    by_id = {row.meeting_id: row for row in usage.rows}
    begins, ends = parse_range(since, until, during, now)
    ids = [meeting_id for meeting_id in by_id if meeting_id is not None]
    times = await source.meetings(ids, begins, ends, now, user_id=user_id, rows_max=ROWS_MAX + 1)
    if len(times) > ROWS_MAX:
        raise OptionError(f"more than {ROWS_MAX} meetings: narrow from and until")
    rows = sorted((MeetingCost(time, by_id.get(time.id)) for time in times), key=lambda row: -row.cost_usd)
    return MeetingReport(usage, rows, by_id.get(None))
