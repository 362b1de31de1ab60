"""What every command needs: progress lines, the settings, an event loop."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from gateway.cli.text import legible_lines
from gateway.config.problems import find_misspelled, problems, read_toml
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError


def say(line: str) -> None:
    """One line of progress for a person, at once; newlines in it stay."""
    typer.echo(legible_lines(line))
    sys.stdout.flush()


def note(line: str) -> None:
    """The same on standard error: for what must not go into a file with the output."""
    typer.echo(legible_lines(line), err=True)


def config_file() -> tuple[str | None, dict[str, Any]]:
    """The path that GATEWAY_CONFIG names, and what the file says. Raises ConfigError when it cannot be read."""
    path = os.environ.get("GATEWAY_CONFIG")
    if not path:
        return None, {}
    try:
        return path, read_toml(path, Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"GATEWAY_CONFIG: {path} cannot be read: {error.strerror}") from None


def settings() -> Settings:
    """The settings of this process. Raises ConfigError naming every setting that is wrong."""
    path, given = config_file()
    wrong = find_misspelled(os.environ)
    try:
        loaded = Settings()
    except ValidationError as error:
        raise ConfigError("\n  ".join(["configuration:", *wrong, *problems(error, os.environ, given, path)])) from None
    if wrong:
        raise ConfigError("\n  ".join(["configuration:", *wrong]))
    return loaded


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a command's coroutine."""
    return asyncio.run(work)
