"""`gateway adjust`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.corrections import commands as corrections_command
from gateway.corrections.change import WantedRow
from gateway.corrections.store import Reason
from gateway.corrections.wanted import USD_MAX, parse_file, parse_nano, parse_wanted
from gateway.kit.errors import OptionError

app = typer.Typer()

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
TEXT_MAX: Final = {"--why": 1000, "--ticket": 255}
TOTAL_MAX: Final = USD_MAX * 10_000

By = Annotated[str | None, typer.Option(metavar="NAME", help="Who does this. Default: the login on this host.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def adjust(
    row: Annotated[
        str | None, typer.Argument(metavar="ROW", help="A ledger row: its id, or OpenAI's request or response id.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(metavar="USD", help="What the call has cost; its plan says what is billed for it."),
    ] = None,
    billed: Annotated[str | None, typer.Option(metavar="USD", help="What the customer is charged for it.")] = None,
    void: Annotated[bool, typer.Option("--void", help="Counts as if it had not run: no cost, no tokens.")] = False,
    file: Annotated[
        Path | None, typer.Option(help="Many rows: CSV with the columns row, cost_usd, billed_usd, void.")
    ] = None,
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for whoever asks later.")] = "",
    ticket: Annotated[str | None, typer.Option(metavar="ID", help="Where it was decided.")] = None,
    total: Annotated[
        str | None,
        typer.Option(metavar="USD", help="With --file and --yes: the control total of the preview (billed)."),
    ] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Also cancel the sent meter event at Stripe; its window is sent anew.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes/--dry-run", help="Book it. Without: only show what it would do.")] = False,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Corrects ledger rows by adjustment rows beside them (docs/corrections.md)."""
    if cancel and file is not None:
        raise OptionError("--cancel: only with one ROW")
    wanted = _wanted(row, cost, billed, file, void=void)
    reason = Reason(valid_text("--why", why), None if ticket is None else valid_text("--ticket", ticket))
    total_nano = None if total is None else parse_nano(total, "--total", least=-TOTAL_MAX, most=TOTAL_MAX)
    if file is not None and yes and total_nano is None:
        raise OptionError("--total: give the control total that the preview has shown (billed, USD)")
    run(
        corrections_command.adjust(
            settings(),
            Console(),
            wanted,
            reason,
            now=datetime.now(UTC),
            yes=yes,
            by=by,
            total_nano=total_nano,
            cancel=cancel,
            as_json=as_json,
        )
    )


def valid_text(option: str, text: str) -> str:
    """A reason or a ticket. Raises OptionError."""
    cleaned, most = text.strip(), TEXT_MAX[option]
    if not 0 < len(cleaned) <= most or not cleaned.isprintable():
        raise OptionError(f"{option}: 1 to {most} printable characters on one line")
    return cleaned


def _wanted(row: str | None, cost: str | None, billed: str | None, file: Path | None, *, void: bool) -> list[WantedRow]:
    if (row is None) == (file is None):
        raise OptionError("name one ROW, or give --file")
    if row is not None:
        return [parse_wanted(row, cost, billed, void=void)]
    if cost is not None or billed is not None or void:
        raise OptionError("--file: the file has the amounts; leave --cost, --billed and --void out")
    assert file is not None
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise OptionError(f"--file: {file} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise OptionError(f"--file: {file} is larger than {FILE_BYTES_MAX} bytes")
    return parse_file(data)
