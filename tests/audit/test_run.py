"""The audit finds what it is there to find: each bug is planted in a real database, and only its invariant breaks.

A plant is made in the transaction that the audit reads in and is rolled back, so one filled ledger serves them all.
"""

import contextlib
import fcntl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from gateway.audit.reads.snapshot import AuditRange, snapshot
from gateway.audit.result import AuditReport, InvariantResult
from gateway.audit.run import audit
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.billing.windows import Delivered, MeterEvent
from gateway.journal.frames import NOTE, OPEN, SETTLE, frame
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from gateway.usage.event import NoteRecord, encode
from pricing.readers.body import Said
from tests.conftest import METER, WINDOW_S
from tests.support.audit_plants import (
    BOOK,
    EVERYTHING,
    FIRST,
    LATER,
    NO_BUDGETS,
    NOW,
    PLANTS,
    POLICY,
    SETTLER,
    PlantedLedger,
    rows_deleted,
)
from tests.support.audits import fill, insert, lines, segment
from tests.support.servers import free_port
from tests.support.stand_ins import sandbox_at


@pytest.fixture
async def planted(pool: Pool, ledger: Ledger, tmp_path: Path) -> AsyncIterator[PlantedLedger]:
    filled = await fill(ledger, SETTLER, FIRST, count=60, every=timedelta(minutes=3))
    await Outbox(pool).freeze_closed(NOW, 300)
    folder = tmp_path / "journal"
    written = lines(filled.maker, [event for event in filled.events if event.adjusts is None])
    segment(folder, 1, written[:80], confirmed=True)
    segment(folder, 2, written[80:])
    async with pool.acquire() as connection:
        yield PlantedLedger(connection, filled, folder)


@contextlib.asynccontextmanager
async def undone(planted: PlantedLedger) -> AsyncIterator[None]:
    transaction = planted.connection.transaction()
    await transaction.start()
    before = sorted(planted.folder.iterdir())
    try:
        yield
    finally:
        await transaction.rollback()
        for path in set(planted.folder.iterdir()) - set(before):
            path.unlink()


def by_name(report: AuditReport) -> dict[str, InvariantResult]:
    return {verdict.name: verdict for verdict in report.verdicts}


def breaches(report: AuditReport) -> dict[str, tuple[str, ...]]:
    return {verdict.name: verdict.wrong for verdict in report.verdicts if verdict.state == "breach"}


async def test_each_bug_breaks_its_invariant_and_no_other(planted: PlantedLedger) -> None:
    for name, (plant, invariants) in PLANTS.items():
        async with undone(planted):
            await plant(planted)
            report = await planted.audit()
        assert breaches(report).keys() == {*invariants.split()}, (name, breaches(report))
        for invariant in invariants.split():
            found = by_name(report)[invariant]
            assert found.examples, name
            assert found.look, name
    async with undone(planted):
        assert not breaches(await planted.audit())  # nothing of a plant was left behind


async def test_every_invariant_has_a_bug_that_breaks_it() -> None:
    tested_with_stripe = {"INV-7"}
    broken = {invariant for _, invariants in PLANTS.values() for invariant in invariants.split()}
    assert broken | tested_with_stripe == {f"INV-{n}" for n in range(1, 12)}


async def test_a_ledger_as_the_gateway_leaves_it_is_clean(planted: PlantedLedger) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in planted.folder.iterdir()}
    async with undone(planted):
        report = await planted.audit()
    assert breaches(report) == {}
    found = by_name(report)
    assert found["INV-7"].state == "not checked"
    assert {verdict.state for name, verdict in found.items() if name != "INV-7"} == {"ok"}
    calls = [event for event in planted.events if event.adjusts is None]
    assert found["INV-1"].figures["calls"] == len(calls) == 64
    assert (found["INV-1"].figures["segments"], found["INV-1"].figures["missing"]) == (2, 0)
    assert (found["INV-3"].figures["rows"], found["INV-3"].figures["re-priced"]) == (60, 60)
    assert found["INV-4"].figures.items() >= {"estimated": 2, "void": 1, "unpriced": 1, "adjustment": 1}.items()
    assert found["INV-5"].figures["rows"] == len(planted.events)
    assert (found["INV-9"].figures["estimated"], found["INV-9"].figures["corrected since"]) == (2, 1)
    assert {path.name: path.stat().st_mtime_ns for path in planted.folder.iterdir()} == before


