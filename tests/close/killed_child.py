"""`gateway close` that kills itself at one stage, as kill -9 would there. Run by test_close_killed.py."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from gateway.cli import main
from gateway.close import commands, pack, pack_reads
from gateway.close.pack import PackWriter
from gateway.close.periods import Periods

STAGES: Final[dict[str, tuple[Any, str, int]]] = {
    "noted as being closed": (Periods, "begin", 1),
    "some of the rows are written": (pack, "encode_rows", 3),
    "all rows are written": (PackWriter, "write_rows", 1),
    "the pack is whole": (PackWriter, "finish", 1),
    "its digest is noted": (Periods, "note_pack", 1),
    "it has its name": (Path, "rename", 1),
    "noted as closed, not committed": (Periods, "finish", 1),
    "closed": (commands, "close", 1),
}
"""Stage → what has been called so many times when it is reached."""


def kill_after(owner: Any, name: str, calls: int) -> None:
    """No more of this process once this was called so often."""
    real: Callable[..., Any] = getattr(owner, name)
    numbers = count(1)

    def die() -> None:
        if next(numbers) == calls:
            os.kill(os.getpid(), signal.SIGKILL)

    async def wait(*arguments: Any, **named: Any) -> Any:
        result = await real(*arguments, **named)
        die()
        return result

    def call(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        die()
        return result

    setattr(owner, name, wait if asyncio.iscoroutinefunction(real) else call)


if __name__ == "__main__":
    pack_reads.BLOCK_ROWS = 10  # type: ignore[attr-defined]  # the site has 40 rows
    kill_after(*STAGES[sys.argv.pop(1)])
    main()
