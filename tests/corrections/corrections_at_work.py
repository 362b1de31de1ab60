"""A ledger with a few calls of one user, and `gateway adjust` beside it."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.config.settings import BillingSettings, Settings
from gateway.corrections.booking import correct
from gateway.corrections.change import WantedRow
from gateway.corrections.store import Reason
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent
from tests.support.events import sums_are_right
from tests.support.invoke import Done, gateway
from tests.support.usage import entries, usage

LAST_MONTH: Final = (datetime.now(UTC).replace(day=1) - timedelta(days=3)).replace(minute=20, second=0, microsecond=0)
NANO: Final = 1_000_000_000


class Books:
    """Calls that cost what they say; billed at a mark-up of 1.2."""

    def __init__(self, ledger: Ledger, pool: Pool, database_url: str) -> None:
        self.ledger, self.pool = ledger, pool
        self.env = {"DATABASE_URL": database_url, "BILLING__MARKUP": "1.2", "GATEWAY_OPERATOR": "Ada"}
        self.user = ""

    async def call(self, nano: int | None, **changes: Any) -> UsageEvent:
        """A call of last month that cost so much; None: unpriced."""
        self.user = self.user or await Accounts(self.ledger.pool).create_user("ann@example.com")
        billed = changes.pop("billed", None if nano is None else nano * 6 // 5)
        evidence = changes.pop("evidence", "unpriced" if nano is None else "reported")
        event = usage(self.user, changes.pop("at", LAST_MONTH), billed, cost_nano=nano, evidence=evidence, **changes)
        await self.ledger.insert_batch(entries(event))
        return event

    async def run(self, *arguments: str, why: str | None = "a test", **env: str) -> Done:
        """`gateway …`."""
        reason = () if why is None else ("--why", why)
        return await gateway(self.env | env, *arguments, *reason)

    async def adjust(self, *arguments: str, **env: str) -> Any:
        """What `gateway adjust --yes --json` says; it goes well."""
        done = await self.run("adjust", *arguments, "--yes", "--json", **env)
        assert (done.status, done.error) == (0, ""), done
        return json.loads(done.out)

    async def sums(self) -> tuple[int, int]:
        """Nano-USD: cost and billed amounts of all rows."""
        row = await self.pool.fetchrow(
            "select (coalesce(sum(cost_usd), 0) * 1000000000)::bigint, "
            "(coalesce(sum(billed_usd), 0) * 1000000000)::bigint from openai_usage"
        )
        assert row is not None
        return row[0], row[1]

    async def adjustments(self) -> int:
        """How many rows correct another one; every sum beside the ledger is right."""
        assert await sums_are_right(self.pool)
        return int(await self.pool.fetchval("select count(*) from openai_usage where adjusts is not null"))


async def propose(database_url: str, row_id: str, cost_nano: int) -> str:
    """A correction that waits for somebody else: its id."""
    billing = BillingSettings(four_eyes=True, markup=Decimal(1))
    settings = Settings(database_url=SecretStr(database_url), billing=billing)
    wanted = [WantedRow(row_id, cost_nano=cost_nano, billed_nano=cost_nano)]
    done = await correct(settings, wanted, Reason("a test", None), now=datetime.now(UTC), by="Zoe")
    assert done.is_proposal
    return str(done.id)
