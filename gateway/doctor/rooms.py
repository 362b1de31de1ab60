"""Rooms: whether every key that something is sealed under is in the ring. A call is metered without it."""

from contextlib import AsyncExitStack

from gateway.config.key_ring import parse_ring
from gateway.config.settings import Settings, require_values
from gateway.doctor.findings import CheckResult
from gateway.rooms.bulk_store import BulkRooms
from gateway.stores.postgres import open_pool


async def rooms(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """The ring against what it has to open."""
    pool = await open_pool(require_values(settings, "database_url")["database_url"], connections_max=1)
    stack.push_async_callback(pool.close)
    counts = await BulkRooms(pool).counts()
    if settings.rooms_keys is None:
        if not counts:
            return [CheckResult("rooms", "ok", "not configured, and there are none")]
        says = f"ROOMS_KEYS is not set, and {sum(counts.values())} room(s) are sealed: nobody can open them"
        return [CheckResult("rooms", "warn", says, "set it to the ring that they were sealed with")]
    ring = parse_ring(settings.rooms_keys.get_secret_value())
    found = [
        CheckResult(
            "rooms",
            "warn",
            f"{count} room(s) are sealed under {key_id!r}, which ROOMS_KEYS does not have",
            "put it back",
        )
        for key_id, count in sorted(counts.items())
        if key_id not in ring.ids
    ]
    if old := sum(count for key_id, count in counts.items() if key_id in ring.ids and key_id != ring.newest):
        says = f"{old} room(s) are not under the newest key yet"
        found.append(CheckResult("rooms", "warn", says, "gateway rooms rotate-key"))
    return found or [CheckResult("rooms", "ok", f"{sum(counts.values())} sealed, all under {ring.newest!r}")]
