"""`gateway config …`."""

import os
from typing import Annotated

import typer

from gateway.cli.command import config_file, say, settings
from gateway.cli.console import Console
from gateway.config.dsn import read_dsn
from gateway.config.files import check_files
from gateway.config.problems import bare_sections, without_effect
from gateway.config.redis_url import read_redis_url
from gateway.doctor.commands import show_settings
from gateway.doctor.effective_settings import list_settings

app = typer.Typer(no_args_is_help=True, help="The effective settings. Needs no database.")


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Lists every setting, its value and its source; for secrets only whether they are set."""
    loaded = settings()
    path, given = config_file()
    show_settings(list_settings(loaded, os.environ, given, path), Console(), as_json=as_json)


@app.command()
def check() -> None:
    """Checks all settings; names every mistake and exits 1 if there is one."""
    loaded = settings()
    if loaded.database_url is not None:
        check_files("DATABASE_URL", dict(read_dsn(loaded.database_url.get_secret_value()).files))
    for name, redis in (("REDIS_URL", loaded.redis_url), ("LIMITS_REDIS_URL", loaded.limits_redis_url)):
        if redis is not None:
            check_files(name, read_redis_url(redis.get_secret_value()).files)
    for line in [*without_effect(loaded), *bare_sections(os.environ)]:
        say(f"warning: {line}")
    say("the configuration is right; `gateway doctor` asks whether what it names is there")
