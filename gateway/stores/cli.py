"""`gateway migrate`."""

import typer

from gateway.cli.command import run, say, settings
from gateway.config.settings import require_values
from gateway.stores import migrator

app = typer.Typer()


@app.command()
def migrate() -> None:
    """Migrates the database to the current schema; idempotent, and safe to run concurrently."""
    report = run(migrator.migrate(require_values(settings(), "database_url")["database_url"], said=say))
    for migration in report.applied:
        say(f"applied {migration.version}_{migration.name}")
    for notice in report.notices:
        say(f"notice: {notice}")
    say(f"{len(report.applied)} applied, {report.already} there before")
