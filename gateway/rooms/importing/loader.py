"""Imports rooms from another store: creates new ones, skips unchanged ones, and verifies the result.

May be stopped and run again. A row that cannot be taken is told and the rest goes on; a room that has expired stays
erased; a room that differs is written over only when told so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from gateway.config.key_ring import KeyRing
from gateway.rooms.bulk_store import BulkRooms, Made
from gateway.rooms.importing.mapping import Mapped
from gateway.rooms.importing.values import Checksum, canonical
from gateway.rooms.room import Room, place_of
from gateway.rooms.sealing import NotOpened, RandomBytes, open_sealed, seal

BATCH: Final = 500
_UNDATED: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SourceRow(NamedTuple):
    """A row of the source: a room, or why it cannot be one."""

    label: str
    """For people: its source id, or its number."""
    mapped: Mapped | None
    why: str = ""


Rows = Callable[[], Iterator[SourceRow]]
"""The rows of the source from the first on, the same each time."""


@dataclass
class ImportCounts:
    """What a run did, or in a dry run would do."""

    rows: int = 0
    made: int = 0
    updated: int = 0
    unchanged: int = 0
    differing: list[str] = field(default_factory=list)
    """Rooms that are there and differ, and were left."""
    expired: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Rows that cannot be taken, and why."""


