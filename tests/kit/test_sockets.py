"""Every outward connection notices an end that is gone: what the kernel was told about it."""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from gateway.embedded import Embedded
from gateway.kit.sockets import TCP_OPTIONS, keep_alive
from gateway.stores.postgres import open_pool
from gateway.stores.redis import open_redis
from tests.chaos.tcp import Link

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="options of Linux")


def options(sock: Any) -> dict[int, int]:
    return {option: sock.getsockopt(socket.IPPROTO_TCP, option) for option in TCP_OPTIONS}


def is_kept(sock: Any) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) and options(sock) == TCP_OPTIONS


def test_it_is_asked_before_any_network_forgets() -> None:
    assert TCP_OPTIONS == {
        socket.TCP_KEEPIDLE: 60,
        socket.TCP_KEEPINTVL: 10,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 30_000,
    }


def test_a_unix_socket_is_not_changed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keep_alive(ours)
        assert not ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_connections_to_postgres(embedded: Embedded) -> None:
    folder, port = parse_qs(urlsplit(embedded.database_url).query).values()
    async with Link(Path(folder[0]) / f".s.PGSQL.{port[0]}").running() as link:
        user = urlsplit(embedded.database_url).username
        pool = await open_pool(f"postgresql://{user}@127.0.0.1:{link.port}/postgres", connections_max=1)
        connection: Any
        async with pool.acquire() as connection:
            assert is_kept(connection._transport.get_extra_info("socket"))
        await pool.close()


async def test_connections_to_redis(embedded: Embedded) -> None:
    async with Link(Path(unquote(urlsplit(embedded.redis_url).path))).running() as link:
        redis = open_redis(f"redis://127.0.0.1:{link.port}/0")
        connections: Any = redis.connection_pool
        connection = await connections.get_connection()
        assert is_kept(connection._writer.get_extra_info("socket"))
        await connections.release(connection)
        await redis.aclose()
