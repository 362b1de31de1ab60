"""What one `serve` tells another that takes over from it, in this process."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from gateway.config.settings import Settings
from gateway.processes.preflight import Patience, free_slots
from gateway.processes.stack import Gateway
from gateway.processes.take_over import Successor, find_predecessor


async def test_the_slots_of_one_that_runs_are_not_taken_while_its_proxies_restart(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        running = Successor(tmp_path, [listener], [0, 2], cast("Gateway", None))
        running.open(stack)
        waiting = asyncio.create_task(running.wait())
        old = await find_predecessor(tmp_path, stack, print)
        assert old is not None
        assert old.slots == [0, 2]
        assert len(old.listeners(*listener.getsockname())) == 1
        settings = Settings(gateway_data_dir=tmp_path)
        # None of its proxies holds its slot at the moment.
        assert await free_slots(settings, 3, Patience(0, asyncio.Event(), print), beside=old.slots) == [1, 3, 4]
        waiting.cancel()
    assert wrong == []
