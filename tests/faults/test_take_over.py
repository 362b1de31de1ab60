"""A new `serve` takes over from the one that runs: no connection is refused or reset, every stream is whole."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from gateway.processes.stack import Gateway
from gateway.processes.supervisor import listen
from gateway.processes.take_over import Successor, find_predecessor
from tests.faults.test_many_streams import Upstream
from tests.support.gateway import Process, Stack, stack
from tests.support.patience import ENDS_S
from tests.support.servers import free_port, on_database
from tests.support.whole_gateway import settled_rows

TAKE_OVERS: Final = 5
STREAMS: Final = 12
CLIENTS: Final = 4
_CALL: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
BODY: Final = json.dumps(_CALL | {"stream_options": {"include_usage": True}}).encode()


@pytest.fixture
def ground(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path, database_url, redis_url, FLUSH__STREAM=f"usage-{uuid4().hex}") as made:
        made.prepare()
        made.env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{free_port()}/v1"
        yield made


@asynccontextmanager
async def openai(ground: Stack, held: int) -> AsyncIterator[Upstream]:
    """Its first `held` answers end when the test says so, all others at once."""
    made, port = Upstream(held), urlsplit(ground.env["OPENAI_BASE_URL"]).port
    async with await asyncio.start_server(made.serve, "127.0.0.1", port):
        yield made


async def call(ground: Stack) -> bytes:
    """The answer to one call on a connection of its own, as it came. Raises OSError: refused, or reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", ground.port)
    try:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ground.key}\r\n"
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        return await reader.read()
    finally:
        writer.transport.abort()


def is_whole(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200 ") and b"data: [DONE]" in answer and answer.endswith(b"0\r\n\r\n")


async def serve(ground: Stack, *arguments: str) -> Process:
    made = ground.run("serve", "--workers", "2", *arguments)
    await asyncio.to_thread(made.wait_for, "metrics and readiness on")
    return made


async def ended(process: Process) -> int:
    return await asyncio.to_thread(process.popen.wait, ENDS_S * 3)


async def is_ready(ground: Stack) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", ground.admin_port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200 ")


class Clients:
    """Call again and again, each time on a new connection."""

    def __init__(self, ground: Stack) -> None:
        self.ground: Final = ground
        self.told: Final = Counter[str]()
        self._stop: Final = asyncio.Event()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._call())
            try:
                yield
            finally:
                self._stop.set()

    async def _call(self) -> None:
        while not self._stop.is_set():
            try:
                answer = await call(self.ground)
            except OSError as error:
                self.told[type(error).__name__] += 1
            else:
                self.told["whole" if is_whole(answer) else answer[:40].decode()] += 1


@pytest.mark.long
async def test_no_connection_is_refused_or_reset_and_every_stream_is_whole(ground: Stack) -> None:
    async with openai(ground, STREAMS) as upstream:
        gateways = [await serve(ground)]
        streams = [asyncio.create_task(call(ground)) for _ in range(STREAMS)]
        async with asyncio.timeout(ENDS_S):
            while upstream.begun < STREAMS:
                await asyncio.sleep(0.05)
        clients = Clients(ground)
        async with clients.calling():
            for _ in range(TAKE_OVERS):
                before = clients.told.total()
                gateways.append(await serve(ground, "--take-over"))
                async with asyncio.timeout(ENDS_S):
                    while clients.told.total() < before + 20 or not await is_ready(ground):
                        await asyncio.sleep(0.05)
            assert not any(stream.done() for stream in streams)
            assert gateways[0].popen.poll() is None  # it finishes its streams
            upstream.end.set()
        assert all(map(is_whole, await asyncio.gather(*streams)))
        assert [await ended(gateway) for gateway in gateways[:-1]] == [0] * TAKE_OVERS
        assert set(clients.told) == {"whole"}, clients.told
        rows = await settled_rows(ground.env["DATABASE_URL"], STREAMS + clients.told.total())
        assert {row["evidence"] for row in rows} == {"reported"}
        assert gateways[-1].stop() == 0


@pytest.mark.long
async def test_one_that_fails_to_start_leaves_the_other_serving(ground: Stack) -> None:
    async with openai(ground, 0):
        await serve(ground)
        clients, good = Clients(ground), ground.env.copy()
        async with clients.calling():
            ground.env["DATABASE_URL"] = on_database(good["DATABASE_URL"], "postgres")  # without our schema
            failing = ground.run("serve", "--take-over", "--wait", "5")
            assert await ended(failing) != 0
            ground.env.clear()
            ground.env.update(good)
            async with asyncio.timeout(ENDS_S):
                while not await is_ready(ground):
                    await asyncio.sleep(0.1)
        assert "taking over from process" in failing.output()
        assert set(clients.told) == {"whole"}, clients.told
        await settled_rows(ground.env["DATABASE_URL"], clients.told.total())
        await serve(ground, "--take-over")