async def test_a_usage_block_that_only_bytes_can_hold_is_priced_again(planted: PlantedLedger) -> None:
    block = rb'{"prompt_tokens":40,"completion_tokens":2,"total_tokens":42,"note":"\ud800%s"}'
    events = []
    for name, more in (("odd", b""), ("long", b"x" * 70_000)):
        opened = planted.maker.opened(FIRST, endpoint="chat")
        said = Said(f"chatcmpl-{name}", opened.model, None, block % more)
        events.append(planted.maker.settler.settle_exact(opened, said, FIRST))
    async with undone(planted):
        before = by_name(await planted.audit())["INV-3"].figures
        await insert(planted.ledger, events)
        report = await planted.audit()
    assert breaches(report).keys() <= {"INV-1"}
    figures = by_name(report)["INV-3"].figures
    assert int(figures["rows"]) == int(before["rows"]) + 2
    assert int(figures["re-priced"]) == int(before["re-priced"]) + 1
    assert figures["not re-priced, more than usage is needed"] == 1  # of the long one only the beginning was kept


async def test_a_range_is_audited_by_whole_hours(planted: PlantedLedger) -> None:
    hour = FIRST + timedelta(hours=1)
    async with undone(planted):
        report = await planted.audit(AuditRange(hour + timedelta(minutes=1), hour + timedelta(minutes=2)))
    assert report.span == AuditRange(hour, hour + timedelta(hours=1))
    assert breaches(report) == {}
    assert by_name(report)["INV-5"].figures["rows"] == 20
    async with undone(planted):  # and what is wrong elsewhere is not seen by what looks at the range only
        early = f"evidence = 'reported' and created_at < '{hour}'"
        await planted.unguarded(f"update openai_usage set usage = '{{}}' where {early}")
        assert breaches(await planted.audit(AuditRange(FIRST + timedelta(hours=2), None))) == {}
        assert breaches(await planted.audit()).keys() == {"INV-3"}


async def test_a_row_deleted_is_missed_everywhere(planted: PlantedLedger) -> None:
    async with undone(planted):
        await rows_deleted(planted)
        assert breaches(await planted.audit()).keys() >= {"INV-1", "INV-5", "INV-6"}


async def test_events_still_in_transit_are_no_breach(planted: PlantedLedger) -> None:
    young, settled, refused = (planted.maker.reported(NOW - timedelta(seconds=ago)) for ago in (600, 20, 3000))
    async with undone(planted):
        segment(planted.folder, 3, [frame(OPEN, encode(planted.maker.opened(young.started_at, id=young.id)))])
        torn = frame(SETTLE, encode(refused))[:-20]
        segment(
            planted.folder, 4, [*lines(planted.maker, [settled]), *lines(planted.maker, [refused])[:1], torn], slot="w1"
        )
        await planted.ledger.insert_batch([LedgerEntry(refused.id, b"no row, but kept")])
        report = await planted.audit()
    assert breaches(report) == {}
    figures = by_name(report)["INV-1"].figures
    assert (figures["in flight"], figures["on their way"], figures["unreadable records"]) == (1, 1, 0)
    assert "1 entry in quarantine needs attention" in by_name(report)["INV-10"].look


async def test_unreadable_records_are_reported(planted: PlantedLedger) -> None:
    async with undone(planted):
        written = lines(planted.maker, [planted.maker.reported(FIRST)])[0].replace(b"model", b"modem")
        segment(planted.folder, 3, [written])
        verdict = by_name(await planted.audit())["INV-1"]
    assert (verdict.state, verdict.figures["unreadable records"]) == ("ok", 1)
    assert "unreadable" in verdict.look


async def test_unreadable_records_of_a_running_process_are_a_breach(planted: PlantedLedger) -> None:
    """As when a usage block of several lines is written as it came: no row, no crash, and every part looks well."""
    event = planted.maker.reported(NOW - timedelta(seconds=1))
    opened, settled = lines(planted.maker, [event])
    torn = settled.replace(b'"usage":{', b'"usage":{\n  ').replace(b"}}", b"\n}}")
    broken = torn.count(b"\n")
    async with undone(planted):
        path = segment(planted.folder, 3, [opened, torn, frame(NOTE, encode(NoteRecord(event.id)))[:30] + b"\n"])
        dead = by_name(await planted.audit())["INV-1"]
        assert dead.wrong == ("1 × settled call that is not in the ledger",)  # at once: it will never arrive
        assert dead.examples == (event.id,)
        with (planted.folder / "w0.lock").open("w") as lock:
            lock.write("boot")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            alive = by_name(await planted.audit())["INV-1"]
        assert alive.wrong == (
            "1 × settled call that is not in the ledger",
            f"{broken} × unreadable record of a living process",
        )
        assert alive.examples == (event.id, path.name)
        await insert(planted.ledger, [event])  # as the sweeper would: an estimate, in place of what was said
        assert breaches(await planted.audit()).get("INV-1") is None


async def test_without_a_journal_it_says_so(planted: PlantedLedger, tmp_path: Path) -> None:
    planted.folder = tmp_path / "nowhere"
    planted.folder.mkdir()
    async with undone(planted):
        report = await planted.audit()
    assert by_name(report)["INV-1"].state == "not checked"
    assert "no journal here" in by_name(report)["INV-8"].look
    assert not report.breached


