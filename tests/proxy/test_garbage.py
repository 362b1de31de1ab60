"""A call is gone when it is answered: one that refers to itself would stay, body and all, until a collection."""

import asyncio
import gc

import aiohttp

from gateway.config.settings import Settings
from gateway.processes import proxy
from gateway.processes.arguments import ProcessArguments
from gateway.proxy.call import MeteredCall
from tests.support.gateway import Stack

CALLS = 10
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


async def test_no_call_waits_for_the_garbage_collector(beside_running: Stack) -> None:
    ready, stop = asyncio.Event(), asyncio.Event()
    place = ProcessArguments(0, "127.0.0.1", beside_running.port)
    running = asyncio.create_task(proxy.run(Settings.of(beside_running.env), place, stop, lambda _: ready.set()))
    await asyncio.wait({running, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        headers = {"Authorization": f"Bearer {beside_running.key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            for number in range(CALLS):
                body = {**BODY, "stream": number % 2 == 0}
                async with session.post(f"{beside_running.base_url}/chat/completions", json=body) as answer:
                    assert answer.status == 200
                    await answer.read()
        stop.set()
        await running
        gc.collect()
        assert not [one for one in gc.garbage if isinstance(one, MeteredCall)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
