"""A month's rows are found by indexes: its pack costs what the month has, not what the whole ledger has."""

from datetime import UTC, datetime

import pytest

from gateway.billing.bridge_store import MARGINS
from gateway.close.pack_reads import IDS
from gateway.stores.postgres import Pool


@pytest.mark.parametrize("query", [IDS, MARGINS])
async def test_a_months_rows_are_found_by_indexes(pool: Pool, query: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("set local enable_seqscan = off")
        span = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)
        plan = "\n".join(row[0] for row in await connection.fetch(f"explain {query}", *span))
    assert "Seq Scan" not in plan, plan
    assert "Index Cond: ((created_at >=" in plan, plan
    assert "late_rows_booked_at_idx" in plan, plan
