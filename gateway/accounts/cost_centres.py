"""Where the cost of a user or a key belongs, from a day on. Reports join it; no amount depends on it."""

from datetime import UTC, datetime, time
from typing import Final, NamedTuple

from gateway.kit.errors import OptionError
from gateway.stores.postgres import Table
from gateway.trail.record import TrailTransaction

CODE_MAX: Final = 100
_OF: Final = "(user_id = $1::uuid or api_key_id = $2::uuid)"
# What holds at $3 ends there; what was to begin later gives way.
_END: Final = f"""
with gone as (delete from public.cost_centres where {_OF} and valid_from >= $3)
update public.cost_centres set valid_to = $3
where {_OF} and valid_from < $3 and coalesce(valid_to, 'infinity') > $3
"""  # noqa: S608 - a constant of this file
_BEGIN: Final = """
insert into public.cost_centres (user_id, api_key_id, code, valid_from) values ($1::uuid, $2::uuid, $3, $4)
"""
_AT: Final = f"""
select code from public.cost_centres where {_OF} and valid_from <= $3 and coalesce(valid_to, 'infinity') > $3
"""  # noqa: S608 - a constant of this file


class CostCentreOptions(NamedTuple):
    """A cost centre, and the UTC midnight from which on it holds."""

    code: str
    """Empty: none from then on."""
    since: datetime


def cost_centre_options(code: str, since: datetime | None, now: datetime) -> CostCentreOptions:
    """From what was typed; without `since` it is today. Raises OptionError."""
    cleaned = code.strip()
    if len(cleaned) > CODE_MAX or (cleaned and not cleaned.isprintable()):
        raise OptionError(f"--cost-centre: at most {CODE_MAX} printable characters on one line")
    begins = datetime.combine(now.astimezone(UTC).date(), time(), UTC) if since is None else since
    if begins.astimezone(UTC).time() != time():
        raise OptionError("--from: a cost centre begins with a UTC day, because usage is summed by day")
    return CostCentreOptions(cleaned, begins)


async def set_cost_centre(
    record: TrailTransaction, wanted: CostCentreOptions, *, user_id: str | None = None, key_id: str | None = None
) -> dict[str, object]:
    """Sets it for a user or for a key (our ids); what the record of changes says of it. Raises DependencyDown."""
    centres = _CostCentres(record.connections)
    before = await centres.at(user_id, key_id, wanted.since)
    await centres.begin(user_id, key_id, wanted)
    return {"cost_centre": wanted.code or None, "cost_centre_from": wanted.since, "cost_centre_before": before}


class _CostCentres(Table):
    async def at(self, user_id: str | None, key_id: str | None, at: datetime) -> str | None:
        rows = await self._rows(_AT, user_id, key_id, at)
        return rows[0][0] if rows else None

    async def begin(self, user_id: str | None, key_id: str | None, wanted: CostCentreOptions) -> None:
        await self._rows(_END, user_id, key_id, wanted.since)
        if wanted.code:
            await self._rows(_BEGIN, user_id, key_id, wanted.code, wanted.since)
