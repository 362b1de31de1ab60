"""An audit of everything is kept, and others go on from it: what they find and leave, and that nobody can forge it."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts.store import Accounts
from gateway.audit.kept import CHECKED, Kept, keep_mark, read_kept
from gateway.audit.marks import Mark, MarkSigner, MarkSums, digest, find_faults
from gateway.audit.reads.snapshot import AuditRange, Snapshot
from gateway.audit.result import AuditReport
from gateway.billing.outbox import Outbox
from gateway.config.key_ring import entry_of, parse_ring
from gateway.config.settings import Settings
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.doctor.doctors import found
from tests.support.audit_plants import NOW, PLANTS, SETTLER, PlantedLedger
from tests.support.audits import audited, fill, insert
from tests.support.invoke import gateway
from tests.support.usage import entries, usage

SEAL = NOW.replace(day=1, hour=0, minute=0, second=0)
CLOSED = SEAL - timedelta(days=10)
OPEN = max(SEAL, NOW - timedelta(hours=8))
RING = entry_of("one", bytes(32))
SIGNER = MarkSigner(parse_ring(RING))
OF_CLOSED = f"window_start < '{SEAL}'"
ON_THE_WAY = {
    "a key counted twice": "INV-5",
    "a writer's counter lost": "INV-5",
    "an event for more than its window": "INV-6",
    "an event lost": "INV-6",
    "a total of the outbox that is not its sum": "INV-6",
    "credit that paid twice": "INV-11",
    "a window of another payer": "INV-11",
    "accrued amounts that a customer took over without a decision": "INV-6",
}
"""Plants that an audit of the last days finds where a result is kept, and by which invariant."""
CHANGED_WHEN_CLOSED = {
    "a day": (f"update usage_daily set rows = rows + 1 where day < '{SEAL:%Y-%m-%d}'", "INV-5"),
    "what a window was billed": (
        f"update billing_windows set billed_nano = billed_nano + 5, frozen_nano = frozen_nano + 5 where {OF_CLOSED}",
        "INV-6",
    ),
    "two keys": (
        "update api_keys set usage_count = usage_count + case when name = 'other' then 1 else -1 end",
        "INV-5",
    ),
    "credit that nobody was given": (PLANTS["credit that nobody was given"][0], "INV-11"),
}
"""What only an audit of everything can find."""


@pytest.fixture
async def planted(pool: Pool, ledger: Ledger, tmp_path: Path) -> AsyncIterator[PlantedLedger]:
    """A month that is sealed and sent, and a few hours of the next that are not."""
    filled = await fill(ledger, SETTLER, CLOSED, count=20, every=timedelta(minutes=7))
    await Outbox(pool).freeze_closed(NOW, 300)
    await pool.execute("insert into api_keys (user_id, unkey_key_id, name) select id, 'key_b', 'other' from users")
    await pool.fetchval("select seal_books($1)", SEAL)
    async with pool.acquire() as connection:
        yield PlantedLedger(connection, filled, tmp_path / "no journal")


async def kept(planted: PlantedLedger, *, is_whole: bool = False) -> Kept:
    return await read_kept(Snapshot(planted.connection), SIGNER, is_whole=is_whole)


async def audit(planted: PlantedLedger, *, is_whole: bool = False) -> AuditReport:
    async with planted.connection.transaction():
        return await planted.audit(kept=await kept(planted, is_whole=is_whole))


def breaches(report: AuditReport) -> set[str]:
    # What a month is, is not what these tests are about: a window is only late by the clock.
    return {verdict.name for verdict in report.verdicts if verdict.state == "breach"} - {"INV-8"}


async def keep(planted: PlantedLedger, pool: Pool, report: AuditReport | None = None) -> Mark:
    report = report or await audit(planted, is_whole=True)
    assert report.mark is not None
    await keep_mark(pool, SIGNER, report.mark, "a test")
    newest = (await kept(planted)).newest
    assert newest is not None
    return newest


async def use(planted: PlantedLedger, ledger: Ledger, at: datetime, count: int = 5) -> None:
    await insert(ledger, [planted.maker.reported(at + timedelta(seconds=number)) for number in range(count)])


async def test_an_audit_goes_on_from_what_was_kept(planted: PlantedLedger, ledger: Ledger, pool: Pool) -> None:
    mark = await keep(planted, pool)
    assert (mark.until, mark.sums.rows, mark.made_by) == (SEAL, len(planted.events), "a test")
    await use(planted, ledger, OPEN)
    await use(planted, ledger, CLOSED)  # too late for its month
    await insert(ledger, [planted.maker.adjustment(planted.events[0], NOW, -700)])
    for _ in range(2):
        report = await audit(planted)
        assert breaches(report) == set()
        by_name = {verdict.name: verdict.figures for verdict in report.verdicts}
        assert by_name["INV-5"]["rows ever"] == len(planted.events) + 11
        assert "were compared at" in report.kept
        assert report.mark is None  # it has not compared all
        await Outbox(pool).freeze_closed(NOW + timedelta(days=1), 300)
    assert breaches(await audit(planted, is_whole=True)) == set()


@pytest.mark.parametrize("more", [("bill",), ("settle", "--reference", "in_1"), ("write-off", "--why", "a gift")])
async def test_what_becomes_of_accrued_amounts_of_closed_months_is_no_breach(
    planted: PlantedLedger, ledger: Ledger, pool: Pool, database_url: str, more: tuple[str, ...]
) -> None:
    user = await Accounts(pool).create_user("ann@example.com")
    await pool.execute("update books set sealed_until = '-infinity'")
    await ledger.insert_batch(entries(usage(user, CLOSED, 7_000_007), usage(user, OPEN, 3_000_000)))
    await pool.fetchval("select seal_books($1)", SEAL)
    await keep(planted, pool)
    env = {"DATABASE_URL": database_url, "GATEWAY_OPERATOR": "Ada"}
    done = await gateway(
        env, "users", "set", "ann@example.com", "--stripe-customer", "cus_ann", "--accrued", *more, "--yes"
    )
    assert done.error == ""
    of_rows = {"INV-3", "INV-4"}  # these have no more than an amount
    for _ in range(2):  # not frozen yet, and frozen
        assert breaches(await audit(planted)) == of_rows
        await Outbox(pool).freeze_closed(NOW + timedelta(days=1), 300)
    assert breaches(await audit(planted, is_whole=True)) == of_rows


async def test_it_finds_what_is_wrong_on_the_way_and_leaves_the_rest_to_one_of_everything(
    planted: PlantedLedger, ledger: Ledger, pool: Pool
) -> None:
    await keep(planted, pool)
    await use(planted, ledger, OPEN)
    await Outbox(pool).freeze_closed(NOW + timedelta(days=1), 300)
    await ledger.add_units()
    plants: dict[str, tuple[Any, str, bool]] = {
        name: (PLANTS[name][0], invariant, True) for name, invariant in ON_THE_WAY.items()
    }
    plants |= {name: (plant, invariant, False) for name, (plant, invariant) in CHANGED_WHEN_CLOSED.items()}
    for name, (plant, invariant, is_on_the_way) in plants.items():
        transaction = planted.connection.transaction()
        await transaction.start()
        await (planted.unguarded(plant) if isinstance(plant, str) else plant(planted))
        if not is_on_the_way:
            assert invariant in breaches(await audit(planted, is_whole=True)), name
        since = await kept(planted)
        assert since.since is not None, name
        # Its rows are of a range in which the closed month is not.
        broken = breaches(await planted.audit(AuditRange(SEAL, None), kept=since))
        assert (invariant in broken) == is_on_the_way, (name, broken)
        await transaction.rollback()


async def test_what_is_wrong_is_not_kept(planted: PlantedLedger) -> None:
    transaction = planted.connection.transaction()
    await transaction.start()
    await planted.unguarded("update api_keys set usage_count = usage_count + 1")
    assert (await audit(planted, is_whole=True)).mark is None
    await transaction.rollback()


async def test_a_mark_that_was_forged_or_changed_is_a_breach_and_is_not_gone_on_from(
    planted: PlantedLedger, pool: Pool
) -> None:
    await keep(planted, pool)
    await keep(planted, pool)
    for change in (
        "update audit_marks set rows = rows + 1 where previous is not null",
        "update audit_marks set rows = rows + 1 where previous is null",
        "insert into audit_marks (until, as_of, made_by, rows, key_calls, owed_nano, credit_nano, previous, mac)"
        " select until, as_of, made_by, rows, key_calls, owed_nano, credit_nano, mac, mac from audit_marks"
        " where previous is not null",
    ):
        transaction = planted.connection.transaction()
        await transaction.start()
        await planted.connection.execute("alter table audit_marks disable trigger all")
        await planted.connection.execute(change)
        changed = await kept(planted)
        assert changed.since is None
        report = await planted.audit(kept=changed)
        assert breaches(report) == {"INV-5"}
        await transaction.rollback()
    with pytest.raises(Exception, match="append"):
        await pool.execute("update audit_marks set rows = 1")


def test_a_secret_that_is_gone_proves_old_marks_through_newer_ones() -> None:
    marks: list[Mark] = []
    for number, secret in enumerate((b"1", b"1", b"2")):
        signer = MarkSigner(parse_ring(entry_of("x", secret * 32)))
        previous = digest(marks[0]) if marks else None
        marks.insert(0, signer.sign(Mark(SEAL, NOW, f"{number}", MarkSums(number, 2, 3, 4), previous)))
    new = MarkSigner(parse_ring(entry_of("y", b"2" * 32)))
    assert find_faults(marks, new) == []
    assert find_faults(marks[1:], new) != []
    marks[2] = marks[2]._replace(sums=MarkSums(9, 9, 9, 9))
    assert len(find_faults(marks, new)) == 1
    assert find_faults(marks[:CHECKED], new) == []


async def test_the_command_keeps_one_and_says_what_it_went_on_from(
    planted: PlantedLedger, pool: Pool, database_url: str, tmp_path: Path
) -> None:
    env = {"DATABASE_URL": database_url, "GATEWAY_DATA_DIR": str(tmp_path), "GATEWAY_OPERATOR": "Ada"}
    told = json.loads((await audited(env, "--all"))[0].out)
    assert "GATEWAY_SECRETS" in told["kept"]
    assert await pool.fetchval("select count(*) from audit_marks") == 0
    env["GATEWAY_SECRETS"] = RING
    assert "no result is kept" in json.loads((await audited(env))[0].out)["kept"]
    assert "audits go on from" in json.loads((await audited(env, "--all"))[0].out)["kept"]
    told = json.loads((await audited(env))[0].out)
    assert "(gateway audit --all, Ada) and found right" in told["kept"]
    assert not told["breached"]
    (says,) = await found("audit", Settings.of(env))
    assert (says.level, "(gateway audit --all, Ada)" in says.says) == ("ok", True)
    async with pool.acquire() as connection:
        await connection.execute("alter table audit_marks disable trigger all")
        await connection.execute("update audit_marks set as_of = as_of - interval '2160 hours'")
    (says,) = await found("audit", Settings.of(env))
    assert (says.level, "not genuine" in says.says) == ("warn", True)
