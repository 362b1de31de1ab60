"""The ledger in PostgreSQL: batches into `openai_usage` with every sum beside it. Never prices.

Repeats are harmless: sums grow only by rows that were really inserted, in the same
statement. What cannot be a row is kept byte for byte in `usage_quarantine`; nothing is dropped.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from gateway.kit.ids import is_uuid
from gateway.ledger import sql
from gateway.ledger.open_items import ESTIMATE
from gateway.ledger.rows import LedgerEntry, NotARow, Row, columns, to_row
from gateway.openai.families.catalogue import SETTLES_LATER
from gateway.stores.postgres import AWAY, Connections, translate
from gateway.usage.adjust import Recorded
from pricing.readers.text import storable

TRIES_MAX: Final = 5
TRY_AGAIN_S: Final = 0.02
DUE_MAX: Final = 100
"""Batches whose price lines are added at once: about a second's work of PostgreSQL at the most."""

POISON: Final = (
    asyncpg.DataError,  # 22: NUL or surrogate in text or jsonb, number out of range
    asyncpg.IntegrityConstraintViolationError,  # 23: unknown user, a CHECK, a response id seen before
    asyncpg.ProgramLimitExceededError,  # 54: a value too long for an index
    ValueError,  # asyncpg's own refusal to encode a value
)
"""What the rows themselves cause: trying the same rows again cannot help."""


Refused = Callable[[str, str], object]
"""Told the event id of an entry that went to quarantine, and why in a word that quotes nothing of it."""


def _ignore_quarantine(_event_id: str, _kind: str) -> None:
    return None


class Outcome(NamedTuple):
    """What became of a batch; the three add up to its entries."""

    inserted: int
    duplicates: int
    quarantined: int


class Ledger:
    """All of it over one pool. `meter` and `window_s` say where billed amounts accrue (docs/decisions/0001).

    Every method raises DependencyDown("postgres") when the database does not do what is asked.
    """

    def __init__(self, pool: Connections, *, meter: str, window_s: int) -> None:
        self.pool: Final = pool
        self._meter: Final = meter
        self._window_s: Final = window_s
        self._is_window_set = False

    async def insert_batch(self, entries: Sequence[LedgerEntry], *, refused: Refused = _ignore_quarantine) -> Outcome:
        """Commits every entry: a new row with its sums, a known repeat, or quarantine.

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
        rows.sort(key=lambda each: _id_of(each[0]))
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
        if not self._is_window_set:
            await self._value(sql.SET_WINDOW, self._meter, self._window_s)
            self._is_window_set = True
        return int(await self._value(sql.INSERT_BATCH, *columns(rows), len(rows)))

    def within(self, connections: Connections) -> "Ledger":
        """The same ledger over other connections: a transaction, say."""
        return Ledger(connections, meter=self._meter, window_s=self._window_s)

    async def insert_all(self, entries: Sequence[LedgerEntry]) -> int:
        """Commits every entry or none, in the transaction that this ledger is within; how many are new rows.

        Raises NotARow, and nothing goes to quarantine: the transaction must end then.
        """
        rows = sorted((to_row(entry) for entry in entries), key=_id_of)
        try:
            return await self._insert_rows(rows) if rows else 0
        except POISON as error:
            raise _not_a_row(error) from error

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

    async def add_units(self) -> None:
        """Adds the price lines of all rows that are due to the sums by day, and lists the estimates among them."""
        while int(await self._value(sql.ADD_UNITS, DUE_MAX, list(SETTLES_LATER), ESTIMATE)) == DUE_MAX:
            pass

    async def find_confirmed(self, event_ids: Sequence[str]) -> set[str]:
        """Those of these event ids that are in Postgres for good: as a row, or in quarantine."""
        uuids = [event_id for event_id in event_ids if is_uuid(event_id)]
        return {row[0] for row in await self._rows(sql.CONFIRMED, uuids, [storable(i) for i in event_ids])}

    async def find_objects(self, object_ids: Sequence[str]) -> set[str]:
        """Those of these objects at OpenAI whose owner is in Postgres."""
        known = {storable(object_id): object_id for object_id in object_ids}
        return {known[row[0]] for row in await self._rows(sql.OBJECTS, list(known))}

    async def estimates(self, event_ids: Sequence[str]) -> list[Recorded]:
        """Those of these calls (UUIDs) whose row is an estimate that nothing has corrected."""
        return [Recorded(*row.values()) for row in await self._rows(sql.ESTIMATES, list(event_ids))]

    async def count_quarantined(self) -> int:
        """Entries in quarantine that nobody has resolved."""
        return int(await self._value(sql.QUARANTINED))

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
                return await self.pool.fetch(query, *arguments)
            except asyncpg.TransactionRollbackError as error:
                if attempt == TRIES_MAX - 1:
                    raise translate(error) from error
                await asyncio.sleep(TRY_AGAIN_S * 2**attempt)
            except asyncpg.UniqueViolationError:
                # Two writers of one call: `on conflict (id)` waits for the id alone, not for the response id, which is
                # then a violation although nothing is wrong. The other has committed now, so a repeat is seen as one.
                if attempt:
                    raise
            except POISON:
                raise
            except AWAY as error:
                raise translate(error) from error
        raise AssertionError("every attempt returns or raises")


def _id_of(row: Row) -> str:
    # Two writers that take rows in the same order wait for each other, and never in a circle. Lower case, because
    # Postgres reads a uuid in any case.
    return str(row[0]).lower()


def _not_a_row(error: Exception) -> NotARow:
    # Not the detail: for a CHECK it spells out the whole row.
    constraint = getattr(error, "constraint_name", None)
    reason = f"{error}" if constraint is None or constraint in str(error) else f"{error} ({constraint})"
    return NotARow(" ".join(filter(None, (type(error).__name__, constraint))), reason)
