"""The TCP proxy of the chaos runs does to connections what it says: a fault that does not happen proves nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.tcp import Link, wires

WAIT_S = 60.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says everything back until the other side has ended."""
    try:
        while piece := await reader.read(1000):
            writer.write(piece)
        writer.write(b"|end")
    except OSError:
        return
    finally:
        writer.close()


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """In front of a server that echoes."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Link(server.sockets[0].getsockname()[:2]).running() as made:
        yield made


class Line:
    """One connection through the link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def says(self, text: bytes) -> bytes:
        """What comes back for it."""
        self.writer.write(text)
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readexactly(len(text))

    async def rest(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read(-1)


Dial = Callable[[Link], Awaitable[Line]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Makes connections, and closes them at the end."""
    lines: list[Line] = []

    async def connect(link: Link) -> Line:
        lines.append(Line(*await asyncio.open_connection("127.0.0.1", link.port)))
        return lines[-1]

    yield connect
    for line in lines:
        line.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await line.writer.wait_closed()


async def test_it_passes_everything_and_each_end(link: Link, dial: Dial) -> None:
    line = await dial(link)
    assert await line.says(b"x" * 200_000) == b"x" * 200_000
    assert link.connections == 1
    line.writer.write_eof()
    assert await line.rest() == b"|end"
    assert link.passed_bytes == 400_004


async def test_a_cut_after_so_many_bytes(link: Link, dial: Dial) -> None:
    line = await dial(link)
    assert await line.says(b"hello") == b"hello"
    link.set("cut", after_bytes=13)
    line.writer.write(b"0123456789")
    with pytest.raises(ConnectionResetError):
        await line.rest()
    assert await (await dial(link)).says(b"again") == b"again"


async def test_a_cut_at_once_takes_every_connection(link: Link, dial: Dial) -> None:
    lines = [await dial(link) for _ in range(3)]
    for line in lines:
        assert await line.says(b"hello") == b"hello"
    link.set("cut")
    for line in lines:
        with pytest.raises(ConnectionResetError):
            await line.rest()


async def test_refusing_ends_what_is_there_and_lets_nobody_in(link: Link, dial: Dial) -> None:
    line = await dial(link)
    assert await line.says(b"hello") == b"hello"
    link.set("refuse")
    for refused in (line, await dial(link)):
        with pytest.raises(ConnectionResetError):
            await refused.rest()
    link.set("pass")
    assert await (await dial(link)).says(b"again") == b"again"


async def test_a_delay_is_paid_in_both_directions(link: Link, dial: Dial) -> None:
    line = await dial(link)
    link.set("delay", delay_s=0.1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await line.says(b"hello") == b"hello"
    assert loop.time() - begun >= 0.2


async def test_swallowed_bytes_come_when_it_is_over(link: Link, dial: Dial) -> None:
    line = await dial(link)
    assert await line.says(b"hello") == b"hello"
    before = link.passed_bytes
    link.set("swallow")
    line.writer.write(b"still there?")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await line.reader.read(1)
    assert (link.passed_bytes, link.connections) == (before, 1)
    link.set("pass")
    async with asyncio.timeout(WAIT_S):
        assert await line.reader.readexactly(12) == b"still there?"


async def test_a_forgotten_connection_stays_silent_and_new_ones_work(link: Link, dial: Dial) -> None:
    line = await dial(link)
    assert await line.says(b"hello") == b"hello"
    link.forget()
    line.writer.write(b"still there?")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await line.reader.read(1)
    assert await (await dial(link)).says(b"again") == b"again"


async def test_it_leads_to_another_server_and_keeps_what_is_there(link: Link, dial: Dial, tmp_path: Path) -> None:
    line = await dial(link)
    assert await line.says(b"hello") == b"hello"
    link.lead_to(tmp_path / "nobody")
    assert await line.says(b"still here") == b"still here"
    with pytest.raises(ConnectionResetError):
        await (await dial(link)).rest()


async def test_a_half_close_ends_one_direction(link: Link, dial: Dial) -> None:
    line = await dial(link)
    assert await line.says(b"hello") == b"hello"
    link.set("half-close")
    assert await line.rest() == b""
    before = link.passed_bytes
    line.writer.write(b"hello?")  # the other direction still works
    await line.writer.drain()
    async with asyncio.timeout(WAIT_S):
        while link.passed_bytes < before + 6:
            await asyncio.sleep(0.01)


async def test_a_server_that_is_not_there(tmp_path: Path, dial: Dial) -> None:
    async with Link(tmp_path / "nobody").running() as made:
        with pytest.raises(ConnectionResetError):
            await (await dial(made)).rest()


async def test_it_runs_in_a_thread_of_its_own_in_front_of_a_unix_socket(tmp_path: Path, dial: Dial) -> None:
    path = tmp_path / "echo"
    server = await asyncio.start_unix_server(echo, path)
    with wires() as made:
        link = await asyncio.to_thread(made.link, path)
        line = await dial(link)
        assert await line.says(b"hello") == b"hello"
        made.set(link, "cut")
        with pytest.raises(ConnectionResetError):
            await line.rest()
    server.close()
    await server.wait_closed()
