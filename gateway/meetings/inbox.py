"""Daily.co's events in `webhook_inbox`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.meetings.event_store import EventTransaction
from gateway.stores.webhook_inbox import WebhookInbox


class Inbox(WebhookInbox):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    source = "daily"

    @asynccontextmanager
    async def next_event(self) -> AsyncIterator[EventTransaction | None]:
        """One event that is due, in a transaction that ends with the block; None when there is none.

        Whatever the block raises undoes everything, and the event stays as it was. Raises NotApplied as well.
        """
        async with self._next() as (connection, row):
            yield (
                None if row is None else EventTransaction(connection, self.source, row["event_id"], bytes(row["body"]))
            )
