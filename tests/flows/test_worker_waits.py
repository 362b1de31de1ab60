"""A store that answers questions and takes no writes: whoever watches the worker sees that it waits."""

import asyncio

from gateway.app.worker import Backlog, status
from gateway.core.metrics import Status
from gateway.edges.buffer import Buffer
from gateway.edges.ledger import Ledger, Pool, open_pool
from gateway.edges.outbox import Outbox
from gateway.edges.sessions.inbox import Inbox
from tests.conftest import METER, WINDOW_S
from tests.flows.test_flush import Clock, entries, some_calls, writer


def waits(found: Status) -> tuple[str | None, float]:
    """What the process says it waits for, and its metric."""
    (sample,) = [sample for sample in found.samples if sample.name == "gateway_waiting"]
    assert sample.labels == ("worker",)
    return found.waiting, sample.value


async def test_a_postgres_that_only_reads(pool: Pool, ledger: Ledger, buffer: Buffer, database_url: str) -> None:
    await buffer.append(entries(await some_calls(ledger, 3)))
    reading = await open_pool(f"{database_url}&options=-c%20default_transaction_read_only%3Don")
    flush = writer(buffer, Ledger(reading, meter=METER, window_s=WINDOW_S), Clock())
    backlog = Backlog(buffer, Ledger(reading, meter=METER, window_s=WINDOW_S), Outbox(reading), Inbox(reading))
    stop = asyncio.Event()
    looking = asyncio.create_task(backlog.watch(asyncio.sleep))
    writing = asyncio.create_task(flush.run(stop))
    while not (backlog.samples() and flush.waiting_on):
        await asyncio.sleep(0.01)
    assert backlog.waiting_on is None  # every question was answered
    assert waits(status([flush], [flush, backlog], backlog)) == ("postgres", 1)
    flush._ledger = ledger  # type: ignore[misc]  # as when it takes writes again
    while flush.waiting_on:
        await asyncio.sleep(0.01)
    assert waits(status([flush], [flush, backlog], backlog)) == (None, 0)
    stop.set()
    looking.cancel()
    await asyncio.gather(writing, looking, return_exceptions=True)
    await reading.close()
