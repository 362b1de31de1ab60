"""Runs a command through the command line's own parser, in this process: a process of its own costs a second."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from typer.testing import CliRunner

from gateway.cli import build
from gateway.kit.errors import Expected
from tests.support.environment import clean_environment


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    error: str
    """What `gateway: …` would say; empty when all went well."""
    noted: str
    """What went to standard error besides."""


async def gateway(env: dict[str, str], *arguments: str) -> Done:
    """`gateway <arguments>` with this configuration and no other. Raises whatever no person should ever see."""
    # In a thread, because a command brings an event loop of its own.
    return await asyncio.to_thread(gateway_here, env, *arguments)


def gateway_now(env: dict[str, str], *arguments: str) -> Done:
    """The same for a caller that is not a coroutine, whether or not an event loop runs around it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(gateway_here, env, *arguments).result()


def gateway_here(env: dict[str, str], *arguments: str) -> Done:
    """The same in this very thread, for commands that listen to signals and a caller without an event loop."""
    foreign = dict.fromkeys(os.environ.keys() - clean_environment().keys())
    given = {**foreign, "COLUMNS": "220", **env}
    result = CliRunner().invoke(build(arguments), list(arguments), env=given)
    if result.exception is not None and not isinstance(result.exception, Expected | SystemExit):
        raise result.exception
    error = str(result.exception) if isinstance(result.exception, Expected) else ""
    return Done(result.exit_code, result.stdout_bytes.decode(), error, result.stderr)
