"""Who this host is to the others: an id that is made once and lies in its data folder, and its name for people."""

import os
import socket
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from gateway.journal.sync_folder import sync_folder
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.kit.ids import is_uuid
from gateway.stores.disk import FULL

FILE: Final = "host"


class KnownHost(NamedTuple):
    """One journal and the processes that write it."""

    id: str
    name: str


def read_host(data_dir: Path) -> KnownHost:
    """The host of this data folder; the first time, it is made. The caller holds a slot of the folder's journal, so
    nobody else makes one. On a full disk it has another id in each life: the keeper is needed to make room.

    Raises DependencyDown("journal"), ConfigError where the file holds something else.
    """
    path, made = data_dir / FILE, str(uuid4())
    try:
        if not path.exists():
            _write(path, made)
        found = path.read_text("ascii", "replace").strip()
    except OSError as error:
        if error.errno in FULL:
            return KnownHost(made, socket.gethostname())
        raise DependencyDown("journal", f"{path}: {error.strerror}") from error
    if not is_uuid(found):
        raise ConfigError(f"{path}: this is not the id of a host; remove the file and a new one is made")
    return KnownHost(found, socket.gethostname())


def _write(path: Path, text: str) -> None:
    """Whole and on disk under its name, or not there at all."""
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)
