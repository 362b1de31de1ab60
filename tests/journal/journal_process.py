"""A writer in a process of its own, for tests that kill it: prints each id once its record is on disk.

Arguments: folder, slot, boot id, records at a time. Must run until it is killed.
"""

import asyncio
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from gateway.journal.frames import OPEN
from gateway.journal.writer import Journal
from gateway.kit.ids import uuid7
from gateway.usage.event import OpenRecord, encode

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def record(event_id: str) -> OpenRecord:
    return OpenRecord(id=event_id, user_id="u", endpoint="chat", model="gpt-5-mini", started_at=NOW, text_bytes=400)


async def main(folder: Path, slot: str, boot_id: str, together: int) -> None:
    journal = Journal(folder, slot, boot_id, segment_bytes_max=20_000, reserve_bytes=0, unix_ms=lambda: 1)
    journal.open()
    print("open", flush=True)
    numbers = count()

    async def write(event_id: str) -> None:
        await journal.append(OPEN, encode(record(event_id)))
        print(event_id, flush=True)

    while True:
        await asyncio.gather(*(write(uuid7(next(numbers), 0)) for _ in range(together)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
