"""An answer that breaks off is freed with its relay at once: its reader keeps the exception, and so kept the relay."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.config.settings import UpstreamSettings
from gateway.proxy.active_relays import ActiveRelays
from gateway.proxy.relay import Relay
from gateway.proxy.relay_result import RelayResult
from pricing.stream import StreamMeter


class Source:
    """An answer of OpenAI's that has broken off."""

    status = 200
    headers: "CIMultiDict[str]" = CIMultiDict()

    def __init__(self) -> None:
        self.content = aiohttp.StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
        self.content.feed_data(b'data: {"id":"x"}\n\n')
        self.content.set_exception(aiohttp.ClientPayloadError("cut"))

    def release(self) -> None:
        """Given back."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def note(_: RelayResult) -> None:
    """Nothing to note."""


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("streams", [True, False])
async def test_a_relay_goes_with_its_broken_answer(streams: bool) -> None:
    request, source = make_mocked_request("POST", "/v1/chat/completions"), Source()
    relay = Relay(request, source, CIMultiDict(), UpstreamSettings(), ActiveRelays(), note, "key")  # type: ignore[arg-type]
    ended, given_up = weakref.ref(relay), weakref.ref(source)
    result = await (relay.relay_stream(StreamMeter("chat")) if streams else relay.relay_whole())
    assert result.broken == "upstream_cut"
    relay.close()
    del relay, source, result, request
    assert ended() is None
    assert given_up() is None
