"""The last fault of a run on several hosts: one of them is lost with its disk while streams run.

Redis and PostgreSQL are whole then: docs/faults.md, "What is lost with a disk", says what else would be lost.
"""

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from tests.chaos.checks import until
from tests.chaos.deployment import Deployment

CALM_S: Final = 4.0
"""Seconds without a fault before it: the keeper has shown all that is open."""
BOUND_S: Final = 2.0
"""Calls that began so shortly before may have left no trace: the keeper's step of 0.1 s, on a machine that is busy."""
LONG: Final = {"first_s": 5.0, "interval_s": 0.005}
"""How OpenAI answers meanwhile: calls are in flight for longer than that."""
GOES_ON_S: Final = 5.0
SWEPT_S: Final = 180.0
"""Seconds until a worker has settled everything: the lease, and the claim of a worker that was lost with the host."""
SWEPT: Final = (
    "select exists (select from hosts where lost_at is not null and ended_at is not null and swept_calls > 0)"
)


class Loss(NamedTuple):
    """When it was, by this machine's clock."""

    at_s: float

    def may_take(self, event_ids: Iterable[str], living: Deployment) -> set[str]:
        """Calls that began just before and that no host that is left has in its journal."""
        began = {event_id: (UUID(event_id).int >> 80) / 1000 for event_id in event_ids}  # UUIDv7
        shortly = [event_id for event_id, at_s in began.items() if abs(at_s - self.at_s) <= BOUND_S]
        kept = b"".join(
            path.read_bytes()
            for host in living.hosts
            for path in Path(host.stack.env["GATEWAY_DATA_DIR"]).rglob("*")
            if path.is_file()
        )
        return {event_id for event_id in shortly if event_id.encode() not in kept}


async def lose_host(made: Deployment) -> Loss:
    """Returns when the others have gone on for a while."""
    await made.all_up()
    await made.all_serving()
    await asyncio.sleep(CALM_S)
    await asyncio.to_thread(made.stack.control, "openai", "POST", "/pace", LONG)
    await asyncio.sleep(LONG["first_s"] - 1)
    lost = Loss(time.time())
    made.lose_host()
    await asyncio.to_thread(made.stack.control, "openai", "POST", "/pace", {"first_s": 0.02, "interval_s": 0.005})
    await asyncio.sleep(GOES_ON_S)
    return lost


async def swept(dsn: str) -> None:
    """Until a worker has settled the calls of the lost host, or `SWEPT_S`: the checks say what is missing then."""
    await until(dsn, SWEPT_S, SWEPT)
