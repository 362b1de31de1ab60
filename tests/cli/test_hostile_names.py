"""Names that steer a terminal, in every table that a command lists: no control character reaches standard output."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from unicodedata import category

import msgspec
import pytest

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.spending import Spending
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from tests.billing.outboxes import reject
from tests.rooms.rooms_at_work import NEW
from tests.rooms.test_rotation import spelled
from tests.support.invoke import Done, gateway
from tests.support.stand_ins import Clock, sandbox_at
from tests.support.usage import entries, usage

HOSTILE: Final = "\x1b[31mred \x1b]8;;http://evil\x1b\\link\x07 \x9b2J \x9d0;title\x9c \u202etxt \r\x08\x7f [bold]=1+1"
"""A colour, an OSC 8 link, C1's CSI and OSC, an override of the reading direction, and what goes back over a line."""
NOW: Final = datetime.now(UTC)
TEN: Final = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)


def control_characters(text: str) -> set[str]:
    """What steers a terminal; LF and CR LF end lines."""
    return {char for char in text.replace("\r\n", "\n") if char != "\n" and category(char) in ("Cc", "Cf", "Cs")}


def test_the_names_are_hostile() -> None:
    assert control_characters(HOSTILE) >= {"\x1b", "\x07", "\x9b", "\x9d", "\u202e", "\r", "\x08", "\x7f"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW.timestamp())) as running:
        yield running


@pytest.fixture
async def env(sandbox: Sandbox, database_url: str, ledger: Ledger, pool: Pool, tmp_path: Path) -> dict[str, str]:
    """A hostile user with a key, a meeting, a budget, credit, a room, usage, a rejected event and a quarantined one."""
    user = await Accounts(ledger.pool).create_user(f"{HOSTILE}@example.com", stripe_customer_id="cus_1")
    await pool.execute("update users set name = $1", HOSTILE)
    key = await Accounts(ledger.pool).link_key(user, "key_ann", name=HOSTILE)
    await pool.execute("update api_keys set description = $1", HOSTILE)
    sandbox.unkey.add_key(
        "sk_canary_0123456789", api_id=credentials.UNKEY_API_ID, key_id="key_ann", external_id=HOSTILE,
        name=HOSTILE + "!", permissions=[f"model.{HOSTILE}", HOSTILE], roles=[HOSTILE],
    )  # fmt: skip
    meeting = await pool.fetchval(
        "insert into meetings (user_id, room_name, started_at, ended_at, duration_seconds, status) "
        "values ($1, $2, $3, $4, 60, 'ended') returning id::text",
        user, HOSTILE, TEN, TEN + timedelta(minutes=1),
    )  # fmt: skip
    call = usage(user, TEN, 5_000, model=HOSTILE, api_key_id=key)
    call = msgspec.structs.replace(call, meeting_id=meeting, service_tier=HOSTILE)
    await ledger.insert_batch(entries(call))
    await ledger.insert_batch([LedgerEntry(HOSTILE, HOSTILE.encode())])
    outbox = Outbox(pool)
    await outbox.freeze_closed(NOW, 300)
    for claim in await outbox.claim(NOW, lease_s=60, events_max=2):
        await reject(outbox, claim, HOSTILE)
    await pool.execute(
        "insert into budgets (user_id, limit_usd, period, model) values ($1, 1, 'day', $2)", user, HOSTILE
    )
    await Spending(pool).add_credit(user, Decimal(1), HOSTILE, HOSTILE)
    await pool.execute("insert into rooms (room_name, sealed, sealed_key_id) values ($1, 'x', $1)", HOSTILE)
    return {
        "DATABASE_URL": database_url,
        "UNKEY_ROOT_KEY": credentials.UNKEY_ROOT_KEY,
        "UNKEY_API_ID": credentials.UNKEY_API_ID,
        "UNKEY_BASE_URL": sandbox.unkey_base_url,
        "ROOMS_KEYS": spelled(NEW),
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
    }


LISTINGS: Final[tuple[str, ...]] = (
    "users list --all",
    "keys list --all",
    "keys list --all --limits",
    "keys show key_ann",
    "keys sync",
    "budgets list",
    "credits list USER",
    "meetings list",
    "quarantine list --all",
    "quarantine show 1",
    "billing held",
    "report usage --by user,key,meeting,model,tier --from 2020-01-01",
    "report meetings --from 2020-01-01",
    "audit --all",
    "rooms check",
    "retention --participants-after 1",
    "config show",
)
NAMELESS: Final = ("audit", "retention", "config")
"""Commands that list no name of the fixture's."""


def shown(done: Done) -> str:
    """Everything that a person would see."""
    return done.out + done.noted


@pytest.mark.parametrize("form", ["", "--json", "--csv"])
async def test_no_listing_steers_the_terminal(env: dict[str, str], pool: Pool, form: str) -> None:
    user = await pool.fetchval("select id::text from users")
    entry = await pool.fetchval("select id::text from usage_quarantine")
    for listing in LISTINGS:
        if form == "--csv" and not listing.startswith("report"):
            continue
        arguments = [
            {"USER": user, "1": entry if "quarantine" in listing else "1"}.get(each, each) for each in listing.split()
        ]
        done = await gateway(env, *arguments, *([form] if form else []))
        assert control_characters(shown(done)) == set(), listing
        assert done.out, (listing, done)
        if not listing.startswith(NAMELESS):
            assert "txt" in done.out, (listing, done.out)
        if form == "--json":
            json.loads(done.out)


async def test_json_keeps_names_exact(env: dict[str, str]) -> None:
    listed = json.loads((await gateway(env, "users", "list", "--json")).out)
    assert [row["name"] for row in listed] == [HOSTILE]


async def test_tables_of_a_foreign_file_do_not_steer_it(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        quoted = '"' + HOSTILE.replace('"', '""') + '"'
        connection.execute(f"create table {quoted} (id integer primary key, room_name text, state text)")
        connection.execute(f"insert into {quoted} values (1, ?, ?)", (HOSTILE, HOSTILE))
    runs: Any = (("import-map", str(file)), ("import-sqlite", str(file), "--dry-run"), ("import-sqlite", str(file)))
    for arguments in runs:
        done = await gateway(env, "rooms", *arguments)
        assert control_characters(shown(done)) == set(), arguments
        assert "txt" in done.out
