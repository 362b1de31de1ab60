"""Work at OpenAI that may still say more, as rows of `open_items`: which there are, whose turn it is, how it ended.

Holds no rule about what an answer means. Any number of workers may ask; each item is handed to one at a time.
"""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.openai.families.catalogue import SETTLES_LATER
from gateway.stores.postgres import Table

ESTIMATE: Final = "estimate"
"""A response whose row is an estimate, and whose object OpenAI may have kept."""
# Estimates of stored responses that nobody has asked about yet. OpenAI keeps a response for 30 days, so it reads the
# estimates of 30 days: only for what a worker of another version has left, since new ones are listed with their price
# lines (ADD_UNITS).
_ENLIST: Final = """
insert into public.open_items (id, kind, upstream_id, user_id, api_key_id, meeting_id, endpoint, model, service_tier,
  opened_at, next_poll_at)
select u.id, $1, u.response_id, u.user_id, u.api_key_id, u.meeting_id, u.endpoint, u.model, u.service_tier,
  u.started_at, now()
from public.openai_usage u
where u.evidence = 'estimated' and u.created_at > now() - interval '720 hours' and u.endpoint = any($3::text[])
  and u.response_id is not null and not exists (select from public.open_items o where o.id = u.id)
order by u.created_at limit $2
on conflict do nothing returning id
"""
# What the request asked for is on the estimate's own row (usage/settle); rows of older versions have only the tier
# that OpenAI had named.
# Hands out what is due, and says when it comes again if nobody ends it: each time after twice as long, a day at most.
_CLAIM: Final = """
update public.open_items o set polls = o.polls + 1,
  next_poll_at = now() + least(interval '24 hours', $3 * interval '1 second' * power(2, o.polls))
from (
  select id from public.open_items where state = 'open' and kind = $1 and next_poll_at <= now()
  order by next_poll_at limit $2 for update skip locked
) due
where o.id = due.id
returning o.id::text, o.upstream_id, o.user_id::text, o.api_key_id::text, o.meeting_id::text, o.endpoint, o.model,
  coalesce((select u.metadata->>'service_tier_asked' from public.openai_usage u where u.id = o.id), o.service_tier)
    as service_tier,
  (select u.metadata->>'cache_ttl_asked' from public.openai_usage u where u.id = o.id) as cache_ttl,
  o.opened_at, o.polls
"""
_END: Final = """
update public.open_items set state = $2, last_error = $3, settled_at = now() where id = $1::uuid and state = 'open'
"""
_FAILED: Final = "update public.open_items set last_error = $2 where id = $1::uuid"


class Item(NamedTuple):
    """One call that may become exact; `id` is its event id."""

    id: str
    upstream_id: str
    user_id: str
    api_key_id: str | None
    meeting_id: str | None
    endpoint: str
    model: str
    service_tier: str | None
    """The tier that the request asked for, else the one that OpenAI had named."""
    cache_ttl: str | None
    """The time to live that the request asked for its cache writes."""
    opened_at: datetime
    """The price instant of the call."""
    polls: int


class OpenItems(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def enlist(self, *, rows_max: int) -> int:
        """Takes up estimates that may become exact and that nothing has listed; how many."""
        return len(await self._rows(_ENLIST, ESTIMATE, rows_max, list(SETTLES_LATER)))

    async def claim(self, *, rows_max: int, first_wait_s: float) -> list[Item]:
        """Items whose turn it is. One that is not ended comes again after `first_wait_s` seconds, then twice that, …"""
        return [Item(*row.values()) for row in await self._rows(_CLAIM, ESTIMATE, rows_max, first_wait_s)]

    async def mark_settled(self, item: Item) -> None:
        """It is exact now."""
        await self._rows(_END, item.id, "settled", None)

    async def given_up(self, item: Item, reason: str) -> None:
        """It stays an estimate."""
        await self._rows(_END, item.id, "given_up", reason)

    async def mark_failed(self, item: Item, reason: str) -> None:
        """It could not be asked this time."""
        await self._rows(_FAILED, item.id, reason)
