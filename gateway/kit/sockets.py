"""How long a connection may say nothing before it counts as gone. The sockets are the caller's.

A network may forget a connection without a word to either end: NAT gateways and load balancers do after 240 to 350 s
of silence, a host that loses its power at once. TCP alone notices the first never and the second after 15 minutes.
"""

import socket
import sys
from typing import Final, Protocol

IDLE_S: Final = 60
"""Seconds of silence before the other end is asked whether it is there; less than any network forgets in."""
PROBE_S: Final = 10
"""Seconds between two such questions."""
PROBES: Final = 3
"""Questions without an answer after which it is gone."""
UNACKNOWLEDGED_S: Final = 30
"""Seconds that bytes may wait for the other kernel's acknowledgement. How long an answer takes has no part in it."""

# Linux has all of them; elsewhere what is missing is left to the system.
TCP_OPTIONS: Final = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPINTVL", PROBE_S),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_S * 1000),
    )
    if hasattr(socket, name)
}
"""Options of IPPROTO_TCP, by number."""


_TCP_INFO_BYTES: Final = 128
_BYTES_ACKED: Final = 120
"""Where Linux has that number in its `tcp_info` (linux/tcp.h, since 4.1)."""


class Socket(Protocol):
    """What is needed of a socket, a transport's (`get_extra_info("socket")`) too."""

    @property
    def family(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def keep_alive(sock: Socket) -> None:
    """Makes the kernel detect a dead peer. A Unix socket cannot lose its peer unnoticed and is not changed."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in TCP_OPTIONS.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def acknowledged_bytes(sock: Socket) -> int | None:
    """Bytes that the other end has taken in all; None where the system does not tell. What a program has given to its
    own kernel says less: that takes megabytes, and asks for more only when a third of them has gone."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return None if len(told) < _TCP_INFO_BYTES else int.from_bytes(told[_BYTES_ACKED:], sys.byteorder)
