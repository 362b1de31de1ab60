"""Stripe's events in `webhook_inbox`. One is leased while it is worked on: Stripe is asked meanwhile, and no
transaction waits for that.
"""

from typing import Final, NamedTuple

from gateway.stores.webhook_inbox import ATTEMPTS_MAX, WebhookInbox

LEASE_S: Final = 60.0
"""Seconds after which another worker takes an event up that one has left."""
_LEASE: Final = """
update public.webhook_inbox set next_attempt_at = now() + $3 * interval '1 second'
where source = $1 and event_id = (
  select event_id from public.webhook_inbox
  where source = $1 and processed_at is null and next_attempt_at <= now() and attempts < $2
  order by next_attempt_at, received_at limit 1 for update skip locked)
returning event_id, body
"""
_DONE: Final = """
update public.webhook_inbox set processed_at = now(), last_error = $3
where source = $1 and event_id = $2 and processed_at is null
"""
_RELEASE: Final = """
update public.webhook_inbox set next_attempt_at = now() where source = $1 and event_id = $2 and processed_at is null
"""


class Leased(NamedTuple):
    """An event in hand."""

    id: str
    body: bytes


class StripeInbox(WebhookInbox):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    source = "stripe"

    async def lease(self) -> Leased | None:
        """One event that is due; None when there is none."""
        async with self._connection() as connection:
            row = await connection.fetchrow(_LEASE, self.source, ATTEMPTS_MAX, LEASE_S)
        return None if row is None else Leased(row["event_id"], bytes(row["body"]))

    async def done(self, event_id: str, remark: str | None = None) -> None:
        """It is dealt with. `remark`: why nothing was done."""
        async with self._connection() as connection:
            await connection.execute(_DONE, self.source, event_id, remark)

    async def release(self, event_id: str) -> None:
        """It is due again at once: what it needs is away."""
        async with self._connection() as connection:
            await connection.execute(_RELEASE, self.source, event_id)
