"""One small gateway after another on the same ground (sandbox, database, journal), each to be killed somewhere.

The ground is kept: the checks look at all that was ever called on it, and what one gateway left open the next one must
settle.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import aiohttp
import asyncpg

from tests.chaos.checks import Verdict, billed, healed, until, verdict
from tests.chaos.entry import MODULE
from tests.support.gateway import Stack

HEAL_S: Final = 90.0
BACK_S: Final = 300.0
"""Only ever waited for in full when nobody dies, or nobody takes the place of who has died."""
QUICK: Final = {
    "BILLING__WINDOW_S": "1",
    "BILLING__GRACE_S": "0",
    "BILLING__INTERVAL_S": "0.2",
    "JOURNAL__CONFIRM_AFTER_S": "0.3",
    "FLUSH__CLAIM_IDLE_S": "0.5",
}
"""Settings under which everything that waits comes around soon."""
_CHAT: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me a story"}]}
BODIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/chat/completions", {**_CHAT, "stream": True}),
    ("/responses", {"model": "gpt-4o-mini", "input": "Tell me a story", "stream": True}),
    ("/embeddings", {"model": "text-embedding-3-small", "input": "A story"}),
    ("/chat/completions", _CHAT),
)
"""Calls as they are made, in turn."""


class Scene(NamedTuple):
    """A gateway that runs, and the file that is there once its failpoint has killed one of its processes."""

    ground: Stack
    died: Path

    async def call(self, path: str, body: dict[str, Any]) -> int | None:
        """One call on a connection of its own: its status, 0 when it was cut, None when it never got in."""
        headers = {"Authorization": f"Bearer {self.ground.key}"}
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            try:
                async with session.post(self.ground.base_url + path, json=body) as answer:
                    await answer.read()
                    return answer.status
            except aiohttp.ClientConnectorError:
                return None
            except (aiohttp.ClientError, ConnectionError):
                return 0

    async def call_until_killed(self, *, calls_max: int) -> Counter[int | None]:
        """Calls one after the other until a process has died, and one that is answered after that; their statuses."""
        seen: Counter[int | None] = Counter()
        got_in = 0
        async with asyncio.timeout(BACK_S):
            while got_in < calls_max:
                killed = self.died.exists()
                status = await self.call(*BODIES[got_in % len(BODIES)])
                seen[status] += 1
                if killed and status == 200:
                    return seen
                if status is None:
                    await asyncio.sleep(0.1)
                else:
                    got_in += 1
        raise AssertionError(f"nobody died in {calls_max} calls: {seen}")

    async def left_in_the_middle(self, calls: int) -> None:
        """Streams that are cut because their proxy is killed."""
        self.ground.control("openai", body={"times": calls, "interval_s": 0.2, "chunks": 100})
        begun = asyncio.Semaphore(0)

        async def stream() -> None:
            path, body = BODIES[0]
            headers = {"Authorization": f"Bearer {self.ground.key}"}
            with contextlib.suppress(aiohttp.ClientError):
                async with (
                    aiohttp.ClientSession(headers=headers) as session,
                    session.post(self.ground.base_url + path, json=body) as answer,
                ):
                    await answer.content.readany()
                    begun.release()
                    await answer.read()

        async with asyncio.TaskGroup() as streams:
            for _ in range(calls):
                streams.create_task(stream())
            for _ in range(calls):
                await begun.acquire()
            os.kill(self.ground.pid_of("proxy"), signal.SIGKILL)

    async def verdict(self, rows: int, within_s: float = HEAL_S) -> Verdict:
        """Once the ledger holds `rows` calls and all of them are billed, or after so many seconds of each."""
        dsn = self.ground.env["DATABASE_URL"]
        await until(dsn, within_s, f"select count(*) >= {rows} from openai_usage where adjusts is null")
        truth = await asyncio.to_thread(self.truth)
        await healed(dsn, truth, within_s)
        await billed(dsn, within_s)
        return await verdict(dsn, truth, self.stripe_events())

    def truth(self) -> dict[str, dict[str, Any]]:
        """OpenAI's calls by event id."""
        named = {one["client_request_id"]: one for one in self.ground.truth()}
        named.pop(None, None)  # the sweeper's own questions
        return named

    def stripe_events(self) -> list[dict[str, Any]]:
        """What Stripe has accepted."""
        events: list[dict[str, Any]] = self.ground.control("stripe", "GET", "/events")["events"]
        return events


@contextlib.contextmanager
def scene(ground: Stack, *, failpoint: str | None = None, planted: str | None = None) -> Iterator[Scene]:
    """A gateway with one proxy, which is stopped in order when the context ends."""
    died = ground.folder / f"died-{uuid4().hex}"
    wanted = {"CHAOS_DIED": str(died), "CHAOS_FAILPOINT": failpoint, "CHAOS_PLANTED": planted}
    added = {name: value for name, value in wanted.items() if value is not None}
    ground.env.update(added)
    try:
        ground.serve = ground.run("serve", "--workers", "1", module=MODULE)
    finally:
        for name in added:
            del ground.env[name]
    try:
        ground.serve.wait_for("serving http")
        yield Scene(ground, died)
    finally:
        ground.serve.stop()


async def rows_of(ground: Stack) -> list[asyncpg.Record]:
    """Every call's row, oldest first."""
    connection = await asyncpg.connect(ground.env["DATABASE_URL"])
    try:
        return list(await connection.fetch("select * from openai_usage where adjusts is null order by id"))
    finally:
        await connection.close()
