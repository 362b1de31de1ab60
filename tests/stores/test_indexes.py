"""No statement of a process has to read a table from end to end that grows with what is used."""

from typing import Final

from gateway.stores.postgres import Pool
from tests.support.statements import modules, plan_of, scans, statements_of

FIXED: Final = {
    *("books", "plan_changes", "outbox_totals", "flush_counters", "database_mark", "summed_months", "periods"),
    *("plans", "customers", "user_customers", "users", "hosts", "audit_marks"),
}
"""Tables that grow with customers, hosts or versions, or by a row a month; not with what is used."""
ASKED_BY_PEOPLE: Final = (
    *("gateway.audit", "gateway.reports", "gateway.billing.bridge_store", "gateway.billing.explain"),
    "gateway.close.pack_reads",
)
"""They add up a range of time, or all of it."""


async def test_every_statement_finds_its_rows_by_an_index(pool: Pool) -> None:
    """Planned for any parameters, where a table is only read from end to end if nothing else is possible."""
    wrong, planned = [], 0
    async with pool.acquire() as connection:
        await connection.execute("set enable_seqscan = off")
        for module in modules():
            for query in sorted(() if module.startswith(ASKED_BY_PEOPLE) else statements_of(module)):
                planned += 1
                if scanned := sorted(scans(await plan_of(connection, query)) - FIXED):
                    wrong.append(f"{module}: {' '.join(query.split())[:120]}: reads all of {', '.join(scanned)}")
    assert planned > 200
    assert wrong == []
