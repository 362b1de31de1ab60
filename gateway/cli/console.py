"""The terminal as commands write to it: lines, tables, JSON and CSV.

Nothing that others chose reaches the terminal as it is: every cell, line and message is made legible here, and no
command writes past this file (a test looks).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich import box
from rich import console as rich_console
from rich import table as rich_table
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from gateway.cli.text import json_text, legible, legible_lines

Cell = str | Text
"""A cell of a table; Text is made by `cell` and `lines` only."""


def cell(*pieces: str | tuple[str, str]) -> Text:
    """A cell of one line; a piece is text, or text and its style."""
    return Text.assemble(
        *(legible(piece) if isinstance(piece, str) else (legible(piece[0]), piece[1]) for piece in pieces)
    )


def lines(each: Iterable[str]) -> Text:
    """A cell of several lines."""
    return Text("\n".join(map(legible, each)))


class TextTable:
    """A table for people. Markup in a cell is text like any other."""

    def __init__(
        self,
        *columns: str,
        title: str | None = None,
        caption: str | None = None,
        boxed: bool = False,
        row_lines: bool = False,
        footer: bool = False,
    ) -> None:
        self.drawn = rich_table.Table(
            title=None if title is None else Text(legible(title)),
            title_justify="left",
            caption=None if caption is None else Text(legible(caption), "table.caption"),
            caption_justify="left",
            show_footer=footer,
            show_lines=row_lines,
            box=box.HEAVY_HEAD if boxed else None,
            pad_edge=boxed,
            padding=(0, 1),
        )
        for name in columns:
            self.add_column(name)

    def add_column(self, name: str, *, footer: Cell = "", right: bool = False, no_wrap: bool = False) -> None:
        """A column; `right` for figures. What does not fit is folded, or cut with a mark where `no_wrap`."""
        self.drawn.add_column(
            Text(legible(name)),
            footer=_format_cell(footer),
            justify="right" if right else "left",
            no_wrap=no_wrap,
            overflow="ellipsis" if no_wrap else "fold",
        )

    def add_row(self, *cells: Cell, style: str | None = None) -> None:
        """A row of it."""
        self.drawn.add_row(*map(_format_cell, cells), style=style)


class Console:
    """Where a command writes: standard output, or a file."""

    def __init__(self, file: TextIO | None = None, *, width: int | None = None, plain: bool = False) -> None:
        # `plain` is without colours, whatever the environment says.
        self._rich = rich_console.Console(file=file, width=width, color_system=None if plain else "auto")

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._rich.width

    @property
    def is_terminal(self) -> bool:
        """Whether it is one, whatever the environment says about colours."""
        return self._rich.file.isatty()

    def say(self, *sentences: str, style: str = "") -> None:
        """Lines for a person; a line is never broken, so that ids and addresses can be copied."""
        for sentence in sentences:
            self._rich.print(Text(legible(sentence), style), soft_wrap=True)

    def answer(self, value: Any, *sentences: str, as_json: bool) -> None:
        """What a command has done: one line of JSON for a program, else sentences for a person."""
        if as_json:
            self.print_json(value, indent=None)
        else:
            self.say(*sentences)

    def print_table(self, table: TextTable) -> None:
        """A table."""
        self._rich.print(table.drawn)

    def print_json(self, value: Any, *, indent: int | None = 2) -> None:
        """One JSON document; `indent=None` puts it on one line."""
        # Not through rich, which wraps and colours.
        self._rich.file.write(json_text(value, indent=indent) + "\n")

    def write_lines(self, text: str) -> None:
        """Text with lines of its own (CSV, TOML), each ended by LF or by CR LF."""
        self._rich.file.write(legible_lines(text))


@contextmanager
def progress_bar(of: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error while it lasts; it is told how many are done, of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=rich_console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(legible(of), total=None)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield progress


def _format_cell(given: Cell) -> Text:
    return Text(legible(given)) if isinstance(given, str) else given
