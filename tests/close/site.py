"""A gateway's stores with one month of usage, to be closed."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.kit.clock import now
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.usage.event import UsageEvent
from gateway.usage.settle import Settler
from tests.close.packs import BOOK
from tests.support.audits import Maker, insert, lines, segment
from tests.support.invoke import Done, gateway

SETTLER: Final = Settler(BOOK, markup=Decimal("1.2"), bill_estimates=True, region=None)
FIRST: Final = datetime(2026, 9, 3, 10, tzinfo=UTC)
SEPTEMBER: Final = datetime(2026, 9, 1, tzinfo=UTC)
OCTOBER: Final = datetime(2026, 10, 1, tzinfo=UTC)
ACCEPTED: Final = {"openai": "compared by hand", "audit": "a test of its own", "stripe": "another test"}
ACCEPT: Final = tuple(each for item, why in ACCEPTED.items() for each in ("--accept", f"{item}={why}"))
KEY_TEXT: Final = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"""SIGNING_KEY as the setting has it."""


class Site:
    """A gateway's stores with one month of usage, and how commands reach them."""

    def __init__(self, pool: Pool, ledger: Ledger, env: dict[str, str], data: Path) -> None:
        self.pool, self.ledger, self.env, self.data = pool, ledger, env, data
        self.maker: Maker
        self.events: list[UsageEvent] = []

    async def fill(self, count: int = 40) -> None:
        """Calls of a user with a customer, all of them priced and at Stripe, and a journal that knows them."""
        user = await Accounts(self.pool).create_user("ann@example.com", stripe_customer_id="cus_ann")
        self.maker = Maker(user, await Accounts(self.pool).link_key(user, "key_ann"), SETTLER)
        self.events = [self.maker.reported(FIRST + timedelta(minutes=7 * number)) for number in range(count)]
        await insert(self.ledger, self.events)
        segment(self.data / "journal", 1, lines(self.maker, self.events), confirmed=True)
        await self.bill()

    async def bill(self) -> None:
        """All that may be frozen is at Stripe."""
        await Outbox(self.pool).freeze_closed(now(), 300)
        await self.pool.execute(
            "update stripe_meter_events set state = 'sent', delivered_at = now(), next_attempt_at = null"
            " where state = 'pending'"
        )

    async def close(self, *arguments: str) -> Done:
        return await gateway(self.env, "close", *arguments)

    async def told(self, *arguments: str) -> dict[str, Any]:
        """The same as JSON, which it has to be whatever the exit status."""
        done = await self.close(*arguments, "--json")
        assert done.error == "", done.error
        answer: dict[str, Any] = json.loads(done.out)
        assert done.status == (1 if answer["refused"] else 0)
        return answer


def items(findings: list[dict[str, Any]]) -> dict[str, tuple[int, str | None]]:
    """All but the audit's, which has tests of its own."""
    return {each["item"]: (each["count"], each["usd"]) for each in findings if each["item"] != "audit"}
