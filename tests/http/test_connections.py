"""What a client may hold of a connection: time for its head, time to take its answer, and how many connections."""

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.http.guarded import Client, Guarded, guarded, settle
from tests.support.patience import ENDS_S

HALF = b"POST /seen HTTP/1.1\r\nHost: x\r\nContent-"


async def ends(client: Client) -> bytes:
    """All that still comes; the connection must be closed."""
    return await client.rest()


def is_full(server: Guarded) -> bool:
    """Whether readiness says that there is no room for a new connection."""
    return server.connections.failure is not None


async def test_half_a_head_ends_with_408_and_not_before_its_time() -> None:
    async with guarded() as server:
        client = await server.open()
        await client.send(HALF)
        server.look(5)
        await client.send(b"Length: 0\r\n")  # a byte now and then buys no time
        server.look(9)
        assert not client.reader.at_eof()
        server.look(11)
        answer = await ends(client)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer
        assert server.late("head") == 1


async def test_a_silent_new_connection_is_closed_without_an_answer() -> None:
    async with guarded() as server:
        client = await server.open()
        await settle()
        server.look(9)
        assert not client.reader.at_eof()
        server.look(11)
        assert await ends(client) == b""


async def test_a_kept_connection_may_be_idle_and_its_next_head_has_its_own_time() -> None:
    async with guarded() as server:
        client = await server.open()
        await client.ask()
        assert (await client.answer())[0] == 200
        server.look(60)
        await client.ask()
        assert (await client.answer())[0] == 200
        await client.send(HALF)
        server.look(9)
        assert not client.reader.at_eof()
        server.look(11)
        assert (await ends(client)).startswith(b"HTTP/1.1 408 ")


async def test_a_request_that_is_served_is_nobodys_late_head() -> None:
    async with guarded() as server:
        server.go_on.clear()
        client = await server.open()
        await client.ask()
        await server.waiting.wait()
        server.look(1000)
        server.go_on.set()
        assert (await client.answer())[0] == 200


