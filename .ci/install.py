"""Makes the virtual environment `.venv` for the Makefile: standard library only, because nothing else is there yet.

Installs exactly what requirements.lock lists, every file checked against its hash, from wherever pip is configured
to look (PIP_* and pip.conf hold as they are; no index is named here). Our own packages come from the clone through a
`.pth` file, so that no build tool is needed. Bytecode is compiled here, once, because every process of the gateway
would otherwise compile the libraries again where PYTHONDONTWRITEBYTECODE is set or the folder cannot be written.
Run by the Makefile: `python3 .ci/install.py`.
"""

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

TOP = Path(__file__).resolve().parent.parent
VENV = TOP / ".venv"
LOCK = TOP / "requirements.lock"
STAMP = VENV / ".ready"
LOG = VENV / "install.log"
OURS = ("gateway", "pricing", "migrations")
EVERY_S = 5
"""Seconds between two lines of progress."""


def main() -> None:
    """Brings `.venv` up to date with the lock; a second run waits for the first. Exits by SystemExit."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        _bring_up_to_date()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped before .venv was complete; the next run starts again.\n")
        sys.exit(128 + signal.SIGINT)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Raises, so that pip is stopped too."""
    sys.exit(128 + number)


def _bring_up_to_date() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"{sys.executable} (Python {version}) has no `ensurepip`, so it cannot make virtual environments.\n"
            f"On Debian and Ubuntu: apt install python{version}-venv. Or name another one: make PYTHON=/path/to/python3"
        )
    with (TOP / "pyproject.toml").open("rb") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        wanted = f"{sys.version}\n{LOCK.read_text()}{Path(__file__).read_text()}"
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
    _compile(packages, started)
    # Relative, so that the clone may be moved.
    (packages / "pailflow-gateway.pth").write_text(f"{os.path.relpath(TOP, packages)}\n")
    command = VENV / "bin" / "gateway"
    command.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m gateway "$@"\n')
    command.chmod(0o755)
    print(f"  ready after {time.monotonic() - started:.0f} s", flush=True)


def _install(started: float) -> None:
    """Runs pip; its whole output is shown when it fails."""
    count = sum("==" in line for line in LOCK.read_text().splitlines())
    options = ["--no-user", "--no-input", "--no-compile", "--progress-bar", "off", "--disable-pip-version-check"]
    # Wheels only: a source package would run its own code here.
    safely = ["--require-hashes", "--only-binary", ":all:"]
    status = _run(["pip", "install", *safely, "-r", str(LOCK), *options], started, lambda: _progress(count))
    if status != 0:
        sys.stderr.write(LOG.read_text(errors="replace"))
        sys.exit("The locked packages could not be installed; pip's own words are above.")


def _compile(packages: Path, started: float) -> None:
    """Writes the bytecode of everything, with all cores: pip's own `--compile` has one.

    The exit status says that some file is not Python of this version (packages ship templates); such a file is not
    imported either, or its import says so.
    """
    folders = [str(packages), *(str(TOP / name) for name in OURS)]
    _run(["compileall", "-q", "-j", "0", *folders], started, lambda: "compiling")


def _run(module: Sequence[str], started: float, progress: Callable[[], str]) -> int:
    """Runs a module of the new environment, its output in the log; tells every few seconds how far it is."""
    with LOG.open("wb") as log:
        command = [VENV / "bin" / "python", "-m", *module]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    return process.wait(EVERY_S)
                except subprocess.TimeoutExpired:
                    print(f"  {time.monotonic() - started:3.0f} s  {progress()}", flush=True)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _progress(count: int) -> str:
    lines = LOG.read_text(errors="replace").splitlines()
    if any(line.startswith("Installing collected") for line in lines):
        return "installing"
    names = [line.split()[1].partition("==")[0] for line in lines if line.startswith("Collecting ")]
    return f"fetching {len(names)} of at most {count} packages: {names[-1]}" if names else "starting pip"


if __name__ == "__main__":
    main()
