"""Reads what could take long outside of the event loop: one thread for a process, and one body of a key at a time.

A body that holds little is read where it is: a thread costs more than that. Python runs one thread at a time, so a
second one would only take more of the loop's time.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from gateway.kit.json_structure import is_light

HEAVY_BYTES: Final = 256 * 1024
"""Bodies above this are always read in the thread."""
MARKS_MAX: Final = 4096
"""Commas and brackets of a body that is read in the event loop: some milliseconds of work at most."""
T = TypeVar("T")


class Judge:
    """One per process."""

    def __init__(self) -> None:
        self._pool: Final = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._turns: Final[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()

    async def read(self, read: Callable[[str, bytes], T], endpoint: str, body: bytes, key: str) -> T:
        """`read(endpoint, body)`, and what it raises. Others wait for one body of `key` at most."""
        if len(body) <= HEAVY_BYTES and is_light(body, MARKS_MAX):
            return read(endpoint, body)
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = asyncio.Lock()
        async with turn:
            return await asyncio.get_running_loop().run_in_executor(self._pool, read, endpoint, body)