@dataclass
class Verified:
    """The source compared with what is stored, row by row and by checksum. Rows that cannot be taken are in neither,
    nor are rooms that have expired.
    """

    source: Checksum = field(default_factory=Checksum)
    stored: Checksum = field(default_factory=Checksum)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether everything is stored as the source has it."""
        return not self.wrong and (self.source.rows, self.source.hex()) == (self.stored.rows, self.stored.hex())


class Loader:
    """One run over one source. Methods raise DependencyDown; what was written by then stays."""

    def __init__(
        self, rooms: BulkRooms, ring: KeyRing, *, random_bytes: RandomBytes, new_id: Callable[[], str]
    ) -> None:
        self._rooms: Final = rooms
        self._ring: Final = ring
        self._random_bytes: Final = random_bytes
        self._new_id: Final = new_id

    async def load(
        self, rows: Rows, *, update: bool, dry_run: bool, progress: Callable[[int], None] = lambda _: None
    ) -> ImportCounts:
        """Takes the rows over; with `dry_run` only says what would be done."""
        done = ImportCounts()
        seen: set[str] = set()
        for batch in _batches(rows()):
            done.rows += len(batch)
            wanted, again = _split(await self._takeable(batch, done.failed), seen)
            done.failed.update({f"{source_id} (again)": "an earlier row has the same key" for source_id in again})
            await self._take(wanted, done, update=update, dry_run=dry_run)
            progress(done.rows)
        return done

    async def verify(self, rows: Rows, progress: Callable[[int], None] = lambda _: None) -> Verified:
        """Reads the source again, opens what is stored, and compares."""
        result, read, seen = Verified(), 0, set[str]()
        for batch in _batches(rows()):
            wanted, _ = _split(await self._takeable(batch, {}), seen)
            stored = await self._rooms.of_source([each.source_id for each in wanted])
            for each in wanted:
                self._compare(each, stored.get(each.source_id), result)
            read += len(batch)
            progress(read)
        return result

    def _compare(self, wanted: Mapped, room: Room | None, result: Verified) -> None:
        if room is not None and room.expired_at is not None:
            return
        content = _content(wanted)
        result.source.add(content)
        try:
            found = None if room is None else self._content_of(room, wanted)
        except NotOpened as error:
            result.wrong[wanted.source_id] = str(error)
            return
        if found is None:
            result.wrong[wanted.source_id] = "is not there"
            return
        result.stored.add(found)
        if found != content:
            result.wrong[wanted.source_id] = "differs from the file"

    async def _takeable(self, batch: Sequence[SourceRow], failed: dict[str, str]) -> list[Mapped]:
        """Rows that can be rooms, with their owners found; why the others cannot goes to `failed`."""
        failed.update((row.label, row.why) for row in batch if row.mapped is None)
        mapped = [row.mapped for row in batch if row.mapped is not None]
        users, emails = await self._rooms.users(
            [each.user_id for each in mapped if each.user_id], [each.user_email for each in mapped if each.user_email]
        )
        meetings = await self._rooms.meetings([each.meeting_id for each in mapped if each.meeting_id])
        found = []
        for each in mapped:
            user_id = emails.get(each.user_email) if each.user_email else each.user_id
            meeting_id = each.meeting_id
            if each.user_email and user_id is None:
                failed[each.source_id] = "user_email: there is no user with this address"
            elif user_id is not None and user_id not in users:
                failed[each.source_id] = "user_id: there is no such user"
            elif meeting_id is not None and meeting_id not in meetings:
                failed[each.source_id] = "meeting_id: there is no such meeting"
            elif meeting_id is not None and user_id is not None and meetings[meeting_id] != user_id:
                failed[each.source_id] = "meeting_id: the meeting is not this user's"
            else:
                found.append(each._replace(user_id=user_id, user_email=None))
        return found

    async def _take(self, wanted: Sequence[Mapped], done: ImportCounts, *, update: bool, dry_run: bool) -> None:
        stored = await self._rooms.of_source([each.source_id for each in wanted])
        new, changed = [], []
        for each in wanted:
            room = stored.get(each.source_id)
            try:
                if room is None:
                    new.append(self._made(each, self._new_id(), 1))
                elif room.expired_at is not None:
                    done.expired += 1
                elif self._content_of(room, each) == _content(each):
                    done.unchanged += 1
                elif update:
                    changed.append(self._made(each, room.id, room.version))
                else:
                    done.differing.append(each.source_id)
            except NotOpened as error:
                done.failed[each.source_id] = f"is there already, and {error}"
        late = set[str]() if dry_run else await self._write(new, changed, done)
        late |= done.failed.keys()
        done.made += sum((each.room.source_id or "") not in late for each in new)
        done.updated += sum((each.room.source_id or "") not in late for each in changed)

    async def _write(self, new: Sequence[Made], changed: Sequence[Made], done: ImportCounts) -> set[str]:
        """The source ids of rooms that somebody else wrote first: what verification says of them holds."""
        try:
            late = await self._rooms.write(new, changed)
        except ValueError as error:
            if len(new) + len(changed) == 1:
                done.failed[(*new, *changed)[0].room.source_id or ""] = str(error)
                return set()
            # One row spoils its batch: each by itself, then.
            late = set()
            for each in new:
                late |= await self._write([each], [], done)
            for each in changed:
                late |= await self._write([], [each], done)
            return late
        done.unchanged += len(late)
        return late

    def _made(self, wanted: Mapped, room_id: str, version: int) -> Made:
        fields = wanted.sensitive
        sealed = None if fields is None else seal(self._ring, fields, place_of(room_id), self._random_bytes)
        at = wanted.instants
        room = Room(
            id=room_id, room_name=wanted.room_name, user_id=wanted.user_id, meeting_id=wanted.meeting_id,
            state=wanted.state, data=wanted.data, sealed=sealed, source_id=wanted.source_id,
            started_at=at["started_at"], ended_at=at["ended_at"], expires_at=at["expires_at"], expired_at=None,
            version=version, created_at=_UNDATED, updated_at=_UNDATED,
        )  # fmt: skip
        return Made(room, at["created_at"])

    def _content_of(self, room: Room, wanted: Mapped) -> bytes:
        """What is stored, spelled as its source is; a date that the source has not is the database's own."""
        created_at = None if wanted.instants["created_at"] is None else room.created_at
        times: dict[str, datetime | None] = {
            "started_at": room.started_at,
            "ended_at": room.ended_at,
            "created_at": created_at,
        }
        sealed = None if room.sealed is None else open_sealed(self._ring, room.sealed, place_of(room.id))
        times |= {"expires_at": room.expires_at}
        owners = (None, room.user_id, room.meeting_id)
        return _content(Mapped(room.source_id or "", room.room_name, room.state, *owners, times, room.data, sealed))


def _split(wanted: Sequence[Mapped], seen: set[str]) -> tuple[list[Mapped], list[str]]:
    """Rows whose key has not been `seen`, and the source ids of the others; the former are seen then."""
    first, again = [], []
    for each in wanted:
        if each.source_id in seen:
            again.append(each.source_id)
        else:
            seen.add(each.source_id)
            first.append(each)
    return first, again


def _content(mapped: Mapped) -> bytes:
    return canonical(mapped._asdict())


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
