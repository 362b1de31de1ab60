"""Plans in a test's database, also ones that began long ago, which no command could make."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.stores.postgres import Pool
from gateway.usage.plans import PlanVersion, digest_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
INSERT = """
insert into plans (name, version, api_key_id, user_id, customer_id, model, endpoint, kind, rates, valid_from, valid_to,
  digest, made_by)
values ($1, $2, $3::uuid, $4::uuid, $5::uuid, $6, $7, $8, $9::jsonb, $10, $11, $12, 'Ada')
"""


def values(plan: PlanVersion) -> tuple[object, ...]:
    """The parameters of INSERT."""
    return (
        plan.name, plan.version, plan.api_key_id, plan.user_id, plan.customer_id, plan.model, plan.endpoint, plan.kind,
        msgspec.json.encode(plan.rates).decode(), plan.valid_from, plan.valid_to, digest_of(plan),
    )  # fmt: skip


def make_plan(name: str, factor: str = "1.5", **changes: Any) -> PlanVersion:
    """A mark-up for everybody since the beginning of 2026, changed by keyword."""
    fields: dict[str, Any] = {"version": 1, "kind": "markup", "rates": {"factor": factor}, "valid_from": BEGAN}
    return PlanVersion(name=name, **{**fields, **changes})


async def plant(pool: Pool, *plans: PlanVersion) -> None:
    """Makes plans as they are, whatever the time is: as a superuser who goes around the trigger that looks at it."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        for plan in plans:
            await connection.execute(INSERT, *values(plan))
