"""The PROXY header, alone and on connections: every whole one is read, cut anywhere it is waited for, else refused."""

from ipaddress import IPv4Address, IPv6Address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.proxy_protocol import V1_BYTES_MAX, V2_BYTES_MAX, Header, Malformed, parse_header
from tests.http.guarded import guarded

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = st.integers(0, 65535)


def v1(source: object, target: object, ports: tuple[int, int] = (4711, 443)) -> bytes:
    family = "TCP4" if isinstance(source, IPv4Address) else "TCP6"
    return f"PROXY {family} {source} {target} {ports[0]} {ports[1]}\r\n".encode()


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + pack(">BBH", command, family, len(addresses)) + addresses


def addressed(source: IPv4Address | IPv6Address, target: IPv4Address | IPv6Address, more: bytes = b"") -> bytes:
    family = 0x11 if isinstance(source, IPv4Address) else 0x21
    return v2(0x21, family, source.packed + target.packed + pack(">HH", 4711, 443) + more)


PAIRS = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
HEADERS = st.one_of(
    st.builds(lambda pair, one, two: (v1(pair[0], pair[1], (one, two)), str(pair[0])), PAIRS, PORTS, PORTS),
    st.builds(lambda pair, more: (addressed(pair[0], pair[1], more), str(pair[0])), PAIRS, st.binary(max_size=200)),
    st.builds(lambda rest: (v2(0x20, 0x00, rest), None), st.binary(max_size=200)),
    st.just((b"PROXY UNKNOWN\r\n", None)),
)


@given(HEADERS, st.binary(max_size=50))
def test_a_whole_header_is_read_and_what_follows_is_left(made: tuple[bytes, str | None], after: bytes) -> None:
    header, source = made
    assert parse_header(header + after) == Header(len(header), source)


@given(HEADERS, st.data())
def test_a_part_of_one_is_waited_for(made: tuple[bytes, str | None], data: st.DataObject) -> None:
    header = made[0]
    assert parse_header(header[: data.draw(st.integers(0, len(header) - 1))]) is None


@given(st.binary(max_size=300) | st.builds(lambda rest: SIGNATURE + rest, st.binary(max_size=60)))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    try:
        header = parse_header(data)
    except Malformed:
        return
    assert header is None or 0 < header.size <= len(data)


@given(st.binary(max_size=100), st.sampled_from([b"", b"PROXY ", SIGNATURE]))
def test_nothing_is_waited_for_without_end(data: bytes, start: bytes) -> None:
    data += bytes(V2_BYTES_MAX)
    try:
        assert parse_header(start + data) is not None
    except Malformed:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST",
        b"proxy TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
        b"PROXY  TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 \r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n",
        b"PROXY TCP4 192.0.2.007 192.0.2.8 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n\r\n",
        b"PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n",
        b"PROXY " + b"x" * V1_BYTES_MAX,
        SIGNATURE + pack(">BBH", 0x11, 0x11, 12) + bytes(12),  # version 1 in the form of 2
        SIGNATURE + pack(">BBH", 0x22, 0x11, 12) + bytes(12),  # a command that there is none of
        SIGNATURE + pack(">BBH", 0x21, 0x12, 12) + bytes(12),  # UDP
        SIGNATURE + pack(">BBH", 0x21, 0x31, 216) + bytes(216),  # a Unix socket
        SIGNATURE + pack(">BBH", 0x21, 0x11, 11) + bytes(11),  # addresses that are cut
        SIGNATURE + pack(">BBH", 0x21, 0x21, 12) + bytes(12),
        SIGNATURE + pack(">BBH", 0x20, 0x00, 65535),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_header(data)


CLIENT = IPv4Address("192.0.2.7")
REQUEST = b"POST /seen HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        (v1(CLIENT, CLIENT), "192.0.2.7"),
        (addressed(CLIENT, CLIENT), "192.0.2.7"),
        (addressed(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")), "2001:db8::1"),
        (v2(0x20, 0x00, b""), "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("piecewise", [False, True])
async def test_a_connection_is_its_clients(header: bytes, seen: str, piecewise: bool) -> None:
    async with guarded(trusted_proxies="127.0.0.1", proxy_protocol=True) as server:
        client = await server.open()
        if piecewise:
            for number in range(len(header)):
                await client.send(header[number : number + 1])
            await client.send(REQUEST)
        else:
            await client.send(header + REQUEST + REQUEST)
            assert await client.answer() == (200, {"remote": seen, "body": 5})
        assert await client.answer() == (200, {"remote": seen, "body": 5})
        await client.ask("X-Forwarded-For: 203.0.113.9")
        expected = seen if seen != "127.0.0.1" else "203.0.113.9"  # of a client of ours, not of theirs
        assert (await client.answer())[1]["remote"] == expected


async def test_clients_behind_one_balancer_are_counted_apart() -> None:
    async with guarded(per_address_max=2, trusted_proxies="127.0.0.1", proxy_protocol=True) as server:
        for number in range(6):
            client = await server.open()
            await client.send(v1(IPv4Address(f"192.0.2.{number // 2}"), CLIENT) + REQUEST)
            assert (await client.answer())[0] == 200
        late = await server.open()
        await late.send(v1(IPv4Address("192.0.2.1"), CLIENT) + REQUEST)
        assert (await late.answer())[0] == 503
        assert server.connections.refused == {"address": 1}


async def test_a_trusted_peer_without_the_header_is_closed() -> None:
    async with guarded(trusted_proxies="127.0.0.1", proxy_protocol=True) as server:
        client = await server.open()
        await client.send(REQUEST)
        assert await client.rest() == b""
        assert server.connections.refused == {"proxy_header": 1}


async def test_a_part_of_the_header_has_the_time_of_a_head() -> None:
    async with guarded(trusted_proxies="127.0.0.1", proxy_protocol=True) as server:
        client = await server.open()
        await client.send(v1(CLIENT, CLIENT)[:-1])
        server.look(11)
        await client.rest()
        assert server.late("head") == 1


@pytest.mark.parametrize("settings", [{}, {"trusted_proxies": "192.0.2.0/24", "proxy_protocol": True}])
async def test_from_anybody_else_the_header_is_no_http(settings: dict[str, object]) -> None:
    async with guarded(**settings) as server:
        client = await server.open()
        await client.send(v1(CLIENT, CLIENT) + REQUEST)
        assert (await client.answer())[0] == 400
