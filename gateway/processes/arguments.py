"""What a process is given. This folder has one file per kind of process: each builds its parts from settings, runs
them, and takes them down in order.

Decides nothing: rules are in the folders of their subjects. `proxy` (one per slot of the journal, answers
clients), `keeper` (one per journal folder: ships, confirms, sweeps), `worker` (any number, on any host: flushes the
Redis stream into Postgres, bills), `sandbox` (the vendors' stand-ins). Each file has `run`, and says once a second how
its process is. They do not import each other: a proxy that is started again must not wait for Stripe's SDK.
"""

import socket
from collections.abc import Callable
from typing import NamedTuple

from gateway.kit.failpoints import Failpoint, pass_by

OnNewSecret = Callable[[str, Callable[[str], None]], None]
"""Told who wants the new value of which setting (one of secret_table.ROTATED)."""


def never_changes(_name: str, _use: Callable[[str], None]) -> None:
    """For a process whose secrets stay as they are."""


def never_leaves() -> bool:
    """For a process whose place nobody takes."""
    return False


class ProcessArguments(NamedTuple):
    """What a process is given in addition to its settings."""

    slot: int
    """Of a proxy: its number, which names its journal."""
    host: str
    port: int
    failpoint: Failpoint = pass_by
    on_new_secret: OnNewSecret = never_changes
    listeners: tuple[socket.socket, ...] = ()
    """Of a proxy: bound sockets of its parent, to accept on; without any it makes one of its own."""
    leaving: Callable[[], bool] = never_leaves
    """Whether it is to stop because another gateway has taken over: there is no hurry then."""
