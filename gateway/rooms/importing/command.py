"""`gateway rooms import-sqlite` and `import-map`: an SQLite file of rooms becomes rooms here, sealed and proven.

Never writes to the file, nor beside it. Shows no value of a column that will be sealed.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from gateway.cli.console import Console
from gateway.cli.console import TextTable as OutputTable
from gateway.cli.text import legible
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339
from gateway.rooms.bulk_store import BulkRooms
from gateway.rooms.commands import SHOWN_MAX, WHY, progress, ring_of
from gateway.rooms.importing.loader import ImportCounts, Loader, SourceRow, Verified
from gateway.rooms.importing.mapping import (
    KEY,
    SEALED,
    Mapped,
    RoomMap,
    Unmappable,
    guess,
    map_row,
    read_map,
    source_id,
)
from gateway.rooms.importing.sqlite_file import SqliteFile, SqliteTable, open_sqlite
from gateway.stores.one_connection import database

GUESS_ROWS: Final = 200
"""Rows that must bear out what the columns' names say."""
SAMPLE_ROWS: Final = 3


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

    @property
    def whole(self) -> bool:
        """Whether every row is, or could be, here as the file has it."""
        proven = self.verified is None or self.verified.holds
        return proven and not self.loaded.failed and not (self.verified is None and self.loaded.differing)


async def import_sqlite(
    settings: Settings, console: Console, *, wanted: ImportOptions, as_json: bool = False
) -> Imported:
    """Imports, verifies and reports; or, in a dry run, says what would be done. Raises OptionError, ConfigError,
    DependencyDown.
    """
    ring, given = ring_of(settings), _read_config(wanted.config)
    with open_sqlite(wanted.file) as file:
        table = _table_of(file, wanted.table or given.get("table"))
        mapping = _mapping(file, table, given, is_guessed=wanted.config is None)
        if not as_json:
            _show_mapping(console, table, mapping, None if wanted.config is None else given.get("columns", {}))

        def rows() -> Iterator[SourceRow]:
            return _sources(file, table, mapping)

        if wanted.dry_run and not as_json:
            _show_sample(console, rows())
        async with database(settings, WHY) as pool:
            loader = Loader(BulkRooms(pool), ring, random_bytes=os.urandom, new_id=lambda: str(uuid4()))
            loaded = await loader.load(
                rows, update=wanted.update, dry_run=wanted.dry_run, progress=progress("read", quiet=as_json)
            )
            verified = None if wanted.dry_run else await loader.verify(rows, progress("verified", quiet=as_json))
            here = await BulkRooms(pool).with_prefix(mapping.source)
    done = Imported(loaded, verified)
    if as_json:
        report = _plain(wanted, table, mapping, done) | {"rooms_of_this_source": here}
        console.print_json(report)
    else:
        _show_result(console, wanted, done, here)
    return done


def import_map(console: Console, *, file: Path, table: str | None) -> None:
    """Prints a map to begin with, made from the columns' names and what is in them. Raises OptionError."""
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
    console.write_lines("\n".join(lines) + "\n")


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
    listed = ", ".join(map(legible, names)) or "none"
    if name is not None:
        if name not in names:
            raise OptionError(f"--table: there is no table {name!r}; the file has: {listed}")
        return file.table(name)
    likely = [each for each in names if each.lower() in ("rooms", "room")] if len(names) > 1 else names
    if len(likely) != 1:
        raise OptionError(f"--table: say which table has the rooms; the file has: {listed}")
    return file.table(likely[0])


def _mapping(file: SqliteFile, table: SqliteTable, given: Mapping[str, Any], *, is_guessed: bool) -> RoomMap:
    chosen = {"columns": _guessed(file, table)} if is_guessed else given
    return read_map(chosen, table.columns, table.key, table.name)


def _guessed(file: SqliteFile, table: SqliteTable) -> dict[str, str]:
    sample = [[row[column] for column in table.columns] for row in file.rows(table, rows_max=GUESS_ROWS)]
    return guess(table.columns, table.key, sample)


def _sources(file: SqliteFile, table: SqliteTable, mapping: RoomMap) -> Iterator[SourceRow]:
    for number, row in enumerate(file.rows(table), start=1):
        label = f"row {number:,}"
        try:
            label = source_id(mapping, row)
            yield SourceRow(label, map_row(mapping, row))
        except Unmappable as error:
            yield SourceRow(label, None, str(error))