async def slow_reader(server: Guarded) -> Client:
    """A client that asks for much and takes little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    client = server.take(Client(reader, writer))
    await client.ask(path="/seen/large")
    return client


async def test_a_client_that_takes_nothing_of_its_answer_is_cut() -> None:
    async with guarded() as server:
        client = await slow_reader(server)
        server.look(0)
        server.look(59)
        assert server.late("answer") == 0
        server.look(62)
        assert server.late("answer") == 1
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.reader.readexactly(8 * 1024 * 1024)


async def test_a_client_that_reads_slowly_is_not_cut() -> None:
    async with guarded() as server:
        client = await slow_reader(server)
        head = await client.reader.readuntil(b"\r\n\r\n")
        left = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        for later_min in range(0, 2000, 50):
            server.look(later_min)
            left -= len(await client.reader.readexactly(128 * 1024))
            await settle()
        async with asyncio.timeout(ENDS_S):
            await client.reader.readexactly(left)
        assert server.late("answer") == 0


async def test_one_connection_too_many_is_answered_503_and_the_next_after_an_end_is_served() -> None:
    async with guarded(max=3, trusted_proxies="127.0.0.0/8") as server:
        clients = [await server.open() for _ in range(3)]
        await settle()
        late = await server.open()
        assert is_full(server)
        await late.ask()  # it is answered, not cut before its request has come
        answer = await ends(late)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 2\r\n" in answer
        assert b'"code":"too_many_connections"' in answer
        assert server.connections.refused["total"] == 1
        await clients[0].ask()
        assert (await clients[0].answer())[0] == 200
        clients[1].writer.close()
        await settle()
        assert not is_full(server)
        again = await server.open()
        await again.ask()
        assert (await again.answer())[0] == 200


async def test_one_that_is_turned_away_and_asks_nothing_is_closed() -> None:
    async with guarded(max=1) as server:
        await server.open()
        await settle()
        silent = await server.open()
        await settle()
        server.look(9)
        assert not silent.reader.at_eof()
        server.look(11)
        assert await ends(silent) == b""


async def test_what_cannot_be_turned_away_in_good_order_waits() -> None:
    async with guarded(max=1) as server:
        await server.open()
        await settle()
        server.connections._turned_away_max = 2
        silent = [await server.open() for _ in range(2)]
        await settle()
        waiting = await server.open()
        await waiting.ask()
        assert not waiting.reader.at_eof()
        silent[0].writer.transport.abort()
        assert (await ends(waiting)).startswith(b"HTTP/1.1 503 ")


async def test_who_is_turned_away_and_asks_nothing_makes_room_for_others() -> None:
    async with guarded(max=1) as server:
        await server.open()
        await settle()
        server.connections._turned_away_max = 1
        silent, waiting = await server.open(), await server.open()
        await waiting.ask()
        assert (await ends(waiting)).startswith(b"HTTP/1.1 503 ")
        assert (await ends(silent)).startswith(b"HTTP/1.1 503 ")


class NoFileLeft(socket.socket):
    """As a listening socket is at the limit of open files, for a while."""

    refuses = 3

    def accept(self) -> tuple[socket.socket, Any]:
        self.refuses -= 1
        if self.refuses >= 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_a_descriptor_a_connection_waits_and_is_not_cut() -> None:
    async with guarded() as server:
        bound = NoFileLeft()
        bound.bind(("127.0.0.1", 0))
        server.listener.start([bound])
        server.port = bound.getsockname()[1]
        client = await server.open()
        await client.ask()
        assert (await client.answer())[0] == 200
        assert bound.refuses < 0
        assert is_full(server)
        server.look()
        server.look()
        assert not is_full(server)


async def test_a_connection_takes_no_descriptor_that_calls_may_need() -> None:
    async with guarded(files=1024) as server:
        server.connections._file_max = 3  # as if nearly all were in use
        client = await server.open()
        await client.ask()
        assert (await client.answer())[0] == 503
        assert server.connections.refused == {"files": 1}


async def test_drains_take_the_place_of_new_connections() -> None:
    drains = 0
    async with guarded(max=2, drains=lambda: drains) as server:
        assert not is_full(server)
        drains = 3
        client = await server.open()
        await client.ask()
        assert (await client.answer())[0] == 503


async def test_one_address_cannot_have_all_of_them() -> None:
    async with guarded(max=8) as server:
        for _ in range(6):
            await server.open()
        await settle()
        late = await server.open()
        await late.ask()
        assert (await ends(late)).startswith(b"HTTP/1.1 503 ")
        assert server.connections.refused == {"address": 1}


async def test_one_address_with_too_many_keeps_no_other_from_being_accepted() -> None:
    async with guarded(max=8) as server:
        server.connections._turned_away_max = 2
        for _ in range(6):
            await server.open()
        await settle()
        silent = [await server.open() for _ in range(3)]
        for each in silent[1:]:  # at once: they would take the places of those that wait for theirs
            assert (await ends(each)).startswith(b"HTTP/1.1 503 ")
        assert not silent[0].reader.at_eof()
        assert len(server.connections._turned_away) == 1
        other = asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
        client = server.take(Client(*await other))
        await client.ask()
        assert (await client.answer())[0] == 200


async def test_there_are_never_more_than_the_limit_of_files_allows() -> None:
    async with guarded(files=1024) as server:
        assert server.connections.max == (1024 - 256) // 2
    async with guarded(files=100) as server:
        assert server.connections.max == 1


async def test_balancers_are_not_counted_as_one_client() -> None:
    async with guarded(max=8, per_address_max=2, trusted_proxies="127.0.0.0/8") as server:
        clients = [await server.open() for _ in range(6)]
        for client in clients:
            await client.ask("X-Forwarded-For: 192.0.2.7")
            assert (await client.answer())[0] == 200
        assert not server.connections.refused


async def test_a_key_with_too_many_connections_is_told_and_others_are_not() -> None:
    async with guarded(per_key_max=2) as server:
        clients = [await server.open() for _ in range(3)]
        for client in clients[:2]:
            for _ in range(3):  # calls on one connection count once
                await client.ask("Key: one")
                assert (await client.answer())[0] == 200
        await clients[2].ask("Key: one")
        status, said = await clients[2].answer()
        assert (status, said["error"]["code"]) == (429, "too_many_connections")
        await clients[2].ask("Key: two")
        assert (await clients[2].answer())[0] == 200
        await clients[0].ask("Key: two")  # it is no longer the first one's
        assert (await clients[0].answer())[0] == 200
        clients[1].writer.close()
        await settle()
        for client in [await server.open() for _ in range(2)]:
            await client.ask("Key: one")
            assert (await client.answer())[0] == 200


async def test_a_client_that_left_before_its_key_was_known_holds_no_place_of_the_key() -> None:
    async with guarded(per_key_max=2) as server:
        for _ in range(3):
            client = await server.open()
            await client.ask()
            assert (await client.answer())[0] == 200
            (connection,) = server.connections._open
            client.writer.transport.abort()
            await settle()
            server.connections.own(connection, "one")  # the answer about the key came too late
        assert not server.connections._owners
        client = await server.open()
        await client.ask("Key: one")
        assert (await client.answer())[0] == 200


async def test_the_counts_come_back_to_nothing() -> None:
    async with guarded(max=4, per_address_max=3) as server:
        for _ in range(5):
            clients = [await server.open() for _ in range(6)]
            await settle()
            for client in clients:
                client.writer.transport.abort()
            await settle()
        figures = {sample.name: sample.value for sample in server.connections.samples()}
        assert figures["gateway_connections"] == 0
        assert not server.connections._buckets
        assert not server.connections._owners


@pytest.mark.parametrize(
    "case",
    [
        test_half_a_head_ends_with_408_and_not_before_its_time,
        test_a_client_that_takes_nothing_of_its_answer_is_cut,
        test_a_client_that_reads_slowly_is_not_cut,
        test_one_connection_too_many_is_answered_503_and_the_next_after_an_end_is_served,
        test_the_counts_come_back_to_nothing,
    ],
)
def test_the_same_on_the_loop_of_the_process(case: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """uvloop's transports are its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(case())
