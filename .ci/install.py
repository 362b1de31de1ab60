"""Makes the virtual environment `.venv` for the Makefile: standard library only, because nothing else is there yet.

Installs exactly what requirements.lock lists, every file checked against its hash, from wherever pip is configured
to look (PIP_* and pip.conf hold as they are; no index is named here). Our own packages come from the clone through a
`.pth` file, so that no build tool is needed. Run by the Makefile: `python3 .ci/install.py`.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
VENV = TOP / ".venv"
LOCK = TOP / "requirements.lock"
STAMP = VENV / ".ready"
LOG = VENV / "install.log"
EVERY_S = 5
"""Seconds between two lines of progress."""


def main() -> None:
    """Brings `.venv` up to date with the lock; a second run waits for the first."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"{sys.executable} (Python {version}) has no `ensurepip`, so it cannot make virtual environments.\n"
            f"On Debian and Ubuntu: apt install python{version}-venv. Or name another one: make PYTHON=/path/to/python3"
        )
    with (TOP / "pyproject.toml").open("rb") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        wanted = f"{sys.version}\n{LOCK.read_text()}"
        if not (STAMP.is_file() and STAMP.read_text() == wanted and _starts()):
            _make()
            STAMP.write_text(wanted)
        else:
            os.utime(STAMP)


def _starts() -> bool:
    python = VENV / "bin" / "python"
    return python.exists() and subprocess.run([python, "-c", ""], check=False).returncode == 0


def _make() -> None:
    started = time.monotonic()
    print(f"Setting up {VENV.name} with Python {sys.version.split()[0]}, once:", flush=True)
    if VENV.exists():
        shutil.rmtree(VENV)
    venv.create(VENV, with_pip=True, symlinks=True)
    _install(started)
    packages = next(VENV.glob("lib/python*/site-packages"))
    # Relative, so that the clone may be moved.
    (packages / "pailflow-gateway.pth").write_text(f"{os.path.relpath(TOP, packages)}\n")
    command = VENV / "bin" / "gateway"
    command.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m gateway "$@"\n')
    command.chmod(0o755)
    print(f"  ready after {time.monotonic() - started:.0f} s", flush=True)


def _install(started: float) -> None:
    """Runs pip and tells every few seconds how far it is; its whole output is shown when it fails."""
    count = sum("==" in line for line in LOCK.read_text().splitlines())
    command = [VENV / "bin" / "python", "-m", "pip", "install", "--require-hashes", "-r", LOCK]
    command += ["--no-user", "--no-input", "--no-compile", "--progress-bar", "off", "--disable-pip-version-check"]
    with LOG.open("wb") as log:
        pip = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    status = pip.wait(EVERY_S)
                    break
                except subprocess.TimeoutExpired:
                    print(f"  {time.monotonic() - started:3.0f} s  {_progress(count)}", flush=True)
        except BaseException:
            pip.terminate()
            pip.wait()
            raise
    if status != 0:
        sys.stderr.write(LOG.read_text(errors="replace"))
        sys.exit("The locked packages could not be installed; pip's own words are above.")


def _progress(count: int) -> str:
    lines = LOG.read_text(errors="replace").splitlines()
    if any(line.startswith("Installing collected") for line in lines):
        return "installing"
    names = [line.split()[1].partition("==")[0] for line in lines if line.startswith("Collecting ")]
    return f"fetching {len(names)} of at most {count} packages: {names[-1]}" if names else "starting pip"


if __name__ == "__main__":
    main()
