"""Bodies: too slow is 408, too much at the same time is 503, and what was held is given back."""

import asyncio
import gc
import weakref

from tests.http.guarded import LARGE, Client, Guarded, guarded, settle

HEAD = b"POST /seen HTTP/1.1\r\nHost: x\r\n"


async def begin(server: Guarded, *headers: bytes, body: bytes = b"x", size: int = 1_000_000) -> Client:
    """A client that has sent a part of its body."""
    client = await server.open()
    lines = (b"Content-Length: %d" % size, *headers)
    await client.send(HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)
    return client


async def test_a_body_that_stops_coming_ends_with_408_and_the_connection() -> None:
    async with guarded() as server:
        client = await begin(server, body=b"x" * 300_000)  # enough to be allowed 25 minutes
        server.look(0)
        server.look(15)
        assert server.late("body") == 0
        server.look(21)
        status, said = await client.answer()
        assert (status, said["error"]["code"]) == (408, "request_timeout")
        assert await client.rest() == b""
        assert server.late("body") == 1


async def test_a_body_at_a_byte_a_second_ends_although_it_never_stops() -> None:
    async with guarded() as server:
        client = await begin(server)
        for later_min in range(1, 10):
            await client.send(b"x")
            server.look(later_min)
        assert server.late("body") == 0
        await client.send(b"x")
        server.look(11)
        assert (await client.answer())[0] == 408


async def test_a_large_body_has_the_time_that_its_size_allows() -> None:
    async with guarded() as server:
        client = await begin(server, size=LARGE)
        for later_min in range(0, 300, 10):
            await client.send(b"x" * 250_000)
            server.look(later_min)
        await client.send(b"x" * (LARGE - 30 * 250_000 - 1))
        assert await client.answer() == (200, {"remote": "127.0.0.1", "body": LARGE})
        server.look(1000)
        await client.ask()
        assert (await client.answer())[0] == 200


async def test_chunked_bodies_too() -> None:
    async with guarded() as server:
        client = await server.open()
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        server.look(11)
        assert (await client.answer())[0] == 408


async def test_beyond_the_budget_large_bodies_are_refused_and_small_ones_are_served() -> None:
    async with guarded(bodies_bytes_max=1024 * 1024) as server:
        server.go_on.clear()
        held = [await begin(server, b"Key: %d" % number, body=b"x" * 500_000) for number in range(2)]
        refused = await begin(server, b"Key: 3", body=b"x" * 500_000)
        status, said = await refused.answer()
        assert (status, said["error"]["code"]) == (503, "too_many_uploads")
        server.go_on.set()
        small = await server.open()
        await small.ask("Key: 3", body=b"x" * 60_000)
        assert (await small.answer())[0] == 200
        for client in held:
            await client.send(b"x" * 1000)
        assert server.uploads.held >= 1_000_000
        for client in held:
            client.writer.transport.abort()
        await settle()
        assert server.uploads.held == 0
        client = await server.open()
        await client.ask("Key: 3", body=b"x" * 500_000)
        assert (await client.answer())[0] == 200
        await settle()
        assert server.uploads.held == 0


async def test_one_key_cannot_fill_the_budget() -> None:
    async with guarded(bodies_bytes_max=1024 * 1024) as server:
        await begin(server, b"Key: one", body=b"x" * 400_000)
        second = await begin(server, b"Key: one", body=b"x" * 400_000)
        assert (await second.answer())[0] == 503
        other = await server.open()
        await other.ask("Key: two", body=b"x" * 400_000)
        assert (await other.answer())[0] == 200


async def test_a_body_is_held_until_its_request_is_answered() -> None:
    async with guarded() as server:
        server.go_on.clear()
        client = await server.open()
        await client.ask(body=b"x" * 200_000)
        await server.waiting.wait()
        assert server.uploads.held == 200_000
        server.go_on.set()
        assert (await client.answer())[0] == 200
        await settle()
        assert server.uploads.held == 0


async def test_an_upload_that_was_given_up_is_freed_without_the_collector() -> None:
    async with guarded() as server:
        gc.collect()
        gc.disable()
        try:
            client = await begin(server, body=b"x" * 900_000)
            (upload,) = server.uploads._coming
            content = weakref.ref(upload)
            del upload
            client.writer.transport.abort()
            await settle()
            await asyncio.sleep(0.05)
            assert content() is None
            assert server.uploads.held == 0
        finally:
            gc.enable()
