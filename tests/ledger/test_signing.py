"""Whoever writes to Redis makes no row by it: forged, altered, replayed and unsigned entries go to quarantine, and the
journal's own arrive all the same."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.config.key_ring import KeyRing, entry_of
from gateway.config.settings import Settings
from gateway.ledger.flush import Flush
from gateway.ledger.opening import build_signer
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.signing import EntrySigner
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.quarantine.retry import retry
from gateway.quarantine.store import Quarantine
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.event import UsageEvent, encode
from tests.ledger.journals_at_work import RANDOM, JournalShipping, open_shipping
from tests.support.events import call, new_id, sums_are_right

STREAM = "gateway:usage"
OLD, NEW = b"o" * 32, b"n" * 32
SIGNER = EntrySigner(KeyRing({"new": NEW}))


def buffer_of(redis: Any, signer: EntrySigner | None = SIGNER) -> Buffer:
    return Buffer(redis, stream=STREAM, signer=signer)


def writer(buffer: Buffer, ledger: Ledger) -> Flush:
    return Flush(
        buffer,
        ledger,
        consumer="a",
        batch_rows_max=100,
        interval_s=0.001,
        claim_idle_s=30,
        monotonic=lambda: 0.0,
        now=lambda: datetime(2026, 11, 22, 12, 30, tzinfo=UTC),
    )


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def shipping(tmp_path: Path, redis: Any, ledger: Ledger) -> AsyncIterator[JournalShipping]:
    """A journal whose keeper signs."""
    signing = buffer_of(redis)
    await signing.ensure_group()
    async with open_shipping(tmp_path, signing, ledger) as made:
        yield made


async def rows(pool: Pool) -> list[tuple[str, int]]:
    found = await pool.fetch("select id::text, (billed_usd * 1000000000)::bigint from openai_usage order by id")
    return [tuple(row) for row in found]


async def kinds(pool: Pool) -> list[tuple[str, str]]:
    found = await pool.fetch("select coalesce(event_id, ''), kind from usage_quarantine order by id")
    return [tuple(row) for row in found]


async def take_fields(redis: Any) -> dict[bytes, bytes]:
    """The fields of the one entry that waits, which is deleted."""
    ((stream_id, fields),) = await redis.xrange(STREAM)
    await redis.xdel(STREAM, stream_id)
    return dict(fields)


def plain(event: UsageEvent) -> dict[bytes, bytes]:
    return {b"e": encode(event), b"id": event.id.encode()}


async def test_what_the_keeper_sends_is_believed(shipping: JournalShipping, ledger: Ledger, pool: Pool) -> None:
    (event,) = await shipping.settle()
    await shipping.ship.step_once()
    await writer(shipping.buffer, ledger).step_once()
    assert await rows(pool) == [(event.id, event.billed_nano)]
    assert await kinds(pool) == []


def _forge(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return true | {b"m": b"\0" * 16}


def _alter_the_amount(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    altered = true[b"e"].replace(b'"billed_nano":1234567', b'"billed_nano":1')
    assert altered != true[b"e"]
    return true | {b"e": altered}


def _give_another_id(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    other = new_id(RANDOM).encode()
    return true | {b"e": true[b"e"].replace(event.id.encode(), other), b"id": other}


def _name_another_id(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return true | {b"id": new_id(RANDOM).encode()}


def _cut_the_mac(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return true | {b"m": true[b"m"][:8]}


def _move_bytes_to_the_id(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return true | {b"id": true[b"id"] + true[b"e"][:1], b"e": true[b"e"][1:]}


def _leave_out_the_record(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return {b"id": true[b"id"], b"m": true[b"m"]}


def _break_the_id(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return true | {b"id": b"\xff\xfe"}


def _do_not_sign(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return {name: value for name, value in true.items() if name != b"m"}


def _sign_with_a_stranger_s_key(true: dict[bytes, bytes], event: UsageEvent) -> dict[bytes, bytes]:
    return true | {b"m": EntrySigner(KeyRing({"new": b"x" * 32})).sign(event.id, encode(event))}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_forge, "wrong_mac"),
        (_alter_the_amount, "wrong_mac"),
        (_give_another_id, "wrong_mac"),
        (_name_another_id, "wrong_mac"),
        (_cut_the_mac, "wrong_mac"),
        (_move_bytes_to_the_id, "wrong_mac"),
        (_leave_out_the_record, "wrong_mac"),
        (_break_the_id, "wrong_mac"),
        (_do_not_sign, "unsigned"),
        (_sign_with_a_stranger_s_key, "wrong_mac"),
    ],
)
async def test_a_changed_entry_makes_no_row_and_the_genuine_one_arrives(
    shipping: JournalShipping, ledger: Ledger, pool: Pool, redis: Any, change: Any, kind: str
) -> None:
    """The genuine entry is deleted and a changed one put in its place: it stands for no call, so the keeper still
    misses the call's own, and sends it again."""
    (event,) = await shipping.settle()
    await shipping.ship.step_once()
    changed = change(await take_fields(redis), event)
    await redis.xadd(STREAM, changed)
    flush = writer(shipping.buffer, ledger)
    assert await flush.step_once() == 1
    assert (await rows(pool), await kinds(pool)) == ([], [("", kind)])
    kept = await pool.fetchval("select raw from usage_quarantine")
    assert all(value in bytes(kept) for value in changed.values())
    await shipping.after(3)
    assert await shipping.after(0.1) == 1
    assert await flush.step_once() == 1
    assert await rows(pool) == [(event.id, event.billed_nano)]
    assert await shipping.after(60) == 1  # confirmed by its row
    assert (shipping.ship.unconfirmed, flush.quarantined_total) == (0, 1)
    assert await sums_are_right(pool)


