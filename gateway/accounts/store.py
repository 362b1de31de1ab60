"""Users and keys in Postgres, for administration. Never on the hot path; never deletes a row.

No secret of a key is here: Unkey has only its hash, we have only Unkey's id of it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg
import msgspec
from msgspec import UNSET, UnsetType

from gateway.kit.ids import is_uuid
from gateway.stores.postgres import Table

_USER: Final = "id::text as id, email, name, stripe_customer_id, is_active"
# A user by id or by e-mail address (in any case).
_FIND: Final = f"select {_USER} from public.users where id = $1::uuid or lower(email) = lower($2)"  # noqa: S608 - names
# A new user; nothing when the address (in any case) is some user's already.
_CREATE: Final = f"""
insert into public.users (email, name, stripe_customer_id) values (lower($1), $2, $3)
on conflict do nothing returning {_USER}
"""  # noqa: S608 - as above
# Makes a user, or finds the one with this e-mail address (in any case).
_FIND_OR_CREATE: Final = """
insert into public.users as u (email, stripe_customer_id) values (lower($1), $2)
on conflict (lower(email)) do update
  set stripe_customer_id = coalesce(u.stripe_customer_id, excluded.stripe_customer_id)
returning u.id::text
"""
# Stripe customers, those who owe something that is not frozen yet first, then those of the newest users; $1 at most.
_CUSTOMERS: Final = """
select u.stripe_customer_id from public.users u where u.stripe_customer_id is not null
order by exists (
  select from public.billing_windows w where w.open
    and (w.user_id = u.id or w.customer_id = (
      select c.id from public.customers c where c.stripe_customer_id = u.stripe_customer_id))
) desc, u.created_at desc
limit $1
"""
_SET_ACTIVE: Final = "update public.users set is_active = $2 where id = $1::uuid and is_active <> $2 returning 1"
_SET_NAME: Final = "update public.users set name = $2 where id = $1::uuid"
_SET_CUSTOMER: Final = "update public.users set stripe_customer_id = $2 where id = $1::uuid"
# Users with the number of their keys that can be used; deactivated users only when asked ($1).
_USERS: Final = """
select u.id::text as id, u.email, u.name, u.stripe_customer_id, u.is_active, u.created_at,
  (select count(*) from public.api_keys k
    where k.user_id = u.id and k.is_active and (k.expires_at is null or k.expires_at > $2::timestamptz)) as active_keys
from public.users u
where $1 or u.is_active
order by u.created_at, u.id
"""
_KEYS: Final = """
select k.id::text as id, k.unkey_key_id, k.user_id::text as user_id, u.email, u.is_active as user_is_active, k.name,
  k.description, k.is_active, k.usage_count, k.last_used_at, k.expires_at, k.revoked_at, k.created_at
from public.api_keys k join public.users u on u.id = k.user_id
"""
# Keys of one user, or all; oldest first.
_LIST_KEYS: Final = f"{_KEYS} where $1::uuid is null or k.user_id = $1 order by k.created_at, k.id"
# A key by our id or by Unkey's.
_KEY: Final = f"{_KEYS} where k.id = $1::uuid or k.unkey_key_id = $2"
# Keys by Unkey's ids.
_KEYS_OF: Final = f"{_KEYS} where k.unkey_key_id = any($1::text[])"
# A page ($2) of the keys that are not revoked, in the order of our ids, after one of them ($1).
_UNREVOKED: Final = f"{_KEYS} where k.revoked_at is null and ($1::uuid is null or k.id > $1) order by k.id limit $2"
# What is not revoked may change; $2, $4 and $6 say whether the value after them is meant.
_CHANGE_KEY: Final = """
update public.api_keys set
  name = case when $2 then $3 else name end,
  description = case when $4 then $5 else description end,
  expires_at = case when $6 then $7::timestamptz else expires_at end,
  enabled_at = case when $6 then now() else enabled_at end
