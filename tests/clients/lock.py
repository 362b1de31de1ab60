"""`python -m tests.clients.lock`: writes the lock files of the clients anew, with the newest version of each.

They name versions and hashes, and no registry. Give names for some of them only: `python -m tests.clients.lock vercel`.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.clients.table import CLIENTS, HERE

COMPILE = (
    "--no-config",
    "--universal",
    "--python-version",
    "3.11",
    "--no-header",
    "--no-annotate",
    "--generate-hashes",
)
INSTALL = ("--package-lock-only", "--save-exact", "--omit-lockfile-registry-resolved", "--ignore-scripts", "--no-audit")


def main(names: Sequence[str]) -> None:
    """Those of these clients; CalledProcessError when a registry lacks something."""
    for client in CLIENTS:
        if names and client.name not in names:
            continue
        if client.language == "python":
            lock_python(HERE / "python" / f"{client.file}.lock")
        else:
            lock_node(HERE / "node" / client.file)


def lock_python(lock: Path) -> None:
    """By the requirements beside it."""
    lock.unlink(missing_ok=True)
    files = ("--output-file", str(lock), str(lock.with_suffix(".in")))
    subprocess.run([sys.executable, "-m", "uv", "pip", "compile", "--quiet", *COMPILE, *files], check=True)


def lock_node(folder: Path) -> None:
    """By the names in its package.json."""
    named = json.loads((folder / "package.json").read_text())["dependencies"]
    (folder / "package-lock.json").unlink(missing_ok=True)
    subprocess.run(["npm", "install", *INSTALL, *(f"{name}@latest" for name in named)], cwd=folder, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
