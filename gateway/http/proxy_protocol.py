"""The PROXY protocol, versions 1 and 2: the client's address as a balancer reports it. Pure.

As haproxy's specification has it (doc/proxy-protocol.txt, 2.1 and 2.2), read strictly: what is not exactly a header is
refused, because whatever follows it is taken for HTTP.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final, NamedTuple

V1_BYTES_MAX: Final = 107
"""The longest line of version 1, its line break included (section 2.1)."""
V2_BYTES_MAX: Final = 4096
"""Of version 2, with its additions; the specification allows 64 KiB, and real ones have about a hundred bytes."""
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [\x21-\x7e ]*)?|(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5}))"
)
_V2_HEAD: Final = Struct(">12sBBH")
_PORT_MAX: Final = 65535
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_ADDRESS_BYTES: Final = {0x11: 4, 0x21: 16}
"""Of one address, for TCP over IPv4 and over IPv6."""
_UNSPECIFIED: Final = 0x00


class Malformed(ValueError):
    """These bytes do not begin with a header."""


class Header(NamedTuple):
    """A whole header."""

    size: int
    """Its bytes; what follows them is the client's."""
    source: str | None
    """The client's address; None where the balancer speaks for itself (LOCAL, UNKNOWN): a health check."""


def parse_header(data: bytes) -> Header | None:
    """The header at the start of `data`; None while it may still become one. Raises Malformed."""
    if data[:1] == b"P":
        return _parse_v1(data)
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _parse_v2(data)
    raise Malformed


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(data) >= V1_BYTES_MAX or not b"PROXY ".startswith(data[:6]):
            raise Malformed
        return None
    found = _V1.fullmatch(data, 0, end)
    if found is None:
        raise Malformed
    family, source, target, *ports = found.groups()
    if family is None:
        return Header(end + 2, None)
    kind = IPv4Address if family == b"TCP4" else IPv6Address
    if any(int(port) > _PORT_MAX or (len(port) > 1 and port[:1] == b"0") for port in ports):
        raise Malformed
    try:
        kind(target.decode())
        return Header(end + 2, str(kind(source.decode())))
    except ValueError:
        raise Malformed from None


def _parse_v2(data: bytes) -> Header | None:
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    size = _V2_HEAD.size + length
    if command not in (_LOCAL, _PROXY) or size > V2_BYTES_MAX:
        raise Malformed
    address_bytes = _ADDRESS_BYTES.get(family)
    if command == _PROXY and family != _UNSPECIFIED and (address_bytes is None or length < 2 * address_bytes + 4):
        raise Malformed  # UDP and Unix sockets lead to no web server
    if len(data) < size:
        return None
    if command == _LOCAL or address_bytes is None:
        return Header(size, None)
    raw = data[_V2_HEAD.size : _V2_HEAD.size + address_bytes]
    return Header(size, str(IPv4Address(raw) if address_bytes == 4 else IPv6Address(raw)))
