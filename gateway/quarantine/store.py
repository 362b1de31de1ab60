"""`usage_quarantine`: what could not become a ledger row, byte for byte, and who resolved it. Holds no rules."""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.stores.postgres import Table

_COLUMNS: Final = (
    "id, event_id, coalesce(kind, sqlstate, 'unknown') as kind, reason, created_at, octet_length(raw) as bytes,"
    " resolved_at, resolved_by, resolution"
)
# Entries, oldest first: those that wait, or all.
_LIST: Final = f"""
select {_COLUMNS} from public.usage_quarantine where $1 or resolved_at is null order by id limit $2
"""  # noqa: S608 - constants of this file
_ONE: Final = f"select {_COLUMNS} from public.usage_quarantine where id = $1"  # noqa: S608 - the same
_RAW: Final = "select raw from public.usage_quarantine where id = $1"
# Entries that wait, the next ones after $1.
_WAITING: Final = """
select id from public.usage_quarantine where resolved_at is null and id > $1 order by id limit 1000
"""
# Only what still waits: of two at once, one is told that it was too late.
_RESOLVE: Final = """
update public.usage_quarantine set resolved_at = now(), resolved_by = $2, resolution = $3
where id = $1 and resolved_at is null returning id
"""


class QuarantinedEntry(NamedTuple):
    """One entry, without its bytes."""

    id: int
    event_id: str | None
    """As the stream named it; need not be a UUID."""
    kind: str
    """Why it is not a row, in a word."""
    reason: str
    created_at: datetime
    bytes: int
    resolved_at: datetime | None
    resolved_by: str | None
    resolution: str | None


class Quarantine(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def entries(self, *, resolved_too: bool, entries_max: int) -> list[QuarantinedEntry]:
        """Oldest first."""
        return [QuarantinedEntry(*row.values()) for row in await self._rows(_LIST, resolved_too, entries_max)]

    async def entry(self, entry_id: int) -> QuarantinedEntry | None:
        """One entry; None when there is none."""
        rows = await self._rows(_ONE, entry_id)
        return QuarantinedEntry(*rows[0].values()) if rows else None

    async def raw(self, entry_id: int) -> bytes:
        """The bytes of an entry that is there."""
        (row,) = await self._rows(_RAW, entry_id)
        return bytes(row["raw"])

    async def waiting(self, after: int) -> list[int]:
        """Ids of the next entries that nobody has resolved."""
        return [row["id"] for row in await self._rows(_WAITING, after)]

    async def resolve(self, entry_id: int, who: str, resolution: str) -> bool:
        """Closes an entry; False when it is closed already, or not there."""
        return bool(await self._rows(_RESOLVE, entry_id, who, resolution))
