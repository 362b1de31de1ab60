"""/metrics over two proxies: it adds up to the ledger, survives a kill, and no series is made by what clients send."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway.openai.routing import CATALOGUE
from tests.support.gateway import Stack
from tests.support.patience import until
from tests.support.whole_gateway import settled_rows

HELLO = [{"role": "user", "content": "Hello"}]
Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


def by_call(metrics: Metrics, name: str) -> dict[tuple[str, str], int]:
    """One of the families that count calls, by endpoint and evidence."""
    found: Counter[tuple[str, str]] = Counter()
    for (sample, labels), value in metrics.items():
        if sample == name:
            told = dict(labels)
            found[told["endpoint"], told["evidence"]] += int(value)
    return dict(found)


async def load(stack: Stack) -> None:
    """Calls of each kind, refusals, a failure of OpenAI's, and a client that leaves."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    headers = {"Authorization": f"Bearer {stack.key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def post(path: str, body: dict[str, Any], **more: Any) -> int:
            async with session.post(f"{stack.base_url}{path}", json=body, **more) as got:
                await got.read()
                return got.status

        chat = {"model": "gpt-4o-mini", "messages": HELLO}
        calls = [post("/chat/completions", chat) for _ in range(30)]
        calls += [post("/chat/completions", {**chat, "stream": True}) for _ in range(10)]
        calls += [post("/responses", {"model": "gpt-5", "input": "Hello"}) for _ in range(10)]
        calls += [post("/embeddings", {"model": "text-embedding-3-small", "input": "Hello"}) for _ in range(10)]
        assert Counter(await asyncio.gather(*calls)) == {200: 60}
        assert await post("/chat/completions", chat, headers={"Authorization": "Bearer wrong"}) == 401
        stack.control("openai", body={"times": 1, "status": 429, "retry_after_s": 1})
        assert await post("/chat/completions", chat) == 429
        stack.control("openai", body={"interval_s": 0.3, "chunks": 10})
        leaving = await session.post(f"{stack.base_url}/chat/completions", json={**chat, "stream": True})
        await leaving.content.readany()
        leaving.close()
        stack.control("openai", "DELETE")


async def hostile(stack: Stack) -> None:
    """Models, paths, keys, methods and meetings that nobody has seen before."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {stack.key}"}) as session:
        for number in range(20):
            requests: list[tuple[str, str, dict[str, Any]]] = [
                ("POST", "/chat/completions", {"json": {"model": f"model-{number}", "messages": HELLO}}),
                ("GET", f"/models/model-{number}", {}),
                ("GET", f"/path-{number}", {}),
                (f"METHOD{number}", "/models", {}),
                ("GET", "/models", {"headers": {"Authorization": f"Bearer key-{number}"}}),
                ("POST", "/embeddings", {"json": {"model": "m"}, "headers": {"X-Meeting-Id": f"meeting-{number}"}}),
            ]
            for method, path, more in requests:
                async with session.request(method, stack.base_url + path, **more) as got:
                    await got.read()


@pytest.mark.long
async def test_two_proxies_add_up_to_the_ledger_and_a_kill_loses_nothing(fresh_stack: Stack) -> None:
    stack = fresh_stack
    stack.start(workers=2)
    await load(stack)
    rows = await settled_rows(stack.env["DATABASE_URL"], 62)
    columns: dict[str, Callable[[asyncpg.Record], int]] = {
        "gateway_calls_total": lambda row: 1,
        "gateway_cost_nano_usd_total": lambda row: int((row["cost_usd"] or 0) * 10**9),
        "gateway_billed_nano_usd_total": lambda row: int((row["billed_usd"] or 0) * 10**9),
        "gateway_prompt_tokens_total": lambda row: row["prompt_tokens"] or 0,
        "gateway_completion_tokens_total": lambda row: row["completion_tokens"] or 0,
    }
    expected: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in columns}
    for row in rows:
        for name, figure in columns.items():
            expected[name][row["endpoint"], row["evidence"]] += figure(row)
    assert set(expected["gateway_calls_total"]) >= {("chat", "reported"), ("chat", "drained"), ("chat", "void")}

    def adds_up() -> bool:
        metrics = stack.metrics()
        return all(by_call(metrics, name) == dict(figures) for name, figures in expected.items())

    await until(adds_up)
    one = stack.metrics()
    assert one["gateway_refused_total", frozenset({("code", "invalid_api_key")})] == 1
    assert one["gateway_upstream_errors_total", frozenset({("kind", "http_429")})] == 1
    assert one["gateway_clients_left_total", frozenset()] == 1
    assert sum(value for (name, _), value in one.items() if name == "gateway_added_seconds_count") == 62
    assert one["gateway_journal_commit_seconds_count", frozenset()] > 0
    await until(lambda: stack.metrics()["gateway_flushed_total", frozenset()] == 62)

    os.kill(stack.pid_of("proxy"), signal.SIGKILL)
    restarted = frozenset({("process", "proxy-0")}), frozenset({("process", "proxy-1")})
    await until(lambda: sum(stack.metrics()["gateway_process_starts_total", which] for which in restarted) == 3)
    assert adds_up()
    await until(lambda: all(stack.metrics()["gateway_process_up", which] for which in restarted))

    await hostile(stack)
    await until(lambda: stack.metrics()["gateway_refused_total", frozenset({("code", "invalid_api_key")})] == 21)
    before = set(stack.metrics())
    await hostile(stack)
    await until(lambda: stack.metrics()["gateway_refused_total", frozenset({("code", "invalid_api_key")})] == 41)
    after = set(stack.metrics())
    assert after == before
    names = {entry.name for entry in CATALOGUE}
    assert {dict(labels)["endpoint"] for _, labels in after if "endpoint" in dict(labels)} <= names
