"""Writes the part of requirements.lock that one wheel needs on this machine: what pip resolves, pinned and hashed.

The lock is for every platform and every extra, the tests' tools too; an installation should have only what it runs.
pip says which packages those are, held to the lock's versions; the lines written are the lock's own, hashes and all,
and one for the wheel itself. Install them with `pip install --no-deps --require-hashes -r`. Standard library only.

    python .ci/locked.py dist/pailflow_gateway-0.1.0-py3-none-any.whl otel > requirements.txt
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
PROJECT = "pailflow-gateway"
ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?P<pin>==[^\\\n]+?) \\\n(?:    --hash=.*\n?)+", re.MULTILINE)


def main() -> None:
    """Prints the requirements of the wheel that the first argument names, with the extras that the others name."""
    if len(sys.argv) < 2:
        sys.exit("usage: python .ci/locked.py WHEEL [EXTRA...]")
    for line in needed(Path(sys.argv[1]).resolve(), sys.argv[2:]):
        sys.stdout.write(line)


def needed(wheel: Path, extras: Sequence[str]) -> Iterator[str]:
    """Lines of a requirements file. Exits when the wheel needs something that the lock does not pin."""
    entries = {normal(entry["name"]): entry for entry in ENTRY.finditer(LOCK.read_text())}
    names = resolved(wheel, extras, "".join(f"{entry['name']}{entry['pin']}\n" for entry in entries.values()))
    if missing := sorted(names - entries.keys()):
        sys.exit(f"{wheel.name} needs what requirements.lock does not have: {', '.join(missing)}. Run: make lock")
    for name in sorted(names):
        yield entries[name].group()
    yield f"{PROJECT} @ {wheel.as_uri()} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def resolved(wheel: Path, extras: Sequence[str], pins: str) -> set[str]:
    """Normal names of what pip would install besides the wheel, on this machine and for this Python."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(pins)
        constraints.flush()
        wanted = f"{PROJECT}[{','.join(extras)}] @ {wheel.as_uri()}"
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary", ":all:"]
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--report", "-", "-c", constraints.name]
        done = subprocess.run([*pip, *quiet, wanted], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"pip could not find what {wheel.name} needs at the versions of requirements.lock; see above.")
    return {normal(item["metadata"]["name"]) for item in json.loads(done.stdout)["install"]} - {PROJECT}


def normal(name: str) -> str:
    """A distribution's name as every tool spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
