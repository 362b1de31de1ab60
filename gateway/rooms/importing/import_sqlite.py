"""Imports an SQLite file of rooms, seals and verifies them; and makes a first map.

Never writes to the file, nor beside it.
"""

import json
import os
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from gateway.config.key_ring import KeyRing
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.rooms.bulk_store import BulkRooms
from gateway.rooms.importing.loader import ImportCounts, Loader, SourceRow, Verified
from gateway.rooms.importing.mapping import RoomMap, Unmappable, guess, map_row, read_map, source_id
from gateway.rooms.importing.sqlite_file import SqliteFile, SqliteTable, open_sqlite
from gateway.rooms.ring import WHY, read_ring
from gateway.stores.one_connection import database
from gateway.trail.record import intending
from gateway.trail.store import Deed

GUESS_ROWS: Final = 200
"""Rows that must bear out what the columns' names say."""

Progress = Callable[[int], None]
"""Told how many rows have been read so far."""


class ImportOptions(NamedTuple):
    """What is to be imported, as people name it."""

    file: Path
    config: Path | None = None
    table: str | None = None
    update: bool = False
    dry_run: bool = False


class Imported(NamedTuple):
    """How it ended."""

    loaded: ImportCounts
    verified: Verified | None
    """None in a dry run."""
    here: int
    """Rooms of this source that are here now, whatever the file has."""

    @property
    def whole(self) -> bool:
        """Whether every row is, or could be, here as the file has it."""
        proven = self.verified is None or self.verified.holds
        return proven and not self.loaded.failed and not (self.verified is None and self.loaded.differing)


class Import(NamedTuple):
    """What would be imported: the file is open, and nothing of it has been taken yet."""

    options: ImportOptions
    ring: KeyRing
    file: SqliteFile
    table: SqliteTable
    mapping: RoomMap
    listed: Mapping[str, str] | None
    """The columns that the map names; None without a map."""

    def rows(self) -> Iterator[SourceRow]:
        """Each row as a room, or why it cannot be one."""
        for number, row in enumerate(self.file.rows(self.table), start=1):
            label = f"row {number:,}"
            try:
                label = source_id(self.mapping, row)
                yield SourceRow(label, map_row(self.mapping, row))
            except Unmappable as error:
                yield SourceRow(label, None, str(error))

    def sample(self, rows_max: int) -> list[SourceRow]:
        """The first rows."""
        return list(islice(self.rows(), rows_max))


@contextmanager
def open_import(settings: Settings, options: ImportOptions) -> Iterator[Import]:
    """Reads the map and opens the file, which is closed in the end. Raises OptionError, ConfigError."""
    ring, given = read_ring(settings), _read_config(options.config)
    with open_sqlite(options.file) as file:
        table = _table_of(file, options.table or given.get("table"))
        chosen = {"columns": _guessed(file, table)} if options.config is None else given
        mapping = read_map(chosen, table.columns, table.key, table.name)
        yield Import(options, ring, file, table, mapping, None if options.config is None else given.get("columns", {}))


async def run_import(settings: Settings, plan: Import, *, read: Progress, verified: Progress) -> Imported:
    """Imports and verifies; or, in a dry run, finds out what would be done. Raises DependencyDown; what was written by
    then stays."""
    options = plan.options
    async with database(settings, WHY) as pool:
        loader = Loader(BulkRooms(pool), plan.ring, random_bytes=os.urandom, new_id=lambda: str(uuid4()))
        loading = partial(loader.load, plan.rows, update=options.update, dry_run=options.dry_run, progress=read)
        loaded = await (loading() if options.dry_run else _load(settings, plan, loading))
        proof = None if options.dry_run else await loader.verify(plan.rows, verified)
        return Imported(loaded, proof, await BulkRooms(pool).with_prefix(plan.mapping.source))


async def _load(settings: Settings, plan: Import, loading: Callable[[], Awaitable[ImportCounts]]) -> ImportCounts:
    """Loads, and leaves an event of how many rooms were made and changed."""
    source = {"source": plan.mapping.source, "update": plan.options.update}
    async with intending(settings, Deed("import-sqlite", "rooms", None, None, source)) as intent:
        loaded = await loading()
        intent.learn({**source, "made": loaded.made, "updated": loaded.updated, "failed": len(loaded.failed)})
    return loaded


def begin_map(file: Path, table: str | None) -> str:
    """A map to begin with, in TOML, made from the columns' names and what is in them. Raises OptionError."""
    with open_sqlite(file) as opened:
        found = _table_of(opened, table)
        targets = _guessed(opened, found)
    quoted = {name: json.dumps(name, ensure_ascii=False) for name in (*targets, *targets.values(), found.name)}
    lines = [
        "# A map for `gateway rooms import-sqlite FILE --config THIS`. A column becomes one of: room_name, state,",
        "# user_email or user_id (ours), meeting_id (ours), started_at, ended_at, created_at, expires_at;",
        "# sealed.<name>: encrypted; data.<name>: not encrypted, for what is harmless;",
        "# source_key: identifies a row, not encrypted; ignore.",
        "# A column that is not listed is sealed.",
        f"table = {quoted[found.name]}",
        "# Put before the table's name in every row's source id; needed to import two files with a table of one name.",
        'prefix = ""',
        "",
        "[columns]",
        *(f"{quoted[column]} = {quoted[target]}" for column, target in targets.items()),
        "",
        "[states]",
        '# "done" = "ended"',
    ]
    if "room_name" not in targets.values():
        lines.insert(0, "# No column looks like the name of the room: one must be mapped to room_name.")
    return "\n".join(lines) + "\n"


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        given = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise OptionError(f"--config: {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"--config: {path} is not TOML: {error}") from None
    if not isinstance(given.get("table", ""), str):
        raise OptionError("--config: table must be text")
    return given


def _table_of(file: SqliteFile, name: str | None) -> SqliteTable:
    names = file.names()
    listed = ", ".join(name if name.isprintable() else repr(name) for name in names) or "none"
    if name is not None:
        if name not in names:
            raise OptionError(f"--table: there is no table {name!r}; the file has: {listed}")
        return file.table(name)
    likely = [each for each in names if each.lower() in ("rooms", "room")] if len(names) > 1 else names
    if len(likely) != 1:
        raise OptionError(f"--table: say which table has the rooms; the file has: {listed}")
    return file.table(likely[0])


def _guessed(file: SqliteFile, table: SqliteTable) -> dict[str, str]:
    sample = [[row[column] for column in table.columns] for row in file.rows(table, rows_max=GUESS_ROWS)]
    return guess(table.columns, table.key, sample)