@pytest.fixture
async def stripe_has_it(planted: PlantedLedger, pool: Pool) -> AsyncIterator[Billing]:
    """The Stripe stand-in, to which every frozen amount has been sent."""
    async with sandbox_at(NOW.timestamp) as sandbox:
        sandbox.stripe.customers.add(0, {}, customer_id="cus_payer")
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url)
        log = structlog.get_logger()
        bill = UsageReporter(Outbox(pool), billing, grace_s=300, monotonic=lambda: 0, random=lambda: 0, log=log)
        sent = await bill.step_once(NOW)
        assert sent.sent >= 3
        yield billing
        await billing.close()


async def test_stripe_has_what_was_sent(planted: PlantedLedger, stripe_has_it: Billing) -> None:
    async with undone(planted):
        settled = by_name(await planted.audit(now=LATER, stripe=stripe_has_it))["INV-7"]
        soon = by_name(await planted.audit(stripe=stripe_has_it))["INV-7"]
    assert (settled.state, settled.figures["customers"], settled.figures["hours not settled yet"]) == ("ok", 1, 0)
    sent = await planted.connection.fetchval("select sum(value) from stripe_meter_events")
    assert settled.figures["micro-USD"] == sent > 0
    # Stripe's summaries lag behind, so what it took a moment ago is not held against it.
    assert soon.figures["hours not settled yet"] == settled.figures["hours compared"]


@pytest.mark.usefixtures("stripe_has_it")
async def test_stripe_away_hides_no_other_result(planted: PlantedLedger) -> None:
    away = Billing(credentials.STRIPE_SECRET_KEY, base_url=f"http://127.0.0.1:{free_port()}")
    async with undone(planted):
        asked = await planted.audit(now=LATER)
        report = await planted.audit(now=LATER, stripe=away)
    await away.close()
    assert (report.breached, report.unanswered, report.exit_status) == (False, ("INV-7",), 3)
    assert "1 of 1 customers were not compared: stripe: " in by_name(report)["INV-7"].look
    assert [one for one in report.verdicts if one.name != "INV-7"] == [
        one for one in asked.verdicts if one.name != "INV-7"
    ]


async def test_an_event_sent_twice_is_noticed(planted: PlantedLedger, stripe_has_it: Billing) -> None:
    """As by a worker that sends what may have arrived again, under another identifier."""
    again = MeterEvent(METER, "cus_payer", 3, "blind-resend", FIRST + timedelta(hours=1, minutes=59, seconds=59))
    unasked = MeterEvent(METER, "cus_payer", 4, "out-of-the-blue", FIRST + timedelta(hours=3, minutes=1))
    for event in (again, unasked):
        assert (await stripe_has_it.deliver(event)).outcome == Delivered()
    async with undone(planted):
        report = await planted.audit(now=LATER, stripe=stripe_has_it)
    assert breaches(report) == {"INV-7": ("1 × hour that differs", "1 × hour that only Stripe knows")}
    assert all("cus_payer" in example for example in by_name(report)["INV-7"].examples)


async def test_a_ledger_that_is_being_written_to_gives_consistent_sums(planted: PlantedLedger, pool: Pool) -> None:
    async with snapshot(pool) as view:
        before = await view.row("select count(*) as rows from openai_usage")
        late = planted.maker.reported(FIRST)
        await insert(Ledger(pool, meter=METER, window_s=WINDOW_S), [late])
        segment(planted.folder, 3, lines(planted.maker, [late]))
        report = await audit(view, EVERYTHING, NOW, book=BOOK, policy=POLICY, folder=planted.folder, budgets=NO_BUDGETS)
    assert breaches(report).keys() == {"INV-1"}  # settled hours ago, and not in the view: the one thing it may say
    assert by_name(report)["INV-5"].figures["rows"] == before["rows"]
    async with snapshot(pool) as view:
        assert not breaches(
            await audit(view, EVERYTHING, NOW, book=BOOK, policy=POLICY, folder=planted.folder, budgets=NO_BUDGETS)
        )


async def test_a_login_that_sees_only_some_rows_may_not_audit(planted: PlantedLedger) -> None:
    async with undone(planted):
        await planted.connection.execute("set local role authenticated")
        with pytest.raises(ConfigError, match="service_role"):
            await planted.audit()
    async with undone(planted):
        await planted.connection.execute("set local role service_role")
        assert not breaches(await planted.audit())


async def test_a_journal_that_may_not_be_read_is_not_passed_over(planted: PlantedLedger) -> None:
    (planted.folder / "w9.0000000000001.000001.jnl").mkdir()  # mode bits would not stop a test that runs as root
    with pytest.raises(DependencyDown, match="journal"):
        await planted.audit()


async def test_the_audit_can_change_nothing(pool: Pool) -> None:
    async with snapshot(pool) as view:
        with pytest.raises(DependencyDown, match="ReadOnlySQLTransactionError"):
            await view.rows("update api_keys set usage_count = 0 returning id")