@pytest.mark.long
@pytest.mark.parametrize("dies", ["old", "new"])
async def test_whichever_is_killed_the_other_serves(ground: Stack, dies: str) -> None:
    async with openai(ground, 0):
        old = await serve(ground)
        assert is_whole(await call(ground))
        new = ground.run("serve", "--workers", "2", "--take-over")
        await asyncio.to_thread(new.wait_for, "taking over from process")
        (old if dies == "old" else new).popen.send_signal(signal.SIGKILL)
        if dies == "old":
            await asyncio.to_thread(new.wait_for, "metrics and readiness on")
        async with asyncio.timeout(ENDS_S):
            while not await is_ready(ground):
                await asyncio.sleep(0.1)
        assert is_whole(await call(ground))
        rows = await settled_rows(ground.env["DATABASE_URL"], 2)
        assert {row["evidence"] for row in rows} == {"reported"}
        assert (new if dies == "old" else old).popen.poll() is None


@pytest.mark.long
async def test_the_keeper_comes_back_when_the_one_that_asked_for_its_place_is_gone(ground: Stack) -> None:
    async with openai(ground, 0):
        ground.serve = await serve(ground)
        keeper = ground.pid_of("keeper")
        async with AsyncExitStack() as asked:
            old = await find_predecessor(Path(ground.env["GATEWAY_DATA_DIR"]), asked, print)
            assert old is not None
            assert len(old.listeners("127.0.0.1", ground.port)) == 2
            assert len(old.listeners("127.0.0.1", ground.admin_port)) == 1
            await old.stop_keeper()
            assert not Path(f"/proc/{keeper}").exists()
            assert is_whole(await call(ground))
        assert await asyncio.to_thread(ground.pid_of, "keeper") != keeper
        await settled_rows(ground.env["DATABASE_URL"], 1)
        assert os.stat(Path(ground.env["GATEWAY_DATA_DIR"]) / "serve.sock").st_mode & 0o077 == 0


@pytest.mark.long
async def test_one_that_is_stopped_while_it_hands_over_ends(ground: Stack) -> None:
    async with openai(ground, 0):
        serving = await serve(ground)
        assert is_whole(await call(ground))
        async with AsyncExitStack() as asked:
            old = await find_predecessor(Path(ground.env["GATEWAY_DATA_DIR"]), asked, print)
            assert old is not None
            await old.stop_keeper()
            serving.popen.send_signal(signal.SIGTERM)
            assert await ended(serving) == 0
            await old.leave()  # it is gone: nothing to wait for
        # The call's row needs a keeper, which only the one that takes over has.
        await serve(ground, "--take-over")
        await settled_rows(ground.env["DATABASE_URL"], 1)


class StopsTheOther:
    """As much of a gateway as hands over. The one that asked is told to stop when it has the keeper's place."""

    def __init__(self) -> None:
        self.asker: Process
        self.goes_on: Final = asyncio.Event()

    async def stop_keeper(self) -> None:
        self.asker.popen.send_signal(signal.SIGTERM)

    async def start_keeper(self) -> None:
        self.goes_on.set()


@pytest.mark.long
async def test_one_that_is_stopped_before_it_serves_leaves_the_other_serving(ground: Stack) -> None:
    folder = Path(ground.env["GATEWAY_DATA_DIR"])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as opened:
        listeners = [opened.enter_context(listen("127.0.0.1", port)) for port in (ground.admin_port, ground.port)]
        serving = StopsTheOther()
        running = Successor(folder, listeners, [0], cast("Gateway", serving))
        running.open(opened)
        waiting = asyncio.create_task(running.wait())
        serving.asker = ground.run("serve", "--take-over")
        async with asyncio.timeout(ENDS_S * 3):
            await serving.goes_on.wait()
        assert await ended(serving.asker) == 0
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.long
async def test_without_one_that_runs_it_starts_as_ever_and_a_second_one_is_refused_unless_it_asks(
    ground: Stack,
) -> None:
    await serve(ground, "--take-over")
    second = ground.run("serve", "--wait", "0")
    assert await ended(second) == 1
    assert "cannot listen" in second.output()
    assert await is_ready(ground)
