"""Whose a response and its items are: in Redis until the row is in Postgres, and then only there."""

from collections.abc import Mapping, Sequence
from random import Random

import msgspec
import pytest

from gateway.embedded import ephemeral
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger, Outcome
from gateway.ledger.stream import Buffer
from gateway.openai.objects import UpstreamObjects
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.event import UsageEvent, encode
from tests.ledger.test_flush import Clock, entries, some_calls, writer
from tests.support.events import call, new_id
from tests.support.servers import memory_folder

RESPONSES = 1_000_000
BATCH = 5_000
MARK = "00000000-0000-7000-8000-000000000000"
DAY_S = 86_400


async def some_responses(ledger: Ledger, buffer: Buffer) -> tuple[list[UsageEvent], dict[str, str]]:
    """Answers that clients have, and the owners of all that is in them, as proxies leave them in Redis."""
    events = [
        msgspec.structs.replace(
            event, endpoint="responses", response_id=f"resp_{number}", item_ids=(f"rs_{number}", f"msg_{number}")
        )
        for number, event in enumerate(await some_calls(ledger, 3))
    ]
    owners = {each: event.user_id for event in events for each in (str(event.response_id), *event.item_ids)}
    for object_id, user_id in owners.items():
        await buffer.set_owners([object_id], user_id)
    return events, owners


class WatchedBuffer(Buffer):
    """A buffer that looks whether Postgres knows what it is to forget."""

    objects: UpstreamObjects

    async def forget_owners(self, owners: Mapping[str, str]) -> None:
        assert await self.get_owners(list(owners)) == await self.objects.owners(list(owners)) == owners
        await super().forget_owners(owners)


async def test_owners_leave_redis_once_postgres_has_them(redis_url: str, ledger: Ledger, pool: Pool) -> None:
    async with open_redis(redis_url) as redis:
        buffer = WatchedBuffer(redis, stream="gateway:usage")
        buffer.objects = UpstreamObjects(pool)
        events, owners = await some_responses(ledger, buffer)
        await buffer.set_owners(["msg_of_a_running_call"], events[0].user_id)
        await buffer.append(entries(events))
        assert await writer(buffer, ledger, Clock()).step_once() == 3
        left = {"msg_of_a_running_call": events[0].user_id}
        assert await buffer.get_owners([*owners, *left]) == left
        assert await buffer.objects.owners(list(owners)) == owners


async def test_a_repeat_forgets_too_and_what_postgres_refused_stays(
    buffer: Buffer, ledger: Ledger, redis_url: str
) -> None:
    events, owners = await some_responses(ledger, buffer)
    await buffer.append(entries(events[:1]))
    assert await writer(buffer, ledger, Clock()).step_once() == 1
    for object_id, user_id in owners.items():  # as if the writer had been killed before it forgot them
        await buffer.set_owners([object_id], user_id)
    bad = msgspec.structs.replace(events[1], model="a\x00b")
    await buffer.append(entries([events[0], bad]))
    assert await writer(buffer, ledger, Clock()).step_once() == 2
    mine = {each: user_id for each, user_id in owners.items() if not each.endswith("_0")}
    assert await buffer.get_owners(list(owners)) == mine
    async with open_redis(redis_url) as redis:
        # Nobody but Redis knows whose these are, until somebody has looked into the quarantine.
        assert await redis.ttl("owner:resp_1") > 29 * DAY_S
        assert await redis.ttl("owner:resp_2") < DAY_S


class QuickLedger(Ledger):
    """A ledger that has committed whatever it is given: a million real rows would take minutes, and say no more of
    Redis."""

    async def insert_batch(self, entries: Sequence[LedgerEntry], **_: object) -> Outcome:
        return Outcome(len(entries), 0, 0)


@pytest.mark.long
async def test_a_million_responses_fit_into_a_small_redis(ledger: Ledger) -> None:
    user_id = new_id(Random(3))
    pattern = encode(call(user_id, MARK, endpoint="responses", response_id=f"resp_{MARK}"))
    quick = QuickLedger(ledger.pool, meter="m", window_s=3600)
    with ephemeral({"valkey"}, parent=memory_folder()) as running:
        async with open_redis(running.redis_url, timeout_s=60) as redis:
            await redis.config_set("maxmemory", 24 << 20)
            buffer = Buffer(redis, stream="gateway:usage")
            await buffer.check_policy()
            await buffer.ensure_group()
            flush = writer(buffer, quick, Clock(), batch_rows_max=BATCH)
            for start in range(0, RESPONSES, BATCH):
                ids = [f"00000000-0000-7000-8000-{number:012x}" for number in range(start + 1, start + BATCH + 1)]
                await buffer.set_owners([f"resp_{each}" for each in ids], user_id)
                await buffer.append([(each, pattern.replace(MARK.encode(), each.encode())) for each in ids])
                assert await flush.step_once() == BATCH
            assert await redis.dbsize() == 1  # the stream
