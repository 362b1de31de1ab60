"""A child that writes down what it was given, as any process of the gateway is given it. Run by test_secrets.py."""

import asyncio
import importlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from gateway.config.secret_table import NEEDED_BY
from gateway.config.settings import Settings
from gateway.kit.core_dumps import are_dumps_forbidden
from gateway.kit.metrics import Status
from gateway.processes import child
from gateway.processes.arguments import ProcessArguments
from gateway.processes.supervisor import Ready


def secrets_of(settings: Settings) -> dict[str, str]:
    """Those that it has, opened."""
    found = {}
    for name in NEEDED_BY:
        section, _, field = name.rpartition(".")
        value = getattr(getattr(settings, section) if section else settings, field)
        if value is not None:
            found[name] = value.get_secret_value()
    return found


async def tell(settings: Settings, arguments: ProcessArguments, stop: asyncio.Event, ready: Ready) -> None:
    """In place of the work of a process."""
    told: dict[str, Any] = {
        "environ": Path("/proc/self/environ").read_bytes().decode("utf-8", "surrogateescape"),
        "dumps_forbidden": are_dumps_forbidden(),
        "secrets": secrets_of(settings),
        "keepalive_s": settings.gateway_keepalive_s,
        "new": [],
    }
    path = Path(os.environ["TELLING_CHILD"])

    def write() -> None:
        path.with_suffix(".new").write_text(json.dumps(told))
        path.with_suffix(".new").replace(path)

    def use(name: str, value: str) -> None:
        told["new"] = [*told["new"], [name, value]]
        write()

    for name in NEEDED_BY:
        arguments.on_new_secret(name, partial(use, name))
    write()
    ready(Status)
    await stop.wait()


def main() -> None:
    """Every kind tells instead of working."""
    for kind in ("proxy", "keeper", "worker", "sandbox"):
        setattr(importlib.import_module(f"gateway.processes.{kind}"), "run", tell)  # noqa: B010  # a module's name
    child.main()


if __name__ == "__main__":
    main()
