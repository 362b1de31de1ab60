"""Calls that their own process will never settle: exact where OpenAI can be asked, else a labelled estimate."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import pricing
from gateway.journal.frames import NOTE, OPEN, SETTLE, frame
from gateway.journal.reader import Segments
from gateway.journal.writer import Journal
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.ledger.sweep import ASK_AGAIN_S, PATIENCE_S, Sweep
from gateway.openai.upstream import Upstream
from gateway.stores.postgres import Pool
from gateway.usage.event import NoteRecord, Orphan, UsageEvent, decode_event, encode
from gateway.usage.settle import Settler
from pricing.data import read_texts
from tests.ledger.journals_at_work import LONG_AGO, RANDOM, JournalShipping, open_shipping, opened
from tests.support.events import AT, new_id
from tests.support.servers import free_port

SETTLER = Settler(pricing.parse(read_texts()), markup=Decimal(1), bill_estimates=True, region=None)


@pytest.fixture
async def shipping(tmp_path: Path, buffer: Buffer, ledger: Ledger) -> AsyncIterator[JournalShipping]:
    async with open_shipping(tmp_path, buffer, ledger) as made:
        yield made


class OpenAI:
    """Answers one GET as told, in two pieces."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, b"", 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        assert request.path == "/v1/responses/resp_1"
        assert request.headers["Authorization"] == "Bearer canary"
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        await response.write(self.body[:20])
        await asyncio.sleep(0.02)
        await response.write(self.body[20:])
        return response


class Sweeper:
    """A Sweep with its stand-ins and its clock."""

    def __init__(self, shipping: JournalShipping, openai: OpenAI, upstream: Upstream, journal: Journal) -> None:
        self.openai, self.journal, self.now_s = openai, journal, AT.timestamp() + 5
        self.sweep = Sweep(
            upstream, SETTLER, lambda event: journal.append(SETTLE, encode(event)), clock=lambda: self.now_s
        )
        self._folder = shipping.folder

    def swept(self) -> list[UsageEvent]:
        segments = Segments(self._folder)
        segments.refresh()
        return [decode_event(record.payload) for record in segments.poll() if record.kind == SETTLE]


@pytest.fixture
async def sweeper(shipping: JournalShipping) -> AsyncIterator[Sweeper]:
    openai, port = OpenAI(), free_port()
    app = web.Application()
    app.router.add_get("/{path:.*}", openai.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    journal = shipping.writer("keeper")
    journal.open()
    upstream = Upstream(f"http://127.0.0.1:{port}/v1", "canary", connect_s=2, first_byte_s=5)
    yield Sweeper(shipping, openai, upstream, journal)
    await upstream.close()
    journal.close()
    await runner.cleanup()


def orphan(endpoint: str = "responses", *, output_events: int = 9, **changes: Any) -> Orphan:
    record = opened(new_id(RANDOM), endpoint=endpoint, **changes)
    return Orphan(encode(record), encode(NoteRecord(record.id, "resp_1", output_events)))


ANSWER = (
    b'{"id":"resp_1","object":"response","status":"%b","model":"gpt-5-mini-2025-08-07","service_tier":"default",'
    b'"output":[],"usage":{"input_tokens":100,"output_tokens":20,"total_tokens":120}}'
)


@pytest.mark.parametrize("status", [b"completed", b"incomplete", b"failed", b"cancelled"])
async def test_exact_where_openai_can_be_asked(sweeper: Sweeper, status: bytes) -> None:
    sweeper.openai.body = ANSWER % status
    lost = orphan()
    assert await sweeper.sweep.step_once([lost]) == 1
    assert await sweeper.sweep.step_once([lost]) == 0  # the reader has not come to it yet
    (event,) = sweeper.swept()
    assert (event.evidence, event.cost_nano, event.response_id) == ("drained", 100 * 250 + 20 * 2000, "resp_1")
    assert event.metadata["reason"] == "process_died"
    assert sweeper.openai.asked == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{}}'),
        (200, ANSWER.replace(b"100,", b'"x",')[:50]),
        (200, b'{"status":"cancelled","usage":null}'),
    ],
)
async def test_estimated_where_openai_kept_nothing(sweeper: Sweeper, status: int, body: bytes) -> None:
    sweeper.openai.status, sweeper.openai.body = status, body
    assert await sweeper.sweep.step_once([orphan()]) == 1
    (event,) = sweeper.swept()
    assert (event.evidence, event.prompt_tokens, event.completion_tokens) == ("estimated", 100, 9)
    assert event.cost_nano == 100 * 250 + 9 * 2000
    assert Decimal(event.metadata["bound_usd"]) * 10**9 >= event.cost_nano


@pytest.mark.parametrize(("status", "body"), [(500, b""), (429, b"{}"), (200, ANSWER % b"in_progress")])
async def test_patience_while_openai_cannot_tell(sweeper: Sweeper, status: int, body: bytes) -> None:
    sweeper.openai.status, sweeper.openai.body = status, body
    lost, late = orphan(), orphan()
    assert await sweeper.sweep.step_once([lost, late]) == 0
    assert await sweeper.sweep.step_once([lost, late]) == 0
    assert sweeper.openai.asked == 2  # not again at every step
    sweeper.now_s += ASK_AGAIN_S
    sweeper.openai.status, sweeper.openai.body = 200, ANSWER % b"completed"
    assert await sweeper.sweep.step_once([lost]) == 1
    sweeper.openai.status, sweeper.openai.body = status, body
    assert await sweeper.sweep.step_once([late]) == 0
    sweeper.now_s += PATIENCE_S
    assert await sweeper.sweep.step_once([late]) == 1
    assert [event.evidence for event in sweeper.swept()] == ["drained", "estimated"]
    assert sweeper.swept()[1].metadata["reason"] == "process_died, openai did not answer"


async def test_a_chat_is_estimated_and_never_void(sweeper: Sweeper) -> None:
    with_note, without = orphan("chat", output_events=4), Orphan(encode(opened(new_id(RANDOM))), None)
    assert await sweeper.sweep.step_once([with_note, without]) == 2
    assert [(event.evidence, event.completion_tokens) for event in sweeper.swept()] == [
        ("estimated", 4),
        ("estimated", 0),
    ]
    assert sweeper.openai.asked == 0


async def test_from_the_dead_process_to_the_ledger(shipping: JournalShipping, sweeper: Sweeper, pool: Pool) -> None:
    record = opened(new_id(RANDOM), user_id=shipping.user_id, endpoint="responses")
    note = encode(NoteRecord(record.id, "resp_1", 2))
    dead = frame(OPEN, encode(record)) + frame(NOTE, note)
    (shipping.folder / "dead.1.000001.jnl").write_bytes(dead + frame(SETTLE, b'{"id":"')[:12])
    sweeper.openai.body = ANSWER % b"completed"
    for _ in range(4):
        await shipping.after(3)
        await sweeper.sweep.step_once(shipping.ship.orphans(older_than_unix_ms=LONG_AGO))
        await shipping.flush()
    assert (shipping.ship.open_calls, shipping.ship.unconfirmed) == (0, 0)
    row = await pool.fetchrow("select id::text, evidence, cost_usd, created_at - started_at as took from openai_usage")
    assert row is not None
    assert tuple(row) == (record.id, "drained", Decimal("0.000065000"), timedelta(seconds=5))
    shipping.segments.retire(now_s=0, keep_s=10)
    assert (shipping.folder / "dead.1.000001.jnl.confirmed").exists()
