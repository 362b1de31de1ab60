"""Users, what they use, and the commands about who pays for them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.config.settings import Settings
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.support.events import sums_are_right
from tests.support.invoke import Done, gateway
from tests.support.usage import entries, usage

NOW: Final = datetime.now(UTC)
HOUR: Final = NOW.replace(minute=0, second=0, microsecond=0)
USD: Final = 1_000_000_000


class Office:
    """Users, what they use, and commands about who pays."""

    def __init__(self, ledger: Ledger, pool: Pool, database_url: str) -> None:
        self.ledger, self.pool = ledger, pool
        self.env = {"DATABASE_URL": database_url, "GATEWAY_OPERATOR": "Ada"}
        self.settings = Settings(database_url=SecretStr(database_url))

    async def run(self, *arguments: str) -> Done:
        return await gateway(self.env, *arguments)

    async def link(self, who: str, customer: str, *more: str) -> Done:
        return await self.run("users", "set", f"{who}@example.com", "--stripe-customer", customer, *more)

    async def uses(self, who: str, nano: int, at: datetime) -> None:
        user = await Accounts(self.ledger.pool).create_user(f"{who}@example.com")
        await self.ledger.insert_batch(entries(usage(user, at, nano)))

    async def windows(self) -> dict[str, tuple[int, int]]:
        """Billed and settled nano-USD, by who owes it."""
        rows = await self.pool.fetch(
            "select coalesce(c.stripe_customer_id, u.email) as payer, sum(w.billed_nano)::bigint as billed,"
            " sum(w.settled_nano)::bigint as settled from billing_windows w"
            " left join customers c on c.id = w.customer_id left join users u on u.id = w.user_id group by 1"
        )
        assert await sums_are_right(self.pool)
        return {row["payer"]: (row["billed"], row["settled"]) for row in rows}

    async def sent(self) -> dict[str, int]:
        """Micro-USD frozen for each customer."""
        await Outbox(self.pool).freeze_closed(NOW + timedelta(days=1), 300)
        rows = await self.pool.fetch("select customer, sum(value)::bigint as value from stripe_meter_events group by 1")
        return {row["customer"]: row["value"] for row in rows}

    async def json(self, *arguments: str) -> Any:
        done = await self.run(*arguments, "--json")
        assert done.error == ""
        return json.loads(done.out)
