"""What a killed process leaves at PostgreSQL for a moment: its transaction, with its locks."""

import asyncio
import time

from gateway.stores.postgres import Pool
from tests.support.patience import ENDS_S, LOOK_S

_OPEN_TRANSACTIONS = """select count(*) from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
  and xact_start is not null"""


async def wait_for_rollback(pool: Pool) -> None:
    """Returns once no other connection to the database has an open transaction.

    PostgreSQL ends the transaction of a killed client when it finds the connection closed, a moment after the kill.
    Until then its locks hold, and what skips locked rows finds less.
    """
    deadline_s = time.monotonic() + ENDS_S
    while await pool.fetchval(_OPEN_TRANSACTIONS):
        assert time.monotonic() < deadline_s, "a transaction of a killed process is still open"
        await asyncio.sleep(LOOK_S)
