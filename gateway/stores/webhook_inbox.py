"""`webhook_inbox`: events are stored before they are acknowledged, and taken up in any order, each by one at a time.

A repeat has the key of its first and changes nothing.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar, Final, NamedTuple

import asyncpg

from gateway.stores.postgres import Table

ATTEMPTS_MAX: Final = 20
"""Failures after which an event waits for a person."""
_REFUSED: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.SyntaxOrAccessError,
)
_STORE: Final = """
insert into public.webhook_inbox (source, event_id, event_type, occurred_at, body)
select $1, * from unnest($2::text[], $3::text[], $4::timestamptz[], $5::bytea[])
on conflict do nothing returning event_id
"""
_TAKE: Final = """
select event_id, event_type, body from public.webhook_inbox
where source = $1 and processed_at is null and next_attempt_at <= now() and attempts < $2
order by next_attempt_at, received_at limit 1 for update skip locked
"""
_FAILED: Final = """
update public.webhook_inbox set attempts = greatest(attempts + 1, $4), last_error = left($3, 500),
  next_attempt_at = now() + least(interval '1 hour', interval '5 seconds' * power(2, attempts))
where source = $1 and event_id = $2 and processed_at is null
"""
_AGAIN: Final = """
update public.webhook_inbox set attempts = 0, next_attempt_at = now()
where source = $1 and processed_at is null and attempts > 0 returning event_id
"""
_COUNTS: Final = """
select count(*) filter (where waits_for is null and attempts = 0) as new,
  count(*) filter (where waits_for is not null) as waiting, count(*) filter (where attempts > 0) as failed,
  count(*) filter (where attempts >= $2) as given_up, min(received_at) as oldest,
  (select count(*) from public.webhook_inbox where source = $1 and lapsed_at > now() - interval '24 hours') as lapsed
from public.webhook_inbox where source = $1 and processed_at is null
"""


class NotApplied(Exception):
    """PostgreSQL refuses what an event would write; the message says how, without what."""


class WebhookEvent(NamedTuple):
    """One webhook, as received."""

    id: str
    type: str
    occurred_at: datetime | None
    body: bytes


class InboxCounts(NamedTuple):
    """Numbers of unfinished and recently lapsed events."""

    new: int
    waiting: int
    """For what nobody has told about yet: a meeting."""
    failed: int
    given_up: int
    """Of these, those that wait for a person."""
    oldest: datetime | None
    lapsed: int
    """Dealt with in the last day because no meeting was told: visits under 30 seconds."""


class WebhookInbox(Table):
    """The events of one source over one pool. Every method raises DependencyDown("postgres")."""

    source: ClassVar[str]

    async def store(self, events: Sequence[WebhookEvent]) -> set[str]:
        """Commits events; the ids of those that were new."""
        columns = [list(column) for column in zip(*events, strict=True)]
        async with self._connection() as connection:
            return {row[0] for row in await connection.fetch(_STORE, self.source, *columns)}

    @asynccontextmanager
    async def _next(self) -> AsyncIterator[tuple[Any, Any]]:
        """A connection in a transaction that ends with the block, and the event that is due, locked, or None.

        Whatever the block raises undoes everything, and the event stays as it was. Raises NotApplied as well.
        """
        async with self._connection() as connection, connection.transaction():
            row = await connection.fetchrow(_TAKE, self.source, ATTEMPTS_MAX)
            try:
                yield connection, row
            except _REFUSED as error:
                raise NotApplied(type(error).__name__) from None

    async def mark_failed(self, event_id: str, reason: str, *, for_good: bool = False) -> None:
        """An event could not be applied: it is retried after a time that doubles with each failure. `for_good`: another
        attempt would read the same bytes, so it waits for a person at once, with the reason."""
        least = ATTEMPTS_MAX if for_good else 0
        async with self._connection() as connection:
            await connection.execute(_FAILED, self.source, event_id, reason, least)

    async def retry_failed(self) -> int:
        """Queues every failed event again; returns how many."""
        async with self._connection() as connection:
            return len(await connection.fetch(_AGAIN, self.source))

    async def counts(self) -> InboxCounts:
        """What is not done."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_COUNTS, self.source, ATTEMPTS_MAX)
        return InboxCounts(*row.values())
