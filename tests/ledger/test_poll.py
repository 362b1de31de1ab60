"""Estimates about which OpenAI says more later: asked again, corrected once, given up in the end."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from aiohttp import web

import pricing
from gateway.accounts.store import Accounts
from gateway.ledger.open_items import OpenItems
from gateway.ledger.poll import LOOK_AGAIN, POLLS_MAX, Poll
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.openai.upstream import Upstream
from gateway.stores.postgres import Pool
from gateway.usage.event import OpenRecord, UsageEvent
from gateway.usage.plan_store import PlanStore
from gateway.usage.settle import Settler, Tokens
from pricing.data import read_texts
from pricing.readers.body import Said, read_body
from tests.support.events import call, new_id, sums_are_right
from tests.support.plans import BEGAN, make_plan, plant

SETTLER = Settler(pricing.parse(read_texts()), markup=Decimal(2), bill_estimates=True, region=None)
NOW = datetime.now(UTC)
ANSWER = (
    b'{"id":"resp_1","object":"response","status":"%b","model":"gpt-5-mini-2025-08-07","service_tier":"default",'
    b'"output":[],"usage":{"input_tokens":100,"output_tokens":20,"total_tokens":120}}'
)
EXACT_NANO = 100 * 250 + 20 * 2000
FLEX_NANO = EXACT_NANO // 2
"""Flex costs half."""
CACHING = "gpt-5.6-sol"
"""Its cache writes cost more when they live for 12 hours."""


class OpenAI:
    """Answers as told."""

    def __init__(self) -> None:
        self.status, self.body = 200, ANSWER % b"completed"
        self.asked: list[str] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def openai() -> AsyncIterator[tuple[OpenAI, Upstream]]:
    stand_in = OpenAI()
    runner = web.ServerRunner(web.Server(stand_in.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream = Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "canary", connect_s=2, first_byte_s=5)
    yield stand_in, upstream
    await upstream.close()
    await runner.cleanup()


@pytest.fixture
def poll(pool: Pool, ledger: Ledger, openai: tuple[OpenAI, Upstream]) -> Poll:
    return Poll(OpenItems(pool), ledger, openai[1], SETTLER, PlanStore(pool), now=lambda: NOW)


async def estimate(ledger: Ledger, **changes: Any) -> UsageEvent:
    """A row as a sweeper leaves it."""
    user = await Accounts(ledger.pool).create_user("u@example.com")
    usual: dict[str, Any] = {
        "endpoint": "responses",
        "evidence": "estimated",
        "response_id": "resp_1",
        "cost_nano": 999_000,
        "billed_nano": 1_998_000,
        "started_at": NOW,
        "completed_at": NOW,
        "metadata": {"reason": "process_died", "bound_usd": "0.010000000"},
    }
    event = call(user, new_id(Random(7)), **{**usual, **changes})
    await ledger.insert_batch([LedgerEntry.of(event)])
    return event


def opened_call(user: str, **changes: Any) -> OpenRecord:
    """The OPEN of a call that asked for the answer of the stand-in."""
    fields: dict[str, Any] = {"endpoint": "responses", "model": "gpt-5-mini", "started_at": NOW, **changes}
    return OpenRecord(id=new_id(Random(7)), user_id=user, **fields)


async def again(pool: Pool) -> None:
    """Its turn has come."""
    await pool.execute("update open_items set next_poll_at = now()")


async def state(pool: Pool) -> tuple[str, int, str | None]:
    (row,) = await pool.fetch("select state, polls, last_error from open_items")
    return (row["state"], row["polls"], row["last_error"])


async def test_what_openai_says_later_is_added_once(
    poll: Poll, ledger: Ledger, pool: Pool, openai: tuple[OpenAI, Upstream]
) -> None:
    event = await estimate(ledger)
    assert [await poll.step_once() for _ in range(3)] == [1, 0, 0]
    assert openai[0].asked == ["/v1/responses/resp_1"]
    rows = await pool.fetch("select evidence, adjusts::text, metadata->>'exact_evidence' from openai_usage order by 1")
    assert [tuple(row) for row in rows] == [("adjustment", event.id, "drained"), ("estimated", None, None)]
    total = await pool.fetchval("select (sum(cost_usd) * 1000000000)::bigint from openai_usage")
    billed = await pool.fetchval("select (sum(billed_usd) * 1000000000)::bigint from openai_usage")
    assert (total, billed) == (EXACT_NANO, 2 * EXACT_NANO)
    assert await sums_are_right(pool)
    assert await state(pool) == ("settled", 1, None)


async def test_a_poller_looks_once_and_later_estimates_are_listed_with_their_price_lines(
    poll: Poll, ledger: Ledger, pool: Pool
) -> None:
    assert await poll.step_once() == 0
    await estimate(ledger)
    assert await poll.step_once() == 0
    await ledger.add_units()
    await ledger.add_units()
    assert await poll.step_once() == 1
    assert await state(pool) == ("settled", 1, None)


async def test_a_poller_looks_again_for_what_an_older_worker_left_unlisted(
    ledger: Ledger, pool: Pool, openai: tuple[OpenAI, Upstream]
) -> None:
    at = NOW
    poll = Poll(OpenItems(pool), ledger, openai[1], SETTLER, PlanStore(pool), now=lambda: at)
    assert await poll.step_once() == 0
    await estimate(ledger)
    await pool.execute("delete from units_due")  # the older worker added them up, and was then replaced
    at += LOOK_AGAIN - timedelta(seconds=1)
    assert await poll.step_once() == 0
    at += timedelta(seconds=1)
    assert await poll.step_once() == 1
    assert await state(pool) == ("settled", 1, None)


async def test_only_estimates_of_stored_responses_are_listed(ledger: Ledger, pool: Pool) -> None:
    user = await Accounts(ledger.pool).create_user("u@example.com")
    random = Random(8)
    for changes in (
        {"endpoint": "responses"},
        {"endpoint": "chat", "evidence": "estimated"},
        {"endpoint": "responses", "evidence": "estimated", "response_id": None},
    ):
        await ledger.insert_batch([LedgerEntry.of(call(user, new_id(random), **changes))])
    await ledger.add_units()
    assert await pool.fetchval("select count(*) from open_items") == 0


@pytest.mark.parametrize(("plan_version", "factor"), [("standard@1", 3), ("markup:7", 7), ("legacy", 2), ("", 2)])
async def test_a_late_answer_is_billed_by_what_the_estimate_was_billed_by(
    poll: Poll, ledger: Ledger, pool: Pool, plan_version: str, factor: int
) -> None:
    """Whatever holds today: 2, as the setting has it, and so for a row that does not say."""
    await plant(pool, make_plan("standard", "3", valid_to=BEGAN + timedelta(days=1)))
    await estimate(ledger, plan_version=plan_version)
    assert await poll.step_once() == 1
    assert await pool.fetchval("select (sum(billed_usd) * 1000000000)::bigint from openai_usage") == factor * EXACT_NANO
    named = await pool.fetchval("select plan_version from openai_usage where adjusts is not null")
    assert named == (plan_version if "@" in plan_version or ":" in plan_version else "markup:2")


@pytest.mark.parametrize("named", [None, "auto"])
@pytest.mark.parametrize(("asked", "nano"), [("flex", FLEX_NANO), ("auto", EXACT_NANO), (None, EXACT_NANO)])
async def test_a_late_answer_that_says_auto_costs_the_tier_asked_for(
    poll: Poll,
    ledger: Ledger,
    pool: Pool,
    openai: tuple[OpenAI, Upstream],
    named: str | None,
    asked: str | None,
    nano: int,
) -> None:
    """`named`: what OpenAI had said of the tier before the cut. Finished answers do say `auto` (recorded)."""
    openai[0].body = (ANSWER % b"completed").replace(b'"service_tier":"default"', b'"service_tier":"auto"')
    opened = opened_call(await Accounts(ledger.pool).create_user("u@example.com"), service_tier=asked)
    said = Said(response_id="resp_1", service_tier=named)
    await ledger.insert_batch(
        [LedgerEntry.of(SETTLER.settle_estimated(opened, said, NOW, "process_died", Tokens(9, 9)))]
    )
    assert await poll.step_once() == 1
    assert await pool.fetchval("select (sum(cost_usd) * 1000000000)::bigint from openai_usage") == nano
    assert await sums_are_right(pool)


async def test_a_late_answer_costs_the_cache_writes_that_were_asked_for(
    poll: Poll, ledger: Ledger, pool: Pool, openai: tuple[OpenAI, Upstream]
) -> None:
    openai[0].body = (
        (ANSWER % b"completed")
        .replace(b"gpt-5-mini-2025-08-07", CACHING.encode())
        .replace(b'"input_tokens":100', b'"input_tokens":100,"input_tokens_details":{"cache_write_tokens":60}')
    )
    opened = opened_call(await Accounts(ledger.pool).create_user("u@example.com"), model=CACHING, cache_ttl="12h")
    exact = SETTLER.settle_exact(opened, read_body(openai[0].body), NOW)
    estimated = SETTLER.settle_estimated(opened, Said(response_id="resp_1"), NOW, "process_died", Tokens(9, 9))
    await ledger.insert_batch([LedgerEntry.of(estimated)])
    assert await poll.step_once() == 1
    assert exact.evidence == "reported"
    assert (
        exact.cost_nano
        != SETTLER.settle_exact(opened_call("u", model=CACHING), read_body(openai[0].body), NOW).cost_nano
    )
    assert await pool.fetchval("select (sum(cost_usd) * 1000000000)::bigint from openai_usage") == exact.cost_nano


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"{}", "OpenAI has not kept it"),
        (200, b'{"status":"cancelled","usage":null}', "it says no usage"),
        (200, ANSWER.replace(b"gpt-5-mini-2025-08-07", b"gpt-99") % b"completed", "what it says has no price"),
    ],
)
async def test_what_can_never_be_known_is_given_up(
    poll: Poll, ledger: Ledger, pool: Pool, openai: tuple[OpenAI, Upstream], status: int, body: bytes, reason: str
) -> None:
    openai[0].status, openai[0].body = status, body
    await estimate(ledger)
    assert [await poll.step_once() for _ in range(2)] == [0, 0]
    await again(pool)
    assert await poll.step_once() == 0
    assert len(openai[0].asked) == 1
    assert await state(pool) == ("given_up", 1, reason)
    assert await pool.fetchval("select count(*) from openai_usage") == 1


@pytest.mark.parametrize(("status", "body"), [(500, b""), (429, b"{}"), (200, ANSWER % b"in_progress")])
async def test_what_cannot_be_told_yet_is_asked_again_and_not_for_ever(
    poll: Poll, ledger: Ledger, pool: Pool, openai: tuple[OpenAI, Upstream], status: int, body: bytes
) -> None:
    openai[0].status, openai[0].body = status, body
    await estimate(ledger)
    assert await poll.step_once() == 0
    assert await poll.step_once() == 0  # not its turn
    assert len(openai[0].asked) == 1
    for _ in range(POLLS_MAX + 3):
        await again(pool)
        assert await poll.step_once() == 0
    assert len(openai[0].asked) == POLLS_MAX
    assert (await state(pool))[:2] == ("given_up", POLLS_MAX)


@pytest.mark.parametrize(
    "changes", [{"endpoint": "chat", "response_id": "chatcmpl-1"}, {"response_id": None}, {"evidence": "reported"}]
)
async def test_nothing_else_is_asked_about(
    poll: Poll, ledger: Ledger, pool: Pool, openai: tuple[OpenAI, Upstream], changes: dict[str, object]
) -> None:
    await estimate(ledger, **changes)
    assert await poll.step_once() == 0
    assert openai[0].asked == []
    assert await pool.fetchval("select count(*) from open_items") == 0


async def test_two_pollers_share(poll: Poll, ledger: Ledger, pool: Pool, openai: tuple[OpenAI, Upstream]) -> None:
    await estimate(ledger)
    items = OpenItems(pool)
    await items.enlist(rows_max=10)
    first, second = await items.claim(rows_max=10, first_wait_s=60), await items.claim(rows_max=10, first_wait_s=60)
    assert (len(first), len(second)) == (1, 0)
