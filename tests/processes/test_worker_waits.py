"""A store that answers questions and takes no writes: whoever watches the worker sees that it waits."""

import asyncio
from random import uniform

from gateway.billing.outbox import Outbox
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.hosts.store import Hosts
from gateway.kit.loops import Loops
from gateway.kit.metrics import Status
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.meetings.inbox import Inbox
from gateway.processes.redis_memory import RedisFigures
from gateway.processes.worker import Backlog, status
from gateway.stores.postgres import Pool, open_pool
from tests.conftest import METER, WINDOW_S
from tests.ledger.test_flush import Clock, entries, some_calls, writer


def waits(found: Status) -> tuple[str | None, float]:
    """What the process says it waits for, and its metric."""
    (sample,) = [sample for sample in found.samples if sample.name == "gateway_waiting"]
    assert sample.labels == ("worker",)
    return found.waiting, sample.value


async def test_a_postgres_that_only_reads(pool: Pool, ledger: Ledger, buffer: Buffer, database_url: str) -> None:
    await buffer.append(entries(await some_calls(ledger, 3)))
    reading = await open_pool(f"{database_url}&options=-c%20default_transaction_read_only%3Don")
    flush = writer(buffer, Ledger(reading, meter=METER, window_s=WINDOW_S), Clock())
    read_only = Ledger(reading, meter=METER, window_s=WINDOW_S)
    backlog = Backlog(buffer, read_only, Outbox(reading), Inbox(reading), StripeInbox(reading), Hosts(reading))
    loops = Loops(uniform=uniform)
    loops.every("backlog", backlog.look, every_s=0.1)
    loops.paced("flush", flush.turn_pause_s, finishes=True)
    async with loops:
        while not (backlog.samples() and loops.waiting_on):  # every question was answered
            await asyncio.sleep(0.01)
        assert waits(status([flush], loops, backlog, RedisFigures({}))) == ("postgres", 1)
        flush._ledger = ledger  # type: ignore[misc]  # as when it takes writes again
        while loops.waiting_on:
            await asyncio.sleep(0.01)
        assert waits(status([flush], loops, backlog, RedisFigures({}))) == (None, 0)
    await reading.close()