def _show_mapping(console: Console, table: SqliteTable, mapping: RoomMap, listed: Mapping[str, str] | None) -> None:
    """`listed`: the columns that the map names; None without a map."""
    by = (
        "guessed from the columns' names (`gateway rooms import-map` prints it, for --config)"
        if listed is None
        else "by map"
    )
    console.say(f"Table {table.name}, {table.rows:,} rows, {by}:")
    shown = OutputTable()
    shown.add_column("column")
    shown.add_column("becomes")
    shown.add_column("")
    for column, target in mapping.targets.items():
        note = "encrypted" if target.startswith(SEALED) else "in source_id, not encrypted" if target == KEY else ""
        if target.startswith(SEALED) and listed is not None and column not in listed:
            note = "encrypted, because the map does not list it"
        shown.add_row(column, legible(target), note)
    console.print_table(shown)
    if not table.has_key and mapping.key == table.key:
        console.say("The table has no primary key: rows are known by their rowid, which VACUUM may change.")


def _show_sample(console: Console, rows: Iterator[SourceRow]) -> None:
    console.say("")
    for row in islice(rows, SAMPLE_ROWS):
        console.say(f"{row.label}: {row.why if row.mapped is None else _shown(row.mapped)}")


def _shown(mapped: Mapped) -> str:
    """A row as it would be, without its owner's address and without what is sealed."""
    fields: dict[str, Any] = {"room_name": mapped.room_name, "state": mapped.state}
    fields |= {"user_id": mapped.user_id, "meeting_id": mapped.meeting_id, **mapped.data}
    fields |= {name: rfc3339(at) for name, at in mapped.instants.items()}
    shown = [f"{name}={value!s}" for name, value in fields.items() if value is not None]
    owner = ["user by e-mail address"] if mapped.user_email else []
    sealed = [f"{name}=(sealed)" for name in mapped.sensitive or ()]
    return ", ".join((*shown, *owner, *sealed))


def _show_result(console: Console, wanted: ImportOptions, done: Imported, here: int) -> None:
    loaded, verified = done.loaded, done.verified
    console.say("")
    would = "would be " if wanted.dry_run else ""
    console.say(
        f"{loaded.rows:,} rows: {loaded.made:,} {would}made, {loaded.updated:,} {would}updated, "
        f"{loaded.unchanged:,} are here already, {len(loaded.differing):,} are here and differ, "
        f"{loaded.expired:,} have expired here, {len(loaded.failed):,} cannot be taken.",
    )
    _list(console, loaded.failed)
    if loaded.differing:
        _list(console, dict.fromkeys(loaded.differing, "differs"))
        console.say("What differs was left as it is; --update writes it over, with what the platform changed since.")
    if verified is None:
        return
    _list(console, {label: why for label, why in verified.wrong.items() if label not in loaded.differing})
    console.say(f"checksum of the file's {verified.source.rows:,} rows: {verified.source.hex()}")
    console.say(f"checksum of the rooms, {verified.stored.rows:,} opened: {verified.stored.hex()}")
    console.say("Verified: every room is here as the file has it." if verified.holds else "NOT THE SAME: see above.")
    gone = here - verified.source.rows - loaded.expired
    if gone > 0:
        console.say(f"{gone:,} more rooms came from this source before and are not in it now, or cannot be taken.")


def _list(console: Console, wrong: Mapping[str, str]) -> None:
    for label in list(wrong)[:SHOWN_MAX]:
        console.say(f"  {label}: {wrong[label]}")
    if len(wrong) > SHOWN_MAX:
        console.say(f"  … and {len(wrong) - SHOWN_MAX:,} more; --json has all.")


def _plain(wanted: ImportOptions, table: SqliteTable, mapping: RoomMap, done: Imported) -> dict[str, Any]:
    loaded, verified = done.loaded, done.verified
    report = {
        "table": table.name,
        "columns": mapping.targets,
        "dry_run": wanted.dry_run,
        "rows": loaded.rows,
        "made": loaded.made,
        "updated": loaded.updated,
        "unchanged": loaded.unchanged,
        "differing": loaded.differing,
        "expired": loaded.expired,
        "failed": loaded.failed,
        "whole": done.whole,
    }
    if verified is not None:
        sums = {
            "file": {"rows": verified.source.rows, "checksum": verified.source.hex()},
            "rooms": {"rows": verified.stored.rows, "checksum": verified.stored.hex()},
        }
        report["verified"] = {"holds": verified.holds, "wrong": verified.wrong, **sums}
    return report
