"""The output of `gateway rooms import-sqlite` and `import-map`: never a value of a column that will be sealed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.cli.console import Console
from gateway.cli.console import TextTable as OutputTable
from gateway.cli.text import legible
from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from gateway.rooms.commands import SHOWN_MAX, progress
from gateway.rooms.importing.import_sqlite import Import, Imported, ImportOptions, begin_map, open_import, run_import
from gateway.rooms.importing.loader import SourceRow
from gateway.rooms.importing.mapping import KEY, SEALED, Mapped

SAMPLE_ROWS: Final = 3


async def import_sqlite(settings: Settings, console: Console, *, options: ImportOptions, as_json: bool) -> Imported:
    """Says what becomes what, imports, and reports; in a dry run, what would be done."""
    with open_import(settings, options) as plan:
        if not as_json:
            _show_mapping(console, plan)
            if options.dry_run:
                _show_sample(console, plan.sample(SAMPLE_ROWS))
        read, verified = (progress(verb, quiet=as_json) for verb in ("read", "verified"))
        done = await run_import(settings, plan, read=read, verified=verified)
        if as_json:
            console.print_json(_plain(plan, done))
        else:
            _show_result(console, options, done)
    return done


def import_map(console: Console, *, file: Path, table: str | None) -> None:
    """Prints a map to begin with."""
    console.write_lines(begin_map(file, table))


def _show_mapping(console: Console, plan: Import) -> None:
    table, mapping, listed = plan.table, plan.mapping, plan.listed
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


def _show_sample(console: Console, rows: Iterable[SourceRow]) -> None:
    console.say("")
    for row in rows:
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


def _show_result(console: Console, wanted: ImportOptions, done: Imported) -> None:
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
    gone = done.here - verified.source.rows - loaded.expired
    if gone > 0:
        console.say(f"{gone:,} more rooms came from this source before and are not in it now, or cannot be taken.")


def _list(console: Console, wrong: Mapping[str, str]) -> None:
    for label in list(wrong)[:SHOWN_MAX]:
        console.say(f"  {label}: {wrong[label]}")
    if len(wrong) > SHOWN_MAX:
        console.say(f"  … and {len(wrong) - SHOWN_MAX:,} more; --json has all.")


def _plain(plan: Import, done: Imported) -> dict[str, Any]:
    loaded, verified = done.loaded, done.verified
    report = {
        "table": plan.table.name,
        "columns": plan.mapping.targets,
        "dry_run": plan.options.dry_run,
        "rows": loaded.rows,
        "made": loaded.made,
        "updated": loaded.updated,
        "unchanged": loaded.unchanged,
        "differing": loaded.differing,
        "expired": loaded.expired,
        "failed": loaded.failed,
        "whole": done.whole,
        "rooms_of_this_source": done.here,
    }
    if verified is not None:
        sums = {
            "file": {"rows": verified.source.rows, "checksum": verified.source.hex()},
            "rooms": {"rows": verified.stored.rows, "checksum": verified.stored.hex()},
        }
        report["verified"] = {"holds": verified.holds, "wrong": verified.wrong, **sums}
    return report
