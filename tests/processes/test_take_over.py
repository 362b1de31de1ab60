"""What one `serve` tells another that takes over from it, in this process."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.processes.preflight import Patience, free_slots
from gateway.processes.stack import Gateway
from gateway.processes.supervisor import Child
from gateway.processes.take_over import NAME, Successor, find_predecessor


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


class OnlyAKeeper:
    """As much of a gateway as hands over."""

    async def stop_keeper(self) -> None: ...


async def test_an_address_that_the_new_one_does_not_have_is_refused_from_then_on(tmp_path: Path) -> None:
    """Else clients would be connected to a queue that nobody empties."""
    async with AsyncExitStack() as stack:
        kept, left = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        kept_at, left_at = kept.getsockname(), left.getsockname()
        running = Successor(tmp_path, [kept, left], [0], cast("Gateway", OnlyAKeeper()))
        running.open(stack)
        waiting = asyncio.create_task(running.wait())
        old = await find_predecessor(tmp_path, stack, print)
        assert old is not None
        assert len(old.listeners(*kept_at)) == 1
        await old.stop_keeper()
        await old.leave()
        await waiting
        running.close()
        socket.create_connection(kept_at).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(left_at)


async def test_a_folder_without_sockets_only_means_that_nobody_can_take_over(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()  # as an error of the file system: the name cannot be given to a socket
    async with AsyncExitStack() as stack:
        running = Successor(tmp_path, [], [0], cast("Gateway", None))
        running.open(stack)
        waiting = asyncio.create_task(running.wait())
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()
        waiting.cancel()


async def test_a_keeper_that_cannot_be_started_for_want_of_a_process_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Exception | None] = [BlockingIOError(11, "Resource temporarily unavailable"), None]

    async def start(_self: Child) -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    monkeypatch.setattr(Child, "start", start)
    monkeypatch.setattr("gateway.processes.stack.RESTART_MAX_S", 0.0)
    await Gateway(Settings(gateway_data_dir=tmp_path), {}, host="127.0.0.1", port=0, slots=[]).start_keeper()
    assert outcomes == []


async def test_one_that_may_not_be_asked_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(NAME)  # as an error that is not its absence: the tests may be root, who may ask all
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match="as the user of the gateway that serves"):
            await find_predecessor(tmp_path, stack, print)
