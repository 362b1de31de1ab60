"""Proves that the wheel is whole: built, installed into an empty virtual environment, and run far away from the clone.

Must not let the clone help: sources are copied out first, every later step runs in an empty folder with an environment
that names nothing of ours, and where the imported code lies is checked. Writes nothing into the clone; everything
is below one temporary folder that is gone at the end. Standard library only; run by `make package`.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "migrations", "pricing")
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
"""What the wheel is built from; the Dockerfile copies the same."""
EXTRA = "embedded"
LIMIT_S = 300
"""Seconds that any one step may take."""
KEPT = ("PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Of our environment, besides pip's own settings and proxies: what an ordinary shell has."""


class NotWhole(Exception):
    """The package lacks something; the message says what."""


def main() -> None:
    """Exits by SystemExit, with the reason when the wheel is not whole."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="gateway-package-", ignore_cleanup_errors=True) as folder:
            # As root, the embedded servers run as another user, who must be able to pass through.
            os.chmod(folder, 0o711)  # noqa: S103  # passing through only
            _prove(Path(folder))
    except NotWhole as error:
        sys.exit(f"package: {error}")
    print(f"The wheel is whole: it demonstrated itself outside the clone ({time.monotonic() - started:.0f} s).")


def _prove(folder: Path) -> None:
    _say("building the wheel from a copy of the sources, with the pinned build tool")
    wheel = _build(folder)
    compare(wheel, folder / "sources")
    _say(f"{wheel.name} has every file of {', '.join(PACKAGES)}, and nothing else")
    _say(f"asking pip what it needs with the extra {EXTRA}, at the versions of requirements.lock")
    requirements = folder / "requirements.txt"
    requirements.write_text(_run([sys.executable, TOP / ".ci" / "locked.py", wheel, EXTRA], folder))
    _say("installing that into an empty virtual environment, every file checked against its hash")
    python = _environment(folder / "installed")
    _pip(python, folder, "install", "--no-deps", "--require-hashes", "--no-compile", "-r", requirements)
    _pip(python, folder, "check")
    empty = folder / "empty"
    empty.mkdir()
    _comes_from(python, empty)
    _say("running `gateway demo` in an empty folder")
    print(_run([python.with_name("gateway"), "demo"], empty), end="", flush=True)
    if left := sorted(path.name for path in empty.iterdir()):
        raise NotWhole(f"`gateway demo` left behind in the folder where it ran: {', '.join(left)}")
    _says_what_is_missing(python, empty)


def _build(folder: Path) -> Path:
    """The wheel, built without network by a tool whose hash is pinned."""
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, sources / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(TOP / name, sources)
    builder = _environment(folder / "builder")
    _pip(builder, folder, "install", "--require-hashes", "-r", TOP / ".ci" / "build-requirements.txt")
    _pip(builder, folder, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", sources)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def compare(wheel: Path, sources: Path) -> None:
    """Raises NotWhole unless the wheel has exactly the files of our packages below `sources`, and its metadata."""
    built = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    # Building leaves its own folders beside the packages, never in them.
    wanted = {
        path.relative_to(sources).as_posix()
        for package in PACKAGES
        for path in (sources / package).rglob("*")
        if path.is_file()
    }
    if missing := sorted(wanted - built):
        raise NotWhole(f"the wheel lacks {', '.join(missing)}: see package-data in pyproject.toml")
    if extra := sorted(built - wanted):
        raise NotWhole(f"the wheel has what it should not have: {', '.join(extra)}")


def _environment(folder: Path) -> Path:
    """The Python of a new virtual environment."""
    venv.create(folder, with_pip=True, symlinks=True)
    return folder / "bin" / "python"


def _comes_from(python: Path, empty: Path) -> None:
    """Raises NotWhole unless what is imported in `empty` is the installed code, and tests and bench are not there."""
    code = f"import importlib as i; print(*[i.import_module(name).__file__ for name in {PACKAGES}], sep='\\n')"
    home = python.parent.parent
    for file in _run([python, "-c", code], empty).splitlines():
        if not Path(file).is_relative_to(home):
            raise NotWhole(f"not the installed code is imported, but {file}")
    code = "import importlib.util as u; print(*[name for name in ('tests', 'bench') if u.find_spec(name)])"
    if found := _run([python, "-c", code], empty).strip():
        raise NotWhole(f"installed with it, though it must not be: {found}")


def _says_what_is_missing(python: Path, empty: Path) -> None:
    """Raises NotWhole unless `up` and `demo` without the extra name it."""
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    _pip(python, empty, "uninstall", "--yes", *(line.partition(">")[0] for line in extras[EXTRA]))
    for command in ("up", "demo"):
        done = _call([python.with_name("gateway"), command], empty)
        said = f"pailflow-gateway[{EXTRA}]"
        if done.returncode != 1 or said not in done.stderr:
            raise NotWhole(f"`gateway {command}` without the servers must exit 1 and name {said}: {_words(done)}")
    _say(f"without the extra, `up` and `demo` say that {said} is to be installed")


def _pip(python: Path, folder: Path, *arguments: str | Path) -> None:
    _run([python, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", *arguments], folder)


def _run(command: Sequence[str | Path], folder: Path) -> str:
    """What the command printed. Raises NotWhole with its words when it failed."""
    done = _call(command, folder)
    if done.returncode != 0:
        raise NotWhole(f"`{' '.join(map(str, command))}` failed: {_words(done)}")
    return done.stdout


def _call(command: Sequence[str | Path], folder: Path) -> "subprocess.CompletedProcess[str]":
    """The command, run to its end or to the time limit, when everything that it started is ended too."""
    env = {name: value for name, value in os.environ.items() if name in KEPT or name.upper().endswith("_PROXY")}
    env |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except BaseException as error:
            # SIGTERM first: `gateway` then takes its servers down in order.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise NotWhole(f"`{command[0]}` did not end within {LIMIT_S} s") from None
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _words(done: "subprocess.CompletedProcess[str]") -> str:
    return f"exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}".rstrip()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
