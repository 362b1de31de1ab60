"""A rolling restart of two gateways under load, behind whatever looks at /readyz: no client sees an error."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from tests.support.gateway import Stack, stack
from tests.support.whole_gateway import settled_rows

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
NOTICE_S = "6"
"""Long enough for a busy machine to look at both."""


@pytest.fixture
def pair(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    """Two hosts, so to speak: one ledger, one Redis, one set of vendors, two journals."""
    environ = {"FLUSH__STREAM": f"usage-{uuid4().hex}", "GATEWAY_STOP_NOTICE_S": NOTICE_S}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with (
        stack(tmp_path / "one", database_url, redis_url, **environ) as one,
        stack(tmp_path / "two", database_url, redis_url, **environ) as two,
    ):
        one.start()
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "UNKEY_ROOT_KEY", "UNKEY_API_ID", "UNKEY_BASE_URL"):
            two.env[name] = one.env[name]
        serve(two)
        yield one, two


def serve(host: Stack) -> None:
    """Starts it, again."""
    host.serve = host.run("serve")
    host.serve.wait_for("serving http")


class Balancer:
    """Knows which hosts are ready, as of a moment ago."""

    def __init__(self, hosts: tuple[Stack, Stack]) -> None:
        self.hosts = hosts
        self.ready: list[Stack] = []

    @contextlib.asynccontextmanager
    async def looking(self, session: aiohttp.ClientSession) -> AsyncIterator[None]:
        async def look() -> None:
            while True:
                ready = []
                for host in self.hosts:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(f"{host.base_url.removesuffix('/v1')}/readyz") as got:
                            ready += [host] if got.status == 200 else []
                self.ready = ready
                await asyncio.sleep(0.1)

        task = asyncio.create_task(look())
        try:
            while not self.ready:
                await asyncio.sleep(0.05)
            yield
        finally:
            task.cancel()


async def test_no_client_sees_a_rolling_restart(pair: tuple[Stack, Stack]) -> None:
    one, _ = pair
    one.control("openai", "POST", "/pace", {"first_s": 0.02, "interval_s": 0.02})
    balancer, served, stop = Balancer(pair), Counter[str](), asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    headers = {"Authorization": f"Bearer {one.key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def client(number: int) -> None:
            while not stop.is_set():
                host = balancer.ready[number % len(balancer.ready)]
                body = {**BODY, "stream": number % 2 == 0}
                async with session.post(f"{host.base_url}/chat/completions", json=body) as got:
                    data = await got.read()
                    assert got.status == 200, data
                    assert number % 2 or data.endswith(b"data: [DONE]\n\n")
                served["one" if host is one else "two"] += 1

        async with balancer.looking(session), asyncio.TaskGroup() as clients:
            for number in range(12):
                clients.create_task(client(number))
            await asyncio.sleep(1)
            for host in pair:
                assert await asyncio.to_thread(host.serve.stop) == 0
                await asyncio.to_thread(serve, host)
                await asyncio.sleep(0.5)
            stop.set()
    rows = await settled_rows(one.env["DATABASE_URL"], served.total())
    assert {row["evidence"] for row in rows} == {"reported"}
    assert served["one"] > 10
    assert served["two"] > 10