where id = $1::uuid and revoked_at is null returning 1
"""
_SET_KEY_ACTIVE: Final = """
update public.api_keys set is_active = $2, enabled_at = case when $2 then now() else enabled_at end
where id = $1::uuid and revoked_at is null returning 1
"""
# $2 to $4 are the values to be, $5 to $7 those that were read: what has changed since is not overwritten.
_AGREE: Final = """
update public.api_keys set name = $2, is_active = $3, expires_at = $4::timestamptz,
  enabled_at = case when $3 and (not is_active or expires_at is distinct from $4) then now() else enabled_at end
where id = $1::uuid and revoked_at is null
  and name is not distinct from $5 and is_active = $6 and expires_at is not distinct from $7::timestamptz
returning 1
"""
_ADOPT: Final = """
insert into public.api_keys (user_id, unkey_key_id, name, is_active, expires_at)
values ($1::uuid, $2, $3, $4, $5) on conflict (unkey_key_id) do nothing returning 1
"""
# Links a key at Unkey to a user; a key that already belongs to another user is not changed, and nothing is returned.
_LINK: Final = """
insert into public.api_keys as k (user_id, unkey_key_id, name, description, expires_at)
values ($1::uuid, $2, $3, $4, $5)
on conflict (unkey_key_id) do update
  set name = excluded.name, description = excluded.description, expires_at = excluded.expires_at
  where k.user_id = excluded.user_id
returning k.id::text
"""
# The budgets of one key ($1) for another ($2) of the same user as well; what was spent stays with the first.
_CARRY_BUDGETS: Final = """
insert into public.budgets (user_id, api_key_id, meeting_id, model, period, is_hard, limit_usd)
select user_id, $2::uuid, meeting_id, model, period, is_hard, limit_usd
from public.budgets where api_key_id = $1::uuid and is_active
on conflict on constraint budgets_key do nothing returning 1
"""
# Deactivates a key; it stays, because ledger rows point at it. Idempotent: the first one wins.
_REVOKE_KEY: Final = """
update public.api_keys set is_active = false, revoked_at = coalesce(revoked_at, now())
where id = $1::uuid returning revoked_at
"""


class User(NamedTuple):
    """One account."""

    id: str
    email: str
    name: str | None
    stripe_customer_id: str | None
    is_active: bool


class UserRow(NamedTuple):
    """One account with what a list shows beside it."""

    id: str
    email: str
    name: str | None
    stripe_customer_id: str | None
    is_active: bool
    created_at: datetime
    active_keys: int
    """Keys that are neither revoked nor expired."""


class KeyRow(NamedTuple):
    """One linked key; never its secret."""

    id: str
    """Ours, as in `openai_usage.api_key_id`."""
    unkey_key_id: str
    user_id: str
    email: str
    user_is_active: bool
    name: str | None
    description: str | None
    is_active: bool
    usage_count: int
    """Ledger rows with this key that correct no other one."""
    last_used_at: datetime | None
    """When the last of them was completed."""
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class KeyFields(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes different at a key: UNSET stays as it is, None is cleared."""

    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET


