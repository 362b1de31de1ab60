"""Signals as a shell hands them to its background jobs."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile ignore SIGINT from their first instant, as after `trap '' INT` or in `nohup … &`."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
