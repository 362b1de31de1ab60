"""What every kind of process says of itself beside its own figures. Reads only."""

import resource
import sys
import time
from pathlib import Path
from typing import Final

from gateway.core.metrics import Sample

_PAGE: Final = resource.getpagesize()


class Waiting:
    """The dependency that a background process waits for; None while it works."""

    def __init__(self) -> None:
        self.on: str | None = None


def samples(name: str) -> tuple[Sample, ...]:
    """CPU time, seconds, and memory, bytes."""
    used = (Sample("gateway_process_cpu_seconds_total", (name,), round(time.process_time(), 3)),)
    if sys.platform != "linux":
        return used
    resident = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
    return (*used, Sample("gateway_process_resident_bytes", (name,), resident))