class Accounts(Table):
    """Accounts over one connection pool. Every method raises DependencyDown("postgres")."""

    async def find(self, who: str) -> User | None:
        """The user whose id (a UUID) or e-mail address `who` is."""
        by_id = is_uuid(who)
        return _user(await self._rows(_FIND, who if by_id else None, None if by_id else who))

    async def create(self, email: str, *, name: str | None, stripe_customer_id: str | None) -> User | None:
        """A new user; None when the address (in any case) belongs to one already."""
        return _user(await self._rows(_CREATE, email, name, stripe_customer_id))

    async def create_user(self, email: str, *, stripe_customer_id: str | None = None) -> str:
        """The id of the user with this address, who is made if need be. An existing Stripe customer is kept."""
        return str((await self._rows(_FIND_OR_CREATE, email, stripe_customer_id))[0][0])

    async def customers(self, *, at_most: int) -> list[str]:
        """Stripe customers of users, those first who owe something that is not frozen yet."""
        return [row["stripe_customer_id"] for row in await self._rows(_CUSTOMERS, at_most)]

    async def set_active(self, user_id: str, *, is_active: bool) -> bool:
        """Whether that changed anything."""
        return bool(await self._rows(_SET_ACTIVE, user_id, is_active))

    async def set_name(self, user_id: str, name: str | None) -> None:
        """Gives a user another name, or none."""
        await self._rows(_SET_NAME, user_id, name)

    async def set_stripe_customer(self, user_id: str, stripe_customer_id: str | None) -> None:
        """Links a user to a Stripe customer, which may pay for others too, or to none; from now on."""
        await self._rows(_SET_CUSTOMER, user_id, stripe_customer_id)

    async def users(self, *, now: datetime, inactive_too: bool) -> list[UserRow]:
        """All users, oldest first; the deactivated ones only when asked. `now` decides which keys have expired."""
        return [UserRow(*row.values()) for row in await self._rows(_USERS, inactive_too, now)]

    async def keys(self, user_id: str | None = None) -> list[KeyRow]:
        """All linked keys, oldest first, or those of one user."""
        return [KeyRow(*row.values()) for row in await self._rows(_LIST_KEYS, user_id)]

    async def key(self, reference: str) -> KeyRow | None:
        """The key whose id, ours (a UUID) or Unkey's, this is."""
        rows = await self._rows(_KEY, reference if is_uuid(reference) else None, reference)
        return KeyRow(*rows[0].values()) if rows else None

    async def revoke_key(self, api_key_id: str) -> datetime | None:
        """Deactivates a key here (Unkey is told elsewhere): when it was first revoked; None when there is none."""
        rows = await self._rows(_REVOKE_KEY, api_key_id)
        return rows[0][0] if rows else None

    async def set_key_active(self, api_key_id: str, *, is_active: bool) -> bool:
        """Disables a key, or enables it again; False, and nothing done, when it is revoked."""
        return bool(await self._rows(_SET_KEY_ACTIVE, api_key_id, is_active))

    async def change_key(self, api_key_id: str, change: KeyFields) -> bool:
        """Changes what is set in `change`; False, and nothing done, when the key is revoked."""
        given = [
            part
            for value in (change.name, change.description, change.expires_at)
            for part in (value is not UNSET, None if value is UNSET else value)
        ]
        return bool(await self._rows(_CHANGE_KEY, api_key_id, *given))

    async def keys_of(self, unkey_key_ids: Sequence[str]) -> dict[str, KeyRow]:
        """Those of these keys that are linked, by Unkey's id."""
        rows = [KeyRow(*row.values()) for row in await self._rows(_KEYS_OF, list(unkey_key_ids))]
        return {row.unkey_key_id: row for row in rows}

    async def unrevoked_keys(self, after: str | None, most: int) -> list[KeyRow]:
        """At most so many keys that are not revoked, in the order of our ids, from the first after `after` on."""
        return [KeyRow(*row.values()) for row in await self._rows(_UNREVOKED, after, most)]

    async def agree(self, row: KeyRow, *, name: str | None, is_active: bool, expires_at: datetime | None) -> bool:
        """Makes a key so, if it still is as `row` was read; False, and nothing done, otherwise."""
        was = (row.name, row.is_active, row.expires_at)
        return bool(await self._rows(_AGREE, row.id, name, is_active, expires_at, *was))

    async def link_key(
        self,
        user_id: str,
        unkey_key_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        expires_at: datetime | None = None,
    ) -> str:
        """Links a key at Unkey to a user and returns our id of it. Raises ValueError when it is another user's."""
        rows = await self._rows(_LINK, user_id, unkey_key_id, name, description, expires_at)
        if not rows:
            raise ValueError(f"key {unkey_key_id} belongs to another user")
        return str(rows[0][0])

    async def adopt_key(
        self, user_id: str, unkey_key_id: str, *, name: str | None, is_active: bool, expires_at: datetime | None
    ) -> bool:
        """Links a key that was found at Unkey to its user; False when somebody has linked it already."""
        return bool(await self._rows(_ADOPT, user_id, unkey_key_id, name, is_active, expires_at))

    async def carry_budgets(self, from_key: str, to_key: str) -> int:
        """Gives a key (our id) the budgets of another one of its user; how many."""
        return len(await self._rows(_CARRY_BUDGETS, from_key, to_key))


def _user(rows: "list[asyncpg.Record]") -> User | None:
    return User(*rows[0].values()) if rows else None
