"""A PostgreSQL server for `doctor`: its version, its settings, our rights. Changes nothing."""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.stores.postgres import Connection

_SERVER: Final = """
select current_setting('server_version_num')::int / 10000, current_setting('server_version'),
  current_setting('synchronous_commit'), current_setting('fsync'),
  pg_is_in_recovery() or current_setting('transaction_read_only')::bool, clock_timestamp(),
  (select rolsuper from pg_roles where rolname = current_user)
"""
_LEDGER: Final = """
select
  has_table_privilege('public.openai_usage', 'insert') and has_table_privilege('public.usage_hourly', 'insert, update')
    and has_table_privilege('public.users', 'select') and has_table_privilege('public.usage_quarantine', 'insert'),
  (select count(*) from public.usage_quarantine where resolved_at is null),
  (select array_agg(model order by model) from (
    select distinct left(model, 100) as model from public.openai_usage
    where evidence = 'unpriced' and created_at > now() - interval '168 hours' limit 20) as lately)
"""


# Its place is where the batch writer goes last; `digest` is unique, so the bytes are new each time.
_WRITE: Final = """
insert into public.usage_quarantine (event_id, raw, reason) values ('probe', uuid_send(gen_random_uuid()), 'a probe')
"""


class PostgresFacts(NamedTuple):
    """The server and this session."""

    major: int
    version: str
    synchronous_commit: str
    fsync: str
    read_only: bool
    now: datetime
    superuser: bool


class LedgerHealth(NamedTuple):
    """Our tables in it."""

    may_write: bool
    quarantined: int
    unpriced: list[str] | None
    """Models whose calls of the last 7 days have no price."""


async def read_server(connection: Connection) -> PostgresFacts:
    """Works on an empty database too."""
    row = await connection.fetchrow(_SERVER)
    assert row is not None
    return PostgresFacts(*row.values())


async def try_write(connection: Connection) -> None:
    """A row, taken back at once. Raises what PostgreSQL says of it; needs every migration."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(_WRITE)
    finally:
        await transaction.rollback()


async def read_ledger(connection: Connection) -> LedgerHealth:
    """Needs every migration."""
    row = await connection.fetchrow(_LEDGER)
    assert row is not None
    return LedgerHealth(*row.values())
