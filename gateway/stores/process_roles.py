"""The group roles of the gateway's processes, which a migration makes, and logins that are members of them."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from gateway.stores.database_mark import connected
from gateway.stores.postgres import Connection

_MISSING: Final = """
select role from unnest($1::text[]) as role where not exists (select from pg_roles where rolname = role) order by role
"""
# One after the other in a transaction: of two that make the same login at once, the second waits for the first.
_MAKE_LOGIN: Final = """
do $do$
begin
  if not exists (select from pg_roles where rolname = '{login}') then
    create role {login} login;
  end if;
  grant {role} to {login};
end $do$
"""


def role_of(process: str) -> str:
    """The group role of this kind of process; it cannot log in itself."""
    return f"gateway_{process}"


async def find_missing(connection: Connection, processes: Iterable[str]) -> list[str]:
    """Of these processes' roles, those that this server does not have."""
    return [row["role"] for row in await connection.fetch(_MISSING, [role_of(each) for each in processes])]


async def make_logins(dsn: str, processes: Iterable[str]) -> dict[str, str]:
    """The DSN of a login for each process, made where it is missing. For a server that trusts who reaches its socket:
    they have no password. Raises DependencyDown.
    """
    made = {}
    async with connected(dsn) as connection:
        for process in processes:
            login = f"{role_of(process)}_login"
            await connection.execute(_MAKE_LOGIN.format(login=login, role=role_of(process)))
            parts = urlsplit(dsn)
            made[process] = parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()
    return made
