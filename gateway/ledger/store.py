"""The ledger edge: batches into `openai_usage` with every sum beside it, and look-ups by key. Never prices.

Repeats are harmless: sums grow only by rows that were really inserted, in the same
statement. What cannot be a row is kept byte for byte in `usage_quarantine`; nothing is dropped.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import asyncpg

from gateway.kit.ids import is_uuid
from gateway.ledger import sql
from gateway.ledger.rows import LedgerEntry, NotARow, Row, columns, to_row
from gateway.stores.postgres import AWAY, Pool, translate, translated
from gateway.stores.postgres_connections import fetch_within
from gateway.usage.adjust import Recorded
from pricing.readers.text import storable

TRIES_MAX: Final = 5
TRY_AGAIN_S: Final = 0.02
LOOK_UP_S: Final = 2.0
"""Seconds that a look-up may take for which a call waits; a server that is there needs a thousandth of it."""

POISON: Final = (
    asyncpg.DataError,  # 22: NUL or surrogate in text or jsonb, number out of range
    asyncpg.IntegrityConstraintViolationError,  # 23: unknown user, a CHECK, a response id seen before
    asyncpg.ProgramLimitExceededError,  # 54: a value too long for an index
    ValueError,  # asyncpg's own refusal to encode a value
)
"""What the rows themselves cause: trying the same rows again cannot help."""


Refused = Callable[[str, str], object]
"""Told the event id of an entry that went to quarantine, and why in a word that quotes nothing of it."""


def _untold(_event_id: str, _kind: str) -> None:
    return None


class Outcome(NamedTuple):
    """What became of a batch; the three add up to its entries."""

    inserted: int
    duplicates: int
    quarantined: int


@dataclass(slots=True)
class KeyOwner:
    """Whose key it is. `key_is_active` is None for a key that has no row of its own."""

    user_id: str
    is_active: bool
    api_key_id: str | None
    key_is_active: bool | None
    key_enabled_at: datetime | None
    """When a command last let it in again."""
    stripe_customer_id: str | None
    budgets: str
    """JSON: a list of limits/budgets.Budget."""


class CallMeeting(NamedTuple):
    """A meeting, as a call may name it."""

    id: str
    user_id: str | None
    """None while nobody is its owner."""
    by_room: bool
    """Whether it was found by its room, which has another one soon."""


class Ledger:
    """All of it over one pool. `meter` and `window_s` say where billed amounts accrue (docs/decisions/0001).

    Every method raises DependencyDown("postgres") when the database does not do what is asked.
    """

    def __init__(self, pool: Pool, *, meter: str, window_s: int) -> None:
        self._pool: Final = pool
        self._meter: Final = meter
        self._window_s: Final = window_s

    async def insert_batch(self, entries: Sequence[LedgerEntry], *, refused: Refused = _untold) -> Outcome:
        """Brings every entry to rest: a new row with its sums, a known repeat, or quarantine.

        When this returns, all of it is committed. When it raises DependencyDown, some of it may be; sending the
        same entries again is harmless. `refused` is told of every entry that is new in quarantine.
        """
        rows: list[tuple[Row, LedgerEntry]] = []
        quarantined = repeats = 0
        for entry in entries:
            try:
                rows.append((to_row(entry), entry))
            except NotARow as error:
                new = await self._quarantine(entry, error, None, refused)
                quarantined, repeats = quarantined + new, repeats + 1 - new
        rows.sort(key=_by_id)
        done = await self._insert(rows, refused) if rows else Outcome(0, 0, 0)
        return Outcome(done.inserted, done.duplicates + repeats, done.quarantined + quarantined)

    async def _insert(self, rows: list[tuple[Row, LedgerEntry]], refused: Refused) -> Outcome:
        """Inserts rows sorted by id; a half that is refused is halved again until the bad row stands alone."""
        try:
            inserted = await self._insert_rows([row for row, _ in rows])
            return Outcome(inserted, len(rows) - inserted, 0)
        except POISON as error:
            if len(rows) == 1:
                new = await self._quarantine(rows[0][1], _not_a_row(error), getattr(error, "sqlstate", None), refused)
                return Outcome(0, 1 - new, new)
        half = len(rows) // 2
        first, second = await self._insert(rows[:half], refused), await self._insert(rows[half:], refused)
        return Outcome(*(a + b for a, b in zip(first, second, strict=True)))

    async def _insert_rows(self, rows: list[Row]) -> int:
        return int(await self._value(sql.INSERT_BATCH, *columns(rows), self._meter, self._window_s, len(rows)))

    async def insert_again(self, entry: LedgerEntry) -> bool:
        """Makes an entry of the quarantine a row; False when the ledger has its call already. Raises NotARow."""
        row = to_row(entry)
        try:
            return await self._insert_rows([row]) == 1
        except POISON as error:
            raise _not_a_row(error) from error

    async def _quarantine(self, entry: LedgerEntry, why: NotARow, sqlstate: str | None, refused: Refused) -> int:
        """Returns 1 when these bytes were not in quarantine before, else 0."""
        event_id, reason = storable(entry.event_id), storable(str(why))
        new = int(await self._value(sql.QUARANTINE, event_id, entry.raw, why.kind, reason, sqlstate))
        if new:
            refused(event_id, why.kind)
        return new

    async def confirmed(self, event_ids: Sequence[str]) -> set[str]:
        """Those of these event ids that are in Postgres for good: as a row, or in quarantine."""
        uuids = [event_id for event_id in event_ids if is_uuid(event_id)]
        return {row[0] for row in await self._rows(sql.CONFIRMED, uuids, [storable(i) for i in event_ids])}

    async def estimates(self, event_ids: Sequence[str]) -> list[Recorded]:
        """Those of these calls (UUIDs) whose row is an estimate."""
        return [Recorded(*row.values()) for row in await self._rows(sql.ESTIMATES, list(event_ids))]

    async def quarantined(self) -> int:
        """Entries in quarantine that nobody has resolved."""
        return int(await self._value(sql.QUARANTINED))

    async def identity(self, external_id: str | None, unkey_key_id: str) -> KeyOwner | None:
        """The user behind a key, by the key's row or else by Unkey's externalId; None when there is none.

        An externalId that is no id of ours is another system's, and says nothing here.
        """
        ours = external_id if external_id is not None and is_uuid(external_id) else None
        rows = await self._look_up(sql.IDENTITY, ours, storable(unkey_key_id))
        return KeyOwner(*rows[0].values()) if rows else None

    async def meeting(self, name: str) -> CallMeeting | None:
        """The meeting with this id, this id at Daily.co, or in progress in the room of this name."""
        rows = await self._look_up(sql.MEETING, storable(name), name if is_uuid(name) else None)
        return CallMeeting(*rows[0].values()) if rows else None

    async def owners(self, object_ids: Sequence[str]) -> dict[str, str]:
        """Of these objects at OpenAI, those whose owner is known and which are not deleted, with the user id."""
        rows = await self._look_up(sql.OWNERS, [storable(object_id) for object_id in object_ids])
        return {row[0]: row[1] for row in rows}

    async def create_user(self, email: str, *, stripe_customer_id: str | None = None) -> str:
        """The id of the user with this address, who is made if need be. An existing Stripe customer is kept."""
        return str(await self._value(sql.CREATE_USER, email, stripe_customer_id))

    async def link_key(
        self,
        user_id: str,
        unkey_key_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        expires_at: datetime | None = None,
    ) -> str:
        """Links a key at Unkey to a user and returns our id of it. Raises ValueError when it is another user's."""
        linked = await self._value(sql.LINK_KEY, user_id, unkey_key_id, name, description, expires_at)
        if linked is None:
            raise ValueError(f"key {unkey_key_id} belongs to another user")
        return str(linked)

    async def _look_up(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        """Rows that a call waits for: soon or not at all."""
        with translated():
            return await fetch_within(self._pool, LOOK_UP_S, query, *arguments)

    async def _value(self, query: str, *arguments: object) -> Any:
        row = await self._row(query, *arguments)
        return None if row is None else row[0]

    async def _row(self, query: str, *arguments: object) -> "asyncpg.Record | None":
        rows = await self._rows(query, *arguments)
        return rows[0] if rows else None

    async def _rows(self, query: str, *arguments: object) -> "list[asyncpg.Record]":
        """One statement, tried again when the database rolled it back only because of its neighbours."""
        for attempt in range(TRIES_MAX):
            try:
                return await self._pool.fetch(query, *arguments)
            except asyncpg.TransactionRollbackError as error:
                if attempt == TRIES_MAX - 1:
                    raise translate(error) from error
                await asyncio.sleep(TRY_AGAIN_S * 2**attempt)
            except POISON:
                raise
            except AWAY as error:
                raise translate(error) from error
        raise AssertionError("every attempt returns or raises")


def _by_id(item: tuple[Row, LedgerEntry]) -> str:
    # Two writers that take rows in the same order wait for each other, and never in a circle. Lower case, because
    # Postgres reads a uuid in any case.
    return str(item[0][0]).lower()


def _not_a_row(error: Exception) -> NotARow:
    # Not the detail: for a CHECK it spells out the whole row.
    constraint = getattr(error, "constraint_name", None)
    reason = f"{error}" if constraint is None or constraint in str(error) else f"{error} ({constraint})"
    return NotARow(" ".join(filter(None, (type(error).__name__, constraint))), reason)
