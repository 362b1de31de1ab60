"""A port that speaks TLS in front of a real server whose build has none.

The wheels' PostgreSQL is built without OpenSSL (`pg_config --configure`), and their Valkey says "Failed finding TLS
support" to `--tls-port`. So TLS ends here, and what was inside it goes on to the real server. PostgreSQL's clients ask
for TLS in the middle of a connection: its manual, "SSL Session Encryption" and "Message Formats" (SSLRequest).
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

SSL_REQUEST: Final = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
PIECE_BYTES: Final = 64 * 1024


class TlsRelay:
    """What has come through one port."""

    def __init__(self, target: Path, context: ssl.SSLContext | None, kind: Literal["postgres", "valkey"]) -> None:
        """`context`: None for a server that refuses TLS."""
        self._target: Final = target
        self._context: Final = context
        self._kind: Final = kind
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self.port = 0
        self.encrypted = 0
        """Connections whose client has finished the handshake."""
        self.plain = 0
        """Connections without TLS that went on to the server."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["TlsRelay"]:
        """Listens on a free port of loopback."""
        from_start = self._context if self._kind == "valkey" else None
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=from_start)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            # A client that does not believe the certificate breaks off here, or before its first byte.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                first = await self._begin(reader, client)
                await self._pass_on(first, reader, client)
        finally:
            client.transport.abort()

    async def _begin(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> bytes:
        """The first bytes for the server."""
        first = await reader.readexactly(len(SSL_REQUEST)) if self._kind == "postgres" else await reader.readexactly(1)
        if first == SSL_REQUEST:
            client.write(b"N" if self._context is None else b"S")
            await client.drain()
            if self._context is not None:
                await client.start_tls(self._context)
            first = await reader.readexactly(1)
        if client.get_extra_info("ssl_object") is None:
            self.plain += 1
        else:
            self.encrypted += 1
        return first

    async def _pass_on(self, first: bytes, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_unix_connection(self._target)
        server.write(first)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, server))
                both.create_task(_pump(answers, client))
        finally:
            server.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction; its end closes the other way too."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.transport.close()
