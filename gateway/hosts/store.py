"""`hosts`: every host that takes calls, with its lease by PostgreSQL's clock."""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.hosts.identity import KnownHost
from gateway.stores.postgres import Table

COUNTED: Final = ("alive", "silent", "lost")
_RENEW: Final = """
insert into public.hosts as h (id, name, lease_until, open_calls, unconfirmed_calls)
values ($1, $2, now() + $3 * interval '1 second', $4, $5)
on conflict (id) do update set name = excluded.name, seen_at = now(), lease_until = excluded.lease_until,
  open_calls = excluded.open_calls, unconfirmed_calls = excluded.unconfirmed_calls, lost_at = null, ended_at = null
"""
_END: Final = """
update public.hosts set ended_at = now(), lease_until = now(), open_calls = 0, unconfirmed_calls = 0 where id = $1
"""
# Of those named, some may be here with a lease, or not at all: they have never reached PostgreSQL.
_LAPSED: Final = """
select h.id::text as id, h.name from public.hosts h where h.ended_at is null and h.lease_until < now()
union
select n.id::text, n.name from unnest($1::uuid[], $2::text[]) as n(id, name)
where not exists (select from public.hosts h where h.id = n.id and h.ended_at is null and h.lease_until >= now())
"""
# Whoever has it keeps it: it knows for how long it has waited for OpenAI.
_CLAIM: Final = """
insert into public.hosts as h (id, name, lease_until, lost_at, sweeper, sweeper_until)
values ($1, $2, now(), now(), $3, now() + $4 * interval '1 second')
on conflict (id) do update set sweeper = excluded.sweeper, sweeper_until = excluded.sweeper_until,
  lost_at = case when h.ended_at is null then coalesce(h.lost_at, now()) else h.lost_at end
where h.lease_until <= now() and (h.sweeper = excluded.sweeper or coalesce(h.sweeper_until <= now(), true))
returning id
"""
_SWEPT: Final = """
update public.hosts set swept_calls = swept_calls + $2, sweeper_until = case when $3 then null else sweeper_until end,
  ended_at = case when $3 and lost_at is not null then coalesce(ended_at, now()) else ended_at end
where id = $1
"""
_STATE: Final = """
case when lost_at is not null then 'lost' when ended_at is not null then 'stopped'
  when seen_at < now() - interval '60 seconds' then 'silent' else 'alive' end
"""
_LIST: Final = f"""
select id::text as id, name, {_STATE} as state, seen_at, lease_until, ended_at, lost_at, open_calls, unconfirmed_calls,
  swept_calls
from public.hosts where ended_at is null or seen_at > now() - interval '720 hours' order by name, seen_at
"""  # noqa: S608 - a constant only
# Of those that are gone, the lost ones of a day: an alarm has an end.
_COUNTS: Final = f"""
select {_STATE} as state, count(*) as hosts from public.hosts
where ended_at is null and lost_at is null or lost_at > now() - interval '24 hours' group by 1
"""  # noqa: S608 - a constant only


class HostRow(NamedTuple):
    """A host as PostgreSQL knows it."""

    id: str
    name: str
    state: str
    """`alive`, `silent` (not seen for a minute), `lost` or `stopped`."""
    seen_at: datetime
    lease_until: datetime
    ended_at: datetime | None
    """When it was stopped with nothing left, or when all that could be settled of a lost one was."""
    lost_at: datetime | None
    open_calls: int
    unconfirmed_calls: int
    swept_calls: int
    """Its calls that others have settled."""


class Hosts(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def renew(self, host: KnownHost, *, lease_s: float, open_calls: int, unconfirmed_calls: int) -> None:
        """This host lives: its lease begins anew."""
        await self._rows(_RENEW, host.id, host.name, lease_s, open_calls, unconfirmed_calls)

    async def end(self, host_id: str) -> None:
        """This host was stopped, and nothing of it is left."""
        await self._rows(_END, host_id)

    async def lapsed(self, named: dict[str, str]) -> list[KnownHost]:
        """Hosts without a lease here that have not ended, and those of `named` (names by id) that have none either."""
        rows = await self._rows(_LAPSED, list(named), list(named.values()))
        return [KnownHost(row["id"], row["name"]) for row in rows]

    async def claim(self, host: KnownHost, sweeper: str, seconds: float) -> bool:
        """Whether this host is lost and `sweeper`'s to settle; then nobody else's for so long."""
        return bool(await self._rows(_CLAIM, host.id, host.name, sweeper, seconds))

    async def record_swept(self, host_id: str, calls: int, *, is_all: bool) -> None:
        """How many calls of a lost host have been settled; with `is_all` nothing of it is left."""
        await self._rows(_SWEPT, host_id, calls, is_all)

    async def every(self) -> list[HostRow]:
        """The hosts that there are, and those that there were in the last 30 days."""
        return [HostRow(*row.values()) for row in await self._rows(_LIST)]

    async def counts(self) -> dict[str, int]:
        """How many hosts are `alive`, `silent`, and `lost` for less than a day."""
        found = {row["state"]: row["hosts"] for row in await self._rows(_COUNTS)}
        return {state: found.get(state, 0) for state in COUNTED}
