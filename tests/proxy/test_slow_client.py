"""A client that takes its answer slowly gets all of it: only http/connections, which knows what it takes, cuts it."""

import asyncio
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.config.settings import UpstreamSettings
from gateway.proxy.active_relays import ActiveRelays
from gateway.proxy.relay import Relay
from gateway.proxy.relay_result import RelayResult
from tests.support.patience import ENDS_S

PIECE: Final = b"x" * 5000
PIECES: Final = 4000
"""Far more than the kernels of both ends keep."""
STALL_S: Final = 0.05


class Source:
    """A large answer of OpenAI's, which comes as fast as it is read."""

    status = 200

    def __init__(self) -> None:
        self.headers = CIMultiDict({"Content-Length": str(PIECES * len(PIECE))})
        self.content = self
        self._left = PIECES

    async def readany(self) -> bytes:
        """As aiohttp's reader."""
        self._left -= 1
        return PIECE if self._left >= 0 else b""

    def release(self) -> None:
        """Given back."""


async def note(_: RelayResult) -> None:
    """Nothing to note."""


async def test_a_client_that_pauses_longer_than_the_kernel_needs_gets_all_of_a_large_answer() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        bounds = UpstreamSettings(write_stall_s=STALL_S)
        relay = Relay(request, Source(), CIMultiDict(), bounds, ActiveRelays(), note, "key")  # type: ignore[arg-type]
        await relay.relay_whole()
        return await relay.release()

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(ENDS_S):
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(3):
                await reader.readexactly(50 * len(PIECE))
                await asyncio.sleep(STALL_S * 6)
            left = (PIECES - 150) * len(PIECE)
            assert len(await reader.readexactly(left)) == left
    finally:
        writer.close()
        await runner.cleanup()
