"""`gateway billing`: the older commands are names for decisions, and do what they did."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.billing import commands, held
from gateway.billing.held import WantedDecision
from gateway.billing.outbox import Outbox
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import reject
from tests.support.usage import entries, usage

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW = TEN + timedelta(hours=2)
LATER = NOW + timedelta(hours=21)


@pytest.fixture
async def waiting(ledger: Ledger, pool: Pool) -> list[str]:
    """A rejected, an unknown, and another rejected event, by identifier."""
    outbox = Outbox(pool)
    for number, nano in ((1, 5_000), (2, 1_234_567_000), (3, 7_000)):
        user = await Accounts(ledger.pool).create_user(f"user{number}@example.com", stripe_customer_id=f"cus_{number}")
        await ledger.insert_batch(entries(usage(user, TEN, nano)))
    await outbox.freeze_closed(NOW, 300)
    claims = sorted(await outbox.claim(NOW, lease_s=60, events_max=3), key=lambda claim: claim.event.customer)
    for claim in (claims[0], claims[2]):
        await reject(outbox, claim, "400: no [meter]")
    assert await outbox.expire_doubtful(LATER) == 1
    return [claim.event.identifier for claim in claims]


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=SecretStr(database_url))


async def test_what_waits_is_listed(waiting: list[str], settings: Settings) -> None:
    out = io.StringIO()
    await commands.list_held(settings, Console(file=out, width=200), form="json", now=LATER)
    values = {row["identifier"]: row["value"] for row in json.loads(out.getvalue())}
    assert values == dict(zip(waiting, (5, 1_234_567, 7), strict=True))


async def test_both_ways_out(waiting: list[str], settings: Settings, pool: Pool) -> None:
    rejected, unknown, other = waiting
    again = WantedDecision("reissue", "a test", identifier=rejected, is_forced=True)
    (sent,) = await held.decide(settings, again, now=LATER, is_sure=True)
    delivered = WantedDecision("delivered", "a test", identifier=unknown, is_forced=True)
    await held.decide(settings, delivered, now=LATER, is_sure=True)
    (gone,) = await held.decide(
        settings, WantedDecision("write-off", "small", identifier=other), now=LATER, is_sure=True
    )
    assert gone.is_done
    out = io.StringIO()
    await commands.list_held(settings, Console(file=out, width=200), form="table", now=LATER)
    assert "No meter event waits" in out.getvalue()
    assert sent.made is not None
    assert (await Outbox(pool).status()).counts == {"pending": 1, "sent": 1, "superseded": 1, "written_off": 1}


async def test_without_a_database_the_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        await held.list_held(Settings())
