"""Sends again what this host's journal has settled and PostgreSQL lacks: a failover or a restore has lost it.

The keeper forgets a call once PostgreSQL has confirmed it, so nobody else would notice. Safe to repeat, and beside a
keeper that runs: every call has one id, and the ledger takes it once. Changes nothing on the disk.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from gateway.cli.text import Say
from gateway.config.settings import Settings, require_values
from gateway.journal.folder import read_settled, segments_of
from gateway.kit.ids import unix_ms_of
from gateway.kit.instants import parse_bound
from gateway.ledger.adopt import journal_of
from gateway.ledger.correct import exact_event
from gateway.ledger.opening import build_ledger, open_buffer
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.one_connection import database

BATCH_MAX: Final = 1000
"""Calls asked about, or sent, in one round trip."""
WAITING_MAX: Final = 50_000
"""Entries that may wait in the stream before more are sent, so that Redis is not filled."""
LOOK_S: Final = 0.5


class Between(NamedTuple):
    """When the calls began, in milliseconds since the epoch; half-open."""

    since_ms: int
    until_ms: int


class Resent(NamedTuple):
    """What was found, and done."""

    segments: int
    settled: int
    """SETTLEs of the range."""
    missing: int
    """Of these, calls that PostgreSQL has neither as a row nor in quarantine."""
    corrections: int
    """Of these, exact answers to calls whose row is an estimate that nothing has corrected."""
    sent: int


def instants_between(since: str | None, until: str | None, now: datetime) -> Between:
    """From the options of a command. Raises OptionError."""
    first = datetime.fromtimestamp(0, UTC) if since is None else parse_bound(since, "--since", now)
    last = now if until is None else parse_bound(until, "--until", now)
    return Between(int(first.timestamp() * 1000), int(last.timestamp() * 1000))


async def send_again(settings: Settings, between: Between, *, dry_run: bool, say: Say) -> Resent:
    """Looks through the whole folder, marked segments too. Raises OptionError, ConfigError, DependencyDown."""
    paths = [path for path in segments_of(journal_of(settings)) if _was_written_since(path, between.since_ms)]
    segments, settled, missing, corrections, sent = len(paths), 0, set[str](), set[str](), 0
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database(settings, "it knows which calls are missing"))
        ledger = build_ledger(settings, pool)
        buffer = None
        if not dry_run:
            buffer = open_buffer(stack, settings, require_values(settings, "redis_url")["redis_url"])
        for batch in _batches(paths, between):
            settled += len(batch)
            known, estimates = await _look_up(ledger, batch)
            entries = [
                (each, raw) for each, raw in batch if each not in known or (each in estimates and _is_exact(raw))
            ]
            missing |= {each for each, _ in entries if each not in known}
            corrections |= {each for each, _ in entries if each in known}
            if entries and buffer is not None:
                await _until_there_is_room(buffer, say)
                sent += len(await buffer.append(entries))
    return Resent(segments, settled, len(missing), len(corrections), sent)


def _was_written_since(path: Path, since_ms: int) -> bool:
    try:
        return path.stat().st_mtime * 1000 >= since_ms
    except FileNotFoundError:  # a keeper has just removed it
        return False


def _batches(paths: Iterable[Path], between: Between) -> Iterator[list[tuple[str, bytes]]]:
    found = (entry for path in paths for entry in read_settled(path) if _is_in(entry[0], between))
    while batch := list(islice(found, BATCH_MAX)):
        yield batch


def _is_in(event_id: str, between: Between) -> bool:
    return between.since_ms <= unix_ms_of(event_id) < between.until_ms


async def _look_up(ledger: Ledger, batch: list[tuple[str, bytes]]) -> tuple[set[str], set[str]]:
    """The ids that PostgreSQL has, and those of them whose row is an estimate that nothing has corrected."""
    known = await ledger.find_confirmed(list({event_id for event_id, _ in batch}))
    return known, {row.id for row in await ledger.estimates(list(known))}


def _is_exact(raw: bytes) -> bool:
    return exact_event(raw) is not None


async def _until_there_is_room(buffer: Buffer, say: Say) -> None:
    told = False
    while (await buffer.depth()).entries > WAITING_MAX:
        if not told:
            say("waiting for workers to write what is in Redis")
            told = True
        await asyncio.sleep(LOOK_S)
