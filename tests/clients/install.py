"""Installs a client at its locked versions with pip or npm into a folder of its own, and says how to start its program.

The lock files name no registry: pip and npm take the one that this machine is set up for.
"""

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.clients.table import HERE, Client

INSTALL_S: Final = 600.0
NODE_SINCE: Final = (22, 13)
"""What the newest of these clients ask for."""
Command = tuple[str | Path, ...]


class Mismatch(Exception):
    """A client did not work as docs/clients.md says; the message says how."""


def install(client: Client, folder: Path, node: Path) -> Command:
    """Puts the client into the new folder `folder`, and returns the command of its program."""
    if client.language == "python":
        return _pip(client, folder)
    return _npm(client, folder, node)


def find_node(folder: Path) -> Path:
    """The folder of a Node that is new enough: this machine's, else one that npm installs into `folder`."""
    there = shutil.which("node")
    if there is not None and version_of(run([there, "--version"], 10.0)) >= NODE_SINCE:
        return Path(there).parent
    shutil.copytree(HERE / "node" / "runtime", folder)
    run_npm(folder)
    for binary in sorted((folder / "node_modules").glob("node-*/bin/node")):
        return binary.parent
    raise Mismatch(f"Node {'.'.join(map(str, NODE_SINCE))} or later is needed, and npm has none for this machine")


def version_of(said: str) -> tuple[int, int]:
    """`v20.20.2` is (20, 20)."""
    found = re.match(r"v(\d+)\.(\d+)\.", said)
    if found is None:
        raise Mismatch(f"`node --version` said {said!r}")
    return int(found[1]), int(found[2])


def _npm(client: Client, folder: Path, node: Path) -> Command:
    """Its packages, and its program above them."""
    shutil.copytree(HERE / "node" / client.file, folder / "program", ignore=shutil.ignore_patterns("node_modules"))
    shutil.copy(HERE / "node" / "told.mjs", folder)
    run_npm(folder / "program")
    return (node / "node", folder / "program" / "calls.mjs")


def _pip(client: Client, folder: Path) -> Command:
    """A virtual environment with what its lock file lists."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    quiet = ("--quiet", "--no-input", "--no-compile", "--disable-pip-version-check", "--require-hashes")
    lock = HERE / "python" / f"{client.file}.lock"
    run([sys.executable, "-m", "pip", "--python", python, "install", *quiet, "-r", lock], INSTALL_S)
    return (python, HERE / "python" / f"{client.file}_calls.py")


def run_npm(folder: Path) -> None:
    """What package-lock.json lists, without running any package's own scripts.

    Not `npm ci`: it wants the binaries of every platform in the lock file, and registries may lack some.
    """
    quiet = ("--no-save", "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel", "error")
    run(["npm", "install", *quiet], INSTALL_S, cwd=folder)


def run(
    command: Sequence[str | Path], limit_s: float, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What it printed. Raises Mismatch with its last words when it fails or takes longer than `limit_s`."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise Mismatch(f"`{command[0]}` did not end within {limit_s:.0f} s") from None
    if done.returncode != 0:
        raise Mismatch(f"`{command[0]}` exited {done.returncode}: {done.stdout[-1500:]}{done.stderr[-3000:]}")
    return done.stdout
