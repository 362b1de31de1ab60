"""Writes a report to the terminal, or atomically to a file. Independent of its content."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from gateway.cli.command import note
from gateway.cli.console import Console, TextTable
from gateway.cli.text import json_text
from gateway.kit.errors import OptionError

Form = Literal["table", "json", "csv"]
_ENDINGS: Final[dict[str, Form]] = {".csv": "csv", ".json": "json"}
_NOT_WRITTEN: Final = (".xlsx", ".xls", ".ods", ".parquet", ".pdf", ".html")
FILE_WIDTH: Final = 160
"""Columns of a table that goes to a file."""


class Rendering(NamedTuple):
    """One report in each of its forms."""

    said: str
    """What it is of, and of which range."""
    lines: int
    to_json: Callable[[], dict[str, Any]]
    to_csv: Callable[[], str]
    to_table: Callable[[int], TextTable]
    """For a terminal of so many columns."""

    def text(self, form: Form) -> str:
        """All of it."""
        if form == "csv":
            return self.to_csv()
        if form == "json":
            return json_text(self.to_json(), indent=2) + "\n"
        out = io.StringIO()
        Console(out, width=FILE_WIDTH, plain=True).print_table(self.to_table(FILE_WIDTH))
        return out.getvalue()


def write(console: Console, form: Form, output: Path | None, report: Rendering) -> None:
    """To `output`, whole or not at all, or to the terminal. Raises OptionError when the file cannot be written."""
    if output is not None:
        _require_ending(output, form)
        write_whole(output, report.text(form))
        lines = f"{report.lines:,} {'line' if report.lines == 1 else 'lines'}"
        console.say(f"{lines} of {report.said} in {output}")
    elif form == "table":
        console.print_table(report.to_table(console.width))
    else:
        console.write_lines(report.text(form))
        if form == "csv":
            # CSV has no place for the range; standard output may be going into a file.
            note(report.said)


def _require_ending(path: Path, form: Form) -> None:
    """A name must not promise what the file does not hold."""
    ending = path.suffix.lower()
    if ending in _NOT_WRITTEN:
        raise OptionError(
            f"--output: no report is written as {ending}; take --csv or --json, and a name with that ending"
        )
    if _ENDINGS.get(ending, form) != form:
        raise OptionError(f"--output: {path} would hold a {form}; add --{_ENDINGS[ending]}, or give it another ending")


def write_whole(path: Path, text: str) -> None:
    """Replaces the file at `path`, so that whoever reads it sees the old content or all of the new, never a part.

    Raises OptionError when it cannot be written; the old content is then still there.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise OptionError(f"--output: {path} is not a regular file")
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with beside.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise OptionError(f"--output: {path} cannot be written: {error.strerror}") from error
