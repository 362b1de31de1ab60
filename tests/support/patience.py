"""How long tests wait for what must happen: polled for, and longer than any machine that works can take."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

ENDS_S: Final = 60.0
"""Only ever waited for in full when something is broken. Less than the 75 s after which the gateway closes an idle
connection by itself, so that one which it should have closed is noticed."""
LOOK_S: Final = 0.02


async def until(is_so: Callable[[], object]) -> None:
    """Returns once it is so; AssertionError when it never is."""
    deadline_s = time.monotonic() + ENDS_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to be so"
        await asyncio.sleep(LOOK_S)


def until_now(is_so: Callable[[], object]) -> None:
    """The same for a caller that is not a coroutine."""
    deadline_s = time.monotonic() + ENDS_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to be so"
        time.sleep(LOOK_S)
