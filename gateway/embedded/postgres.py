"""How to run PostgreSQL on a folder: first set-up, stale files, version, readiness. Starts no long-lived process."""

import contextlib
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gateway.embedded import binaries
from gateway.embedded.errors import EmbeddedError
from gateway.embedded.location import ServerLocation, run_as, socket_folder
from gateway.embedded.server import Recipe

ROLE: Final = "gateway"
"""Superuser and database, both made at the first start."""
PORT: Final = 5432
"""Only names the socket: no TCP port is opened."""
WORK: Final = "postgres.new-"
"""Beginning of the name of a cluster that is not whole yet."""
STOP_S: Final = 60.0
_STATUS_LINE: Final = 7
"""Of postmaster.pid, from 0: `ready` or `starting` (PostgreSQL sources, pidfile.h)."""
_SAFE: Final = ("max_connections=200",)
_FAST: Final = (
    "max_connections=200",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=64MB",
)


def recipe(location: ServerLocation, data_dir: Path, say: Callable[[str], None], *, fsync: bool) -> Recipe:
    """Prepares the folder `postgres` and says how to run a server on it. Raises EmbeddedError."""
    found = binaries.find_postgres()
    program = location.program(found).path
    pgdata = location.folder / "postgres"
    if not pgdata.exists():
        say("setting up PostgreSQL (first start)")
        _create(location, program)
    location.own_folder("postgres")
    _check_version(location, pgdata, program)
    sockets = socket_folder(location, data_dir, pgdata, f".s.PGSQL.{PORT}.lock")
    settings = ("listen_addresses=", f"port={PORT}", "unix_socket_permissions=0700", "timezone=UTC", "log_timezone=UTC")
    options = [word for setting in (*settings, *(_SAFE if fsync else _FAST)) for word in ("-c", setting)]
    return Recipe(
        name="postgres",
        command=[program, "-D", pgdata, "-k", sockets, *options],
        cwd=pgdata,
        env=_pass_over_stale_pid(pgdata),
        is_ready=lambda pid: _is_ready(pgdata, pid),
        stop_signal=signal.SIGINT,  # "fast": clients are cut, files are left in order
        grace_s=STOP_S,
        url=f"postgresql://{ROLE}@/{ROLE}?host={quote(str(sockets), safe='/')}&port={PORT}",
    )


def _create(location: ServerLocation, program: Path) -> None:
    """Makes a cluster with our role and database, under another name until it is whole."""
    for old in location.folder.glob(f"{WORK}*"):  # of a first start that was cut short, and may be writing still
        shutil.rmtree(old, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=WORK, dir=location.folder))
    location.give(work)
    made = location.run(
        program.with_name("initdb"), "-D", work, "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
    )
    if made.returncode != 0:
        raise EmbeddedError(f"PostgreSQL could not be set up in {work}:\n{made.stdout}{made.stderr}".strip())
    # In single-user mode, so that the database is there before anyone can connect.
    single = (program, "--single", "-D", work, "-c", "fsync=off", "template1")
    made = location.run(*single, feed=f"CREATE DATABASE {ROLE};\n")
    if made.returncode != 0 or "ERROR" in made.stderr or "FATAL" in made.stderr:
        raise EmbeddedError(f"PostgreSQL's database could not be made in {work}:\n{made.stdout}{made.stderr}".strip())
    work.rename(location.folder / "postgres")


def _check_version(location: ServerLocation, pgdata: Path, program: Path) -> None:
    """Data of one major version cannot be used by another."""
    try:
        data = (pgdata / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedError(f"{pgdata} holds no PostgreSQL data; move it away, or restore it.") from None
    told = location.run(program, "--version").stdout
    number = re.search(r"(\d+)", told)
    server = number.group(1) if number else told.strip()
    if data != server:
        raise EmbeddedError(
            f"The data in {pgdata} are of PostgreSQL {data}, and the server installed here is {server}. "
            f"Take the data over with pg_dump of version {data}, or choose a new folder with GATEWAY_DATA_DIR."
        )


def _pass_over_stale_pid(pgdata: Path) -> dict[str, str]:
    """What to put into the environment so that a pid file left by a crash does not stop PostgreSQL from starting.

    PostgreSQL clears such a file itself unless its pid has since gone to another process of the same user. The file
    must not be removed for that: its other lines let PostgreSQL see whether part of the crashed server is still
    attached to their shared memory. PG_GRANDPARENT_PID names a pid that is not a rival (PostgreSQL, miscinit.c).
    Raises EmbeddedError when a server really runs on this folder; nothing is done to it.
    """
    deadline = time.monotonic() + STOP_S
    while (pid := _pid_in(pgdata / "postmaster.pid")) is not None and _works_in(pid, pgdata):
        if time.monotonic() > deadline:  # one whose guard was killed stops by itself
            raise EmbeddedError(f"A PostgreSQL that was not started from here (process {pid}) runs on {pgdata}.")
        time.sleep(0.1)
    return {} if pid is None else {"PG_GRANDPARENT_PID": str(pid)}


def _pid_in(pid_file: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        first = pid_file.read_text().partition("\n")[0].strip()
        return abs(int(first)) if first.lstrip("-").isdigit() else None
    return None


def _works_in(pid: int, pgdata: Path) -> bool:
    """Whether process `pid` is a PostgreSQL on `pgdata`: its working folder, or where there is no /proc, its title."""
    if Path("/proc/self/cwd").exists():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            return Path(f"/proc/{pid}/cwd").resolve(strict=True) == pgdata.resolve()
        return False
    return str(pgdata) in run_as(None, "/bin/ps", "-p", str(pid), "-o", "command=").stdout


def _is_ready(pgdata: Path, pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        return len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready"
    return False
