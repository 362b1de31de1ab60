"""Opens connections to one host: all of its addresses in a race, through a proxy where one is set.

A name may have an address that swallows everything (IPv6 in a broken network), so the next one is tried while the first
has not answered (RFC 8305). Says only whether there is a connection: nothing of a request is sent here.
"""

import asyncio
import socket
import ssl
from typing import Final

import aiohappyeyeballs
from aiohttp.client_proto import ResponseHandler

from gateway.config.egress import EgressProxy
from gateway.kit.sockets import IDLE_S, PROBE_S, PROBES, keep_alive

NEXT_ADDRESS_S: Final = 0.25
"""Seconds that an address has for itself before the next one is tried beside it (RFC 8305, section 8)."""
PROXY_HEAD_MAX: Final = 64 * 1024
USER_TIMEOUT_MS: Final = (IDLE_S + PROBE_S * PROBES) * 1000
"""Milliseconds without an acknowledgement that end a connection. On Linux this overrides the number of probes (tcp(7)):
with less, one probe lost on the internet would end a call that is waiting for a slow model."""


class ProxyRefused(OSError):
    """The proxy did not open the tunnel."""


def open_socket(address: aiohappyeyeballs.AddrInfoType) -> socket.socket:
    """A socket for this address, not connected yet; aiohttp takes it as `socket_factory` too."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    try:
        keep_alive(sock)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    except OSError:
        sock.close()
        raise
    return sock


class Dialer:
    """The way to `host` and `port`; `tls` is None where nothing is encrypted."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, proxy: EgressProxy | None) -> None:
        self._host: Final = host
        self._port: Final = port
        self._tls: Final = tls
        self._proxy: Final = proxy

    async def connect(self) -> ResponseHandler:
        """A connection, TLS included. Raises OSError (ssl.SSLError is one)."""
        loop = asyncio.get_running_loop()
        if self._proxy is None:
            sock = await _open(self._host, self._port)
        else:
            sock = await self._tunnel(self._proxy)
        # From here on the loop owns the socket, and closes it when the handshake fails.
        _, connection = await loop.create_connection(
            lambda: ResponseHandler(loop),
            sock=sock,
            ssl=self._tls,
            server_hostname=None if self._tls is None else self._host,
        )
        return connection

    async def _tunnel(self, proxy: EgressProxy) -> socket.socket:
        """A socket whose other end is the host, because the proxy has said so."""
        sock = await _open(proxy.host, proxy.port)
        try:
            await _ask_for_tunnel(sock, f"[{self._host}]" if ":" in self._host else self._host, self._port, proxy)
        except BaseException:
            sock.close()
            raise
        return sock


async def _open(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, socket_factory=open_socket
    )


async def _ask_for_tunnel(sock: socket.socket, host: str, port: int, proxy: EgressProxy) -> None:
    loop = asyncio.get_running_loop()
    field = "" if proxy.authorization is None else f"Proxy-Authorization: {proxy.authorization}\r\n"
    request = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{field}\r\n"
    await loop.sock_sendall(sock, request.encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await loop.sock_recv(sock, 4096)
        head += piece
        if not piece or len(head) > PROXY_HEAD_MAX:
            raise ProxyRefused("the proxy gave no answer")
    version, _, rest = head.partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit():
        raise ProxyRefused("the proxy does not speak HTTP")
    # Before we have spoken the host says nothing: what follows the head could only be the proxy's own.
    if not status.startswith(b"2") or not head.endswith(b"\r\n\r\n"):
        raise ProxyRefused(f"the proxy answered {status.decode()}")
