"""Corrections that were made: who, when, why, and which month was corrected in which. Reads only."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from gateway.config.settings import Settings
from gateway.corrections.store import Corrections, Proposal
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database
from gateway.stores.postgres import Connections, Table
from pricing import nano_text

LINES_MAX: Final = 100_000
_WHY: Final = "corrections are in PostgreSQL"
AUTOMATIC: Final = "automatic"
"""The kind of corrections that nobody has asked for: OpenAI's late answers."""
_MONTHS: Final = """
  to_char(o.booked_at at time zone 'UTC', 'YYYY-MM') as month_corrected,
  to_char(a.booked_at at time zone 'UTC', 'YYYY-MM') as month_booked, count(*) as rows,
  (sum(a.cost_usd) * 1000000000)::bigint as cost_nano, (sum(a.billed_usd) * 1000000000)::bigint as billed_nano
"""
# A line for each correction and pair of months, the oldest first: calls of one month may be corrected in a later one.
# Then one for each cause of corrections that nobody made, by the last of them.
_LIST: Final = f"""
select c.id::text as id, c.made_at, c.made_by, c.approved_by, c.why, c.ticket, c.kind, {_MONTHS}
from public.corrections c
join public.correction_rows r on r.correction_id = c.id
join public.openai_usage a on a.id = r.adjustment_id
join public.openai_usage o on o.id = r.adjusts
where ($1::timestamptz is null or c.made_at >= $1) and ($2::timestamptz is null or c.made_at < $2)
group by c.id, 8, 9
union all
select null, max(a.inserted_at), 'gateway', null, coalesce(a.metadata ->> 'reason', 'not said'), null, $4, {_MONTHS}
from public.openai_usage a
join public.openai_usage o on o.id = a.adjusts
where a.adjusts is not null and ($1::timestamptz is null or a.inserted_at >= $1)
  and ($2::timestamptz is null or a.inserted_at < $2)
  and not exists (select from public.correction_rows r where r.adjustment_id = a.id)
group by 5, 8, 9
order by 2, 1, 5, 8, 9
limit $3
"""  # noqa: S608 - constants of this file


class CorrectionLine(NamedTuple):
    """A correction, as far as it corrects calls of one month; or all automatic ones of one cause and month."""

    id: str | None
    """None: automatic ones."""
    made_at: datetime
    """Of automatic ones, the last."""
    made_by: str
    approved_by: str | None
    why: str
    ticket: str | None
    kind: str
    month_corrected: str
    month_booked: str
    rows: int
    cost_nano: int
    billed_nano: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; money as a string with nine decimals."""
        plain = self._asdict() | {"made_at": rfc3339(self.made_at)}
        cost, billed = plain.pop("cost_nano"), plain.pop("billed_nano")
        return plain | {"cost_usd": nano_text(cost), "billed_usd": nano_text(billed)}


async def read_corrections(
    connections: Connections, since: datetime | None, until: datetime | None
) -> list[CorrectionLine]:
    """Corrections made in [since, until), also by the gateway itself, the oldest first.

    Raises OptionError where there are too many, DependencyDown.
    """
    lines = await _Lines(connections).read(since, until, LINES_MAX + 1)
    if len(lines) > LINES_MAX:
        raise OptionError(f"during: more than {LINES_MAX:,} lines; name a shorter period")
    return lines


async def list_corrections(settings: Settings, since: datetime | None, until: datetime | None) -> list[CorrectionLine]:
    """The same for a command. Raises ConfigError too."""
    async with database(settings, _WHY) as pool:
        return await read_corrections(pool, since, until)


async def list_waiting(settings: Settings) -> Sequence[Proposal]:
    """Corrections that another person has to agree to, the oldest first. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        return await Corrections(pool).waiting(LINES_MAX)


class _Lines(Table):
    async def read(self, since: datetime | None, until: datetime | None, at_most: int) -> list[CorrectionLine]:
        return [CorrectionLine(*row.values()) for row in await self._rows(_LIST, since, until, at_most, AUTOMATIC)]
