"""Whose request it is, behind balancers that are ours and others that are not."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.addresses import HOPS_MAX, TrustedProxies, bucket_of
from tests.http.guarded import guarded

OURS = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
PEER = "10.0.0.1"
ADDRESSES = st.ip_addresses().map(str)


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_what_counts_as_one_client(address: str, bucket: str) -> None:
    assert bucket_of(address) == bucket


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_all_of_a_64_are_one_client(network: int, one: int, other: int) -> None:
    first, second = (bucket_of(str(IPv6Address((network << 64) + host))) for host in (one, other))
    assert first == second or network == 0  # where addresses of IPv4 are written as ones of IPv6


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], PEER),
        (["192.0.2.7"], "192.0.2.7"),
        (["1.2.3.4, 192.0.2.7"], "192.0.2.7"),  # what stands before it, the client has written
        (["192.0.2.7, 10.9.9.9"], "192.0.2.7"),
        (["1.2.3.4", "192.0.2.7", "10.9.9.9,fd00::7"], "192.0.2.7"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["::ffff:10.0.0.7"], "10.0.0.7"),
        (["unknown"], PEER),
        (["192.0.2.7, unknown, 10.9.9.9"], "10.9.9.9"),
        ([""], PEER),
        (["192.0.2.7,"], PEER),
        (["010.0.0.1"], PEER),
        (["192.0.2.7\x00"], PEER),
    ],
)
def test_the_last_address_that_is_none_of_ours(forwarded: list[str], client: str) -> None:
    assert OURS.client_of(PEER, forwarded) == client


@given(st.lists(st.text(max_size=60)), ADDRESSES)
def test_what_a_client_writes_changes_nothing(written: list[str], client: str) -> None:
    """A proxy of ours appends the address that it sees, to the last header or as one more."""
    expected = OURS.client_of(PEER, [client])
    if not OURS.trusts(client):
        assert OURS.client_of(PEER, [*written, client]) == expected
        assert OURS.client_of(PEER, [",".join([*written, client])]) == expected


@given(st.lists(st.text() | ADDRESSES))
def test_the_answer_is_always_an_address(written: list[str]) -> None:
    said = OURS.client_of(PEER, written)
    assert str(IPv6Address(said) if ":" in said else IPv4Address(said)) == said


def test_a_chain_without_end_is_read_so_far_and_no_further() -> None:
    assert OURS.client_of(PEER, ["192.0.2.7", ",".join(["10.0.0.9"] * HOPS_MAX)]) == "10.0.0.9"
    assert OURS.client_of(PEER, ["192.0.2.7"] + ["10.0.0.9"] * 1000) == "10.0.0.9"


async def test_only_a_trusted_peer_may_say_for_whom_it_speaks() -> None:
    for trusted, seen in (((), "127.0.0.1"), (("127.0.0.1",), "192.0.2.7"), (("192.0.2.0/24",), "127.0.0.1")):
        async with guarded(trusted_proxies=trusted) as server:
            client = await server.open()
            await client.ask("X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 192.0.2.7")
            assert (await client.answer())[1]["remote"] == seen
