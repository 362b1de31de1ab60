"""What every file of the command line needs: a line for a person, the settings, a loop to run in."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import typer
from pydantic import ValidationError

from gateway.core.config import Settings
from gateway.core.errors import ConfigError


def say(line: str) -> None:
    """One line of progress for a person, at once."""
    typer.echo(line)
    sys.stdout.flush()


def settings() -> Settings:
    """The settings of this process. Raises ConfigError naming the setting that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        # Never the value: it may be a secret.
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors())
        raise ConfigError(wrong) from None


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a command's coroutine."""
    return asyncio.run(work)
