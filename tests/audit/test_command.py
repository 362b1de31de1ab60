"""`gateway audit` as people and machines run it: its output, its exit status, its options."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.support.audit_plants import FIRST, SETTLER
from tests.support.audits import audited, fill, lines, segment
from tests.support.invoke import gateway


async def test_a_breach_ends_with_status_1_and_says_where(
    ledger: Ledger, pool: Pool, database_url: str, tmp_path: Path
) -> None:
    filled = await fill(ledger, SETTLER, FIRST, count=5, every=timedelta(minutes=3))
    env = {
        "DATABASE_URL": database_url,
        "GATEWAY_DATA_DIR": str(tmp_path),
        "STRIPE_SECRET_KEY": "sk_test_" + "never_shown" * 3,
        "BILLING__MARKUP": "1.2",
    }
    segment(tmp_path / "journal", 1, lines(filled.maker, filled.events[:5]))
    done, found = await audited(env)
    assert (done.status, found["INV-1"]["state"]) == (0, "ok")
    assert found["INV-3"]["figures"]["billed by another plan than the one in force"] == 0
    assert found["INV-9"]["days"][0].keys() >= {"day", "estimated", "cost_usd", "bound_usd"}

    key = await pool.fetchval("update api_keys set usage_count = usage_count + 1 returning id")
    done, found = await audited(env)
    table = await gateway(env, "audit")
    assert done.status == table.status == 1
    assert [name for name, one in found.items() if one["state"] == "breach"] == ["INV-5"]
    assert (found["INV-5"]["examples"], json.loads(done.out)["breached"]) == ([f"key {key}"], True)
    assert "BREACH" in table.out
    assert str(key) in table.out
    assert "never_shown" not in done.out + done.noted + table.out + table.noted


async def test_an_empty_ledger_on_an_auditors_laptop(database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database_url, "GATEWAY_DATA_DIR": str(tmp_path / "nothing")}
    done, found = await audited(env, "--all", "--stripe")
    assert done.status == 0
    assert {name for name, one in found.items() if one["state"] == "not checked"} == {"INV-1", "INV-7"}
    assert "no journal here" in found["INV-1"]["look"]
    assert "STRIPE_SECRET_KEY" in found["INV-7"]["look"]
    assert not (tmp_path / "nothing").exists()
    assert json.loads(done.out)["from"] is None


async def test_the_used_range_is_printed(database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database_url, "GATEWAY_DATA_DIR": str(tmp_path)}
    done, _ = await audited(env, "--from", "2026-11-20T10:30:00Z", "--to", "2026-11-20T11:30:00Z")
    told = json.loads(done.out)
    assert (told["from"], told["until"]) == ("2026-11-20T10:00:00Z", "2026-11-20T12:00:00Z")
    usual = json.loads((await audited(env))[0].out)
    days = datetime.now(UTC) - datetime.fromisoformat(usual["from"])
    assert 2 <= days.days <= 3
    assert usual["until"] is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--from", "yesterdy"], "--from"),
        (["--from", "2026-11-20", "--to", "2026-11-20"], "--to"),
        (["--all", "--from", "2026-11-20"], "--all"),
    ],
)
async def test_a_wrong_option_is_named(database_url: str, arguments: list[str], named: str) -> None:
    done = await gateway({"DATABASE_URL": database_url}, "audit", *arguments)
    assert (done.status, named in done.error) == (1, True)


async def test_without_a_database() -> None:
    assert "DATABASE_URL" in (await gateway({}, "audit")).error
    away = {"DATABASE_URL": "postgresql://someone:secret-word@127.0.0.1:1/none"}
    done = await gateway(away, "audit")
    assert "postgres" in done.error
    assert "secret-word" not in done.error + done.out


async def test_a_database_without_the_tables(empty_database_url: str) -> None:
    done = await gateway({"DATABASE_URL": empty_database_url}, "audit")
    assert done.status == 1
    assert "does not exist" in done.error
