"""Retries quarantined entries: one that can be a row now becomes exactly one, by the path of every other entry.

Safe to repeat and to run twice at once: the ledger takes an id once, and an entry is closed once, after its row is
committed. Must not change an entry: what its bytes say is what OpenAI was asked and has answered.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Literal, NamedTuple

from gateway.ledger.rows import DISTRUST, LedgerEntry, NotARow
from gateway.ledger.store import Ledger
from gateway.quarantine.store import Quarantine

RESOLUTION: Final = {"row": "retried: became a row", "known": "retried: the ledger had its call already"}

Correct = Callable[[Sequence[bytes]], Awaitable[None]]
"""Corrects the estimates of calls that have settled after all; each has a row."""

Resolve = Callable[[int, str], Awaitable[bool]]
"""Closes an entry with a reason, in somebody's name; False when it is closed already."""


class Retried(NamedTuple):
    """What became of one entry."""

    id: int
    event_id: str | None
    became: Literal["row", "known", "refused", "closed", "missing"]
    """`known`: the ledger had this call already; `closed`: somebody had resolved the entry."""
    reason: str = ""
    """Why it is refused still."""


async def retry(quarantine: Quarantine, ledger: Ledger, correct: Correct, entry_id: int, resolve: Resolve) -> Retried:
    """One entry. Raises DependencyDown; nothing is lost by that."""
    entry = await quarantine.entry(entry_id)
    if entry is None:
        return Retried(entry_id, None, "missing")
    if entry.resolved_at is not None:
        return Retried(entry_id, entry.event_id, "closed")
    raw = await quarantine.raw(entry_id)
    try:
        distrust = entry.kind if entry.kind in DISTRUST else None
        inserted = await ledger.insert_again(LedgerEntry(entry.event_id or "", raw, distrust))
    except NotARow as error:
        return Retried(entry_id, entry.event_id, "refused", f"{error.kind}: {error}")
    if not inserted:
        await correct([raw])
    became: Literal["row", "known"] = "row" if inserted else "known"
    await resolve(entry_id, RESOLUTION[became])
    return Retried(entry_id, entry.event_id, became)


async def retry_all(
    quarantine: Quarantine, ledger: Ledger, correct: Correct, resolve: Resolve
) -> AsyncIterator[Retried]:
    """Every entry that nobody has resolved, oldest first."""
    last = 0
    while waiting := await quarantine.waiting(last):
        for last in waiting:
            yield await retry(quarantine, ledger, correct, last, resolve)
