"""`gateway billing`: a person sees the events that wait, and what they decide is what happens."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.billing import commands, held
from gateway.billing.outbox import Outbox
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import reject
from tests.support.usage import entries, usage

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW = TEN + timedelta(hours=2)
LATER = NOW + timedelta(hours=21)


@pytest.fixture
async def waiting(ledger: Ledger, pool: Pool) -> list[str]:
    """One rejected and one unknown event, by identifier."""
    outbox = Outbox(pool)
    for number, nano in ((1, 5_000), (2, -1_234_567_000)):
        user = await Accounts(ledger.pool).create_user(f"user{number}@example.com", stripe_customer_id=f"cus_{number}")
        first = usage(user, TEN, 0 if nano < 0 else nano)
        rest = [usage(user, TEN, nano, evidence="adjustment", adjusts=first.id)] if nano < 0 else []
        await ledger.insert_batch(entries(first))
        await ledger.insert_batch(entries(*rest))
    await outbox.freeze_closed(NOW, 300)
    claims = sorted(await outbox.claim(NOW, lease_s=60, events_max=2), key=lambda claim: claim.event.customer)
    await reject(outbox, claims[0], "400: no [meter]")
    assert await outbox.expire_doubtful(LATER) == 1
    return [claim.event.identifier for claim in claims]


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=SecretStr(database_url))


async def test_what_waits_is_listed(waiting: list[str], settings: Settings) -> None:
    out = io.StringIO()
    await commands.list_held(settings, Console(file=out, width=200), as_json=False)
    rejected, unknown = waiting
    lines = {line.split()[0]: line for line in out.getvalue().splitlines()}
    assert "0.000005" in lines[rejected]
    assert "400: no [meter]" in lines[rejected]
    assert "-1.234567" in lines[unknown]
    assert "in doubt" in lines[unknown]
    out = io.StringIO()
    await commands.list_held(settings, Console(file=out), as_json=True)
    assert {row["identifier"]: row["value"] for row in json.loads(out.getvalue())} == {rejected: 5, unknown: -1_234_567}


async def test_both_ways_out(waiting: list[str], settings: Settings, pool: Pool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    rejected, unknown = waiting
    with pytest.raises(OptionError, match="gateway billing held"):
        await held.mark_delivered(settings, identifier=rejected, now=LATER)  # Stripe said no
    await commands.requeue(settings, console, identifier=rejected, now=LATER)
    fresh = await pool.fetchval("select identifier from stripe_meter_events where state = 'pending'")
    await held.mark_delivered(settings, identifier=unknown, now=LATER)
    with pytest.raises(OptionError, match="gateway billing held"):
        await held.requeue(settings, identifier=unknown, now=LATER)
    await commands.list_held(settings, console, as_json=False)
    assert fresh in out.getvalue()
    assert "No meter event waits" in out.getvalue()
    assert (await Outbox(pool).status()).counts == {"pending": 1, "sent": 1}


async def test_without_a_database_the_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        await held.list_held(Settings())
