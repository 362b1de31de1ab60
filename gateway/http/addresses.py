"""The address of a client behind load balancers, and what counts as one client. Pure.

An address that a client could have written itself is never believed: X-Forwarded-For is read from its right end, and
only as far as each entry was written by one of our own proxies (`connections.trusted_proxies`).
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

HOPS_MAX: Final = 16
"""Entries of X-Forwarded-For that are read at most."""
_PREFIX_BITS: Final = 64
"""Of IPv6: one customer of a provider has at least so much, and may take a new address for every connection."""

Network = IPv4Network | IPv6Network


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without a port; None for anything else. An IPv4 address in IPv6 form is the IPv4 address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def bucket_of(address: str) -> str:
    """What is counted as one client: an IPv4 address, or the /64 of an IPv6 one. Any other text is itself."""
    if ":" not in address:  # nearly always: nothing needs to be parsed
        return address
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, _PREFIX_BITS), strict=False))
    return address if parsed is None else str(parsed)


class TrustedProxies:
    """The networks of our own balancers and reverse proxies."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks: Final = tuple(networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Whether it is one of ours."""
        if not self._networks:
            return False
        parsed = parse_address(address)
        return parsed is not None and self._has(parsed)

    def client_of(self, peer: str, forwarded: Sequence[str]) -> str:
        """The client behind `peer`, which is trusted. `forwarded`: every X-Forwarded-For of the request, in order. The
        result is the last entry that is not one of our proxies; or `peer`, or our last proxy, where the chain has no
        other entry."""
        last = peer
        for entry in reversed(",".join(forwarded[-HOPS_MAX:]).rsplit(",", HOPS_MAX)[-HOPS_MAX:]):
            parsed = parse_address(_without_port(entry.strip(" \t")))
            if parsed is None:
                return last
            last = str(parsed)
            if not self._has(parsed):
                return last
        return last

    def _has(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


def _without_port(entry: str) -> str:
    """Some balancers write `192.0.2.1:4711` or `[2001:db8::1]:4711` (Azure's Application Gateway does the first)."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    if entry.count(":") == 1:
        return entry.partition(":")[0]
    return entry