async def test_a_forged_correction_changes_no_estimate(
    shipping: JournalShipping, ledger: Ledger, pool: Pool, redis: Any
) -> None:
    estimate = call(shipping.user_id, new_id(RANDOM), evidence="estimated")
    await ledger.insert_batch([LedgerEntry.of(estimate)])
    exact = call(shipping.user_id, estimate.id, cost_nano=1, billed_nano=1)
    await redis.xadd(STREAM, plain(exact))
    # Repeats are what makes the writer look for estimates.
    await shipping.buffer.append([(estimate.id, encode(estimate))])
    await writer(shipping.buffer, ledger).step_once()
    assert await rows(pool) == [(estimate.id, estimate.billed_nano)]
    assert await kinds(pool) == [("", "unsigned")]


async def test_a_genuine_entry_may_be_replayed(
    shipping: JournalShipping, ledger: Ledger, pool: Pool, redis: Any
) -> None:
    (event,) = await shipping.settle()
    await shipping.ship.step_once()
    fields = await take_fields(redis)
    for _ in range(3):
        await redis.xadd(STREAM, fields)
    await writer(shipping.buffer, ledger).step_once()
    assert (await rows(pool), await kinds(pool)) == ([(event.id, event.billed_nano)], [])
    assert await sums_are_right(pool)


async def test_no_retry_makes_a_row_of_what_is_not_believed(
    shipping: JournalShipping, ledger: Ledger, pool: Pool, redis: Any
) -> None:
    event = shipping.event()
    await redis.xadd(STREAM, plain(event))
    await writer(shipping.buffer, ledger).step_once()
    quarantine = Quarantine(pool)
    (entry,) = await quarantine.waiting(0)

    async def correct(_: object) -> None:
        raise AssertionError("there is nothing to correct")

    async def resolve(_entry_id: int, _resolution: str) -> bool:
        raise AssertionError("there is nothing to resolve")

    done = await retry(quarantine, ledger, correct, entry, resolve)
    assert (done.became, done.reason.split(":")[0]) == ("refused", "unsigned")
    assert await rows(pool) == []


async def test_hosts_that_do_not_sign_yet(shipping: JournalShipping, ledger: Ledger, pool: Pool, redis: Any) -> None:
    """While `admit_unsigned` is on, an old host's entries are rows, and forged MACs are still refused. Without secrets
    a new host takes what either has written."""
    admitting = buffer_of(redis, EntrySigner(KeyRing({"new": NEW}), admit_unsigned=True))
    old, forged, signed = shipping.event(), shipping.event(), shipping.event()
    await buffer_of(redis, None).append([(old.id, encode(old))])
    await redis.xadd(STREAM, plain(forged) | {b"m": b"\0" * 16})
    await writer(admitting, ledger).step_once()
    assert (await rows(pool), await kinds(pool)) == ([(old.id, old.billed_nano)], [("", "wrong_mac")])
    await shipping.buffer.append([(signed.id, encode(signed))])
    await writer(buffer_of(redis, None), ledger).step_once()
    assert [event_id for event_id, _ in await rows(pool)] == sorted([old.id, signed.id])


async def test_a_secret_is_replaced(shipping: JournalShipping, ledger: Ledger, pool: Pool, redis: Any) -> None:
    """First every host knows the new secret, then each signs with it, then the old one goes."""
    before = buffer_of(redis, EntrySigner(KeyRing({"old": OLD})))
    known = buffer_of(redis, EntrySigner(KeyRing({"old": OLD, "new": NEW})))
    used = buffer_of(redis, EntrySigner(KeyRing({"new": NEW, "old": OLD})))
    events = [shipping.event() for _ in range(3)]
    for sender, event in zip((before, known, used), events, strict=True):
        await sender.append([(event.id, encode(event))])
    await writer(known, ledger).step_once()  # a host that has only heard of the new one
    assert [event_id for event_id, _ in await rows(pool)] == sorted(event.id for event in events)
    late = shipping.event()
    await before.append([(late.id, encode(late))])
    await writer(buffer_of(redis), ledger).step_once()
    assert await kinds(pool) == [("", "wrong_mac")]


def test_the_mac_is_keyed_and_of_one_purpose() -> None:
    """The same bytes have another MAC under another key, and under none: a MAC made for anything else is of no use."""
    macs = {EntrySigner(KeyRing({"k": key})).sign("id", b"raw") for key in (OLD, NEW)}
    assert len(macs) == 2
    assert {len(mac) for mac in macs} == {16}
    assert SIGNER.judge("id", b"raw", SIGNER.sign("id", b"raw")) is None
    assert SIGNER.judge("i", b"draw", SIGNER.sign("id", b"raw")) == "wrong_mac"


def test_only_with_secrets() -> None:
    assert build_signer(Settings()) is None
    ring = f"{entry_of('b', NEW)},{entry_of('a', OLD)}"
    signer = build_signer(Settings(gateway_secrets=ring))
    assert signer is not None
    assert signer.sign("id", b"raw") == SIGNER.sign("id", b"raw")
    assert signer.judge("id", b"raw", EntrySigner(KeyRing({"a": OLD})).sign("id", b"raw")) is None
    assert signer.judge("id", b"raw", None) == "unsigned"
