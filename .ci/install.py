"""Makes the virtual environment `.venv` for the Makefile: standard library only, because nothing else is there yet.

Installs exactly what requirements.lock lists, every file checked against its hash, from wherever pip is configured
to look (PIP_* and pip.conf hold as they are; no index is named here). pip fetches, one process per core, because
reading the indexes is most of its work; uv, which is one of the files, unpacks them. Our own packages come from the
clone through a `.pth` file, so that no build tool is needed. Bytecode is compiled here, once, because every process of
the gateway would otherwise compile the libraries again where PYTHONDONTWRITEBYTECODE is set or the folder cannot be
written.
Run by the Makefile: `python3 .ci/install.py`.
"""

import contextlib
import fcntl
import importlib.util
import os
import re
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
"""Each of several processes has one with its number before the name."""
OURS = ("gateway", "pricing", "migrations")
JOBS = min(4, os.cpu_count() or 1)
"""How many processes fetch."""
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
    """Fetches all that the lock lists, and unpacks it."""
    wheels = VENV / "wheels"
    wheels.mkdir()
    entries = re.split(r"(?m)^(?=[^\s#])", LOCK.read_text())[1:]
    shares = [wheels / f"{first}.txt" for first in range(JOBS)]
    for first, share in enumerate(shares):
        share.write_text("".join(entries[first::JOBS]))
    # Wheels only: a source package would run its own code here. The lock has what each package needs.
    safely = ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
    quietly = ["--no-input", "--progress-bar", "off", "--disable-pip-version-check"]
    fetch = ["pip", "download", *safely, *quietly, "--dest", str(wheels), "-r"]
    _must_run([[*fetch, str(share)] for share in shares], started, lambda: _progress(len(entries)))
    unpacker = str(next(wheels.glob("uv-*.whl")))
    _must_run([["pip", "install", "--no-deps", "--no-user", *quietly, unpacker]], started, lambda: "installing")
    locally = ["--no-config", "--no-cache", "--offline", "--no-index", "--find-links", str(wheels)]
    unpack = ["uv", "pip", "install", *safely, *locally, "--python", str(VENV / "bin" / "python"), "-r", str(LOCK)]
    _must_run([unpack], started, lambda: "installing")
    shutil.rmtree(wheels)


def _must_run(modules: Sequence[Sequence[str]], started: float, progress: Callable[[], str]) -> None:
    """Runs pip or uv; the whole output of what fails is shown."""
    failed = _run(modules, started, progress)
    for log in failed:
        sys.stderr.write(log.read_text(errors="replace"))
    if failed:
        sys.exit("The locked packages could not be installed; the installer's own words are above.")


def _compile(packages: Path, started: float) -> None:
    """Writes the bytecode of everything, with all cores: pip's own `--compile` has one.

    The exit status says that some file is not Python of this version (packages ship templates); such a file is not
    imported either, or its import says so.
    """
    folders = [str(packages), *(str(TOP / name) for name in OURS)]
    _run([["compileall", "-q", "-j", "0", *folders]], started, lambda: "compiling")


def _run(modules: Sequence[Sequence[str]], started: float, progress: Callable[[], str]) -> list[Path]:
    """Runs modules of the new environment side by side, the output of each in a log of its own; tells every few seconds
    how far they are. The logs of those that failed.
    """
    # What somebody's uv is told elsewhere does not hold here; pip's settings do.
    env = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    logs = [LOG.with_name(f"{number}-{LOG.name}") for number in range(len(modules))]
    with contextlib.ExitStack() as ending:
        processes = []
        for module, log in zip(modules, logs, strict=True):
            out = ending.enter_context(log.open("wb"))
            command = [VENV / "bin" / "python", "-m", *module]
            processes.append(
                subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            )
            ending.callback(_end, processes[-1])
        while running := [process for process in processes if process.poll() is None]:
            try:
                running[0].wait(EVERY_S)
            except subprocess.TimeoutExpired:
                print(f"  {time.monotonic() - started:3.0f} s  {progress()}", flush=True)
        return [log for process, log in zip(processes, logs, strict=True) if process.returncode != 0]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()


def _progress(count: int) -> str:
    lines = [line for log in VENV.glob(f"*-{LOG.name}") for line in log.read_text(errors="replace").splitlines()]
    names = [line.split()[1].partition("==")[0] for line in lines if line.startswith("Collecting ")]
    return f"fetching {len(names)} of at most {count} packages: {names[-1]}" if names else "starting pip"


if __name__ == "__main__":
    main()
