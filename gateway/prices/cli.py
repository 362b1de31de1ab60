"""`gateway price`. Needs no settings and no database."""

import sys

import typer

import pricing
import pricing.data
from gateway.cli.text import escape_json
from gateway.prices import price as price_command

app = typer.Typer()


@app.command()
def price() -> None:
    """Reads JSON lines on standard input, writes one priced JSON line each."""
    book = pricing.parse(pricing.data.read_texts())

    def write(line: str) -> None:
        sys.stdout.write(escape_json(line))

    raise typer.Exit(price_command.run(sys.stdin.buffer, write, book))
