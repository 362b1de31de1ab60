"""Users as administration looks them up in Postgres. Reads only; users and keys are written by the ledger edge."""

from typing import Any, Final, NamedTuple

import asyncpg

from gateway.core.errors import DependencyDown
from gateway.core.ids import is_uuid

# A user by id or by e-mail address (in any case).
_FIND: Final = """
select id::text as id, email, name, stripe_customer_id, is_active from public.users
where id = $1::uuid or lower(email) = lower($2)
"""


class User(NamedTuple):
    """One account."""

    id: str
    email: str
    name: str | None
    stripe_customer_id: str | None
    is_active: bool


class Accounts:
    """Accounts over one connection pool."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool: Final = pool

    async def find(self, who: str) -> User | None:
        """The user whose id (a UUID) or e-mail address `who` is. Raises DependencyDown("postgres")."""
        by_id = is_uuid(who)
        try:
            row = await self._pool.fetchrow(_FIND, who if by_id else None, None if by_id else who)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DependencyDown("postgres", f"{type(error).__name__}: {error}") from error
        return None if row is None else User(*row.values())
