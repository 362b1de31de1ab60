"""Who runs the servers and where their files are: the data folder itself, or, for root, a folder the user can reach.

Creates folders and changes owner and mode of those only. What exists already is looked at, never changed.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gateway.embedded.binaries import Program
from gateway.embedded.errors import EmbeddedError

RECORD: Final = "embedded.place"
"""File in the data folder that names where the data are, when they are not in the data folder."""
SOCKET_PATH_MAX: Final = 103
"""Bytes of a Unix socket's path on the strictest of our platforms (macOS 103, Linux 107)."""
_ENV: Final = ("PATH", "TMPDIR")
_NEW: Final = "choose a new folder with GATEWAY_DATA_DIR."


class ServerUser(NamedTuple):
    """An unprivileged user that root runs the servers as."""

    name: str
    uid: int
    gid: int


class ServerLocation(NamedTuple):
    """Where the servers' files are, and as whom they run."""

    folder: Path
    """Holds postgres/, valkey/ and the logs."""
    user: ServerUser | None
    """None: as ourselves."""

    def own_folder(self, name: str) -> Path:
        """`folder/name`, made if need be, ours alone (0700). Raises EmbeddedError where it belongs to someone else."""
        path = self.folder / name
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            self.give(path)
        owner = os.geteuid() if self.user is None else self.user.uid
        if path.stat().st_uid != owner:
            raise EmbeddedError(
                f"{path} belongs to user {_user_name(path.stat().st_uid)}, and this is {_user_name(owner)}: "
                "run as that user, or choose another folder with GATEWAY_DATA_DIR."
            )
        return path

    def give(self, path: Path) -> None:
        """Hands what we have just made to the servers' user."""
        if self.user is not None:
            os.chown(path, self.user.uid, self.user.gid)

    def run(self, *command: str | Path, feed: str = "") -> "subprocess.CompletedProcess[str]":
        """Runs a short-lived program as the servers' user, with `feed` to read; its output is in the result."""
        return run_as(self.user, *command, feed=feed)

    def program(self, program: Program) -> Program:
        """`program` if the servers' user can run it where it is, else a private copy of it in our folder."""
        if self.user is None or _can_use(self.user, [program.root / part for part in program.parts]):
            return program
        seen = program.path.stat()
        stamp = hashlib.sha256(f"{program.path}\n{seen.st_size}\n{seen.st_mtime_ns}".encode()).hexdigest()[:12]
        home = self.folder / f"{program.path.name}-{stamp}"
        if not home.exists():
            _copy(program, home)
        return program.at(home)


def find(data_dir: Path, say: Callable[[str], None]) -> ServerLocation:
    """Where the servers of `data_dir` live, made if need be. Raises EmbeddedError."""
    if os.geteuid() != 0:
        return ServerLocation(data_dir, None)
    record = data_dir / RECORD
    if record.exists():
        folder = Path(record.read_text().strip())
        if not folder.is_dir():
            raise EmbeddedError(
                f"{record} says that the data are in {folder}, which is not there. Restore it, or {_NEW}"
            )
        return ServerLocation(folder, _reaching(_user(folder), folder))
    user = _user(data_dir)
    if _can_enter(user, data_dir):
        return ServerLocation(data_dir, user)
    folder = _elsewhere(user, data_dir)
    record.write_text(f"{folder}\n")
    say(f"as root, PostgreSQL runs as user {user.name}, who cannot reach {data_dir}: the data are in {folder}")
    return ServerLocation(folder, user)


def socket_folder(location: ServerLocation, data_dir: Path, home: Path, socket_name: str) -> Path:
    """The folder for a server's socket: `home`, or a short private one where its path would be too long.

    A short one is recorded, so that the next start uses it again instead of leaving it behind.
    """
    if len(os.fsencode(home / socket_name)) <= SOCKET_PATH_MAX:
        return home
    record = data_dir / f"{home.name}.socket"
    owner = os.geteuid() if location.user is None else location.user.uid
    if record.exists() and _is_private(Path(record.read_text().strip()), owner):
        return Path(record.read_text().strip())
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) + len("/gateway-01234567/") + len(socket_name) > SOCKET_PATH_MAX:
        base = "/tmp"  # noqa: S108  (mkdtemp makes a private folder in it, and the usual one is too long)
    folder = Path(tempfile.mkdtemp(prefix="gateway-", dir=base))
    location.give(folder)
    record.write_text(f"{folder}\n")
    return folder


def server_env() -> Mapping[str, str]:
    """What a server sees of our environment: no credential of ours is in it."""
    kept = {name: os.environ[name] for name in _ENV if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _user(folder: Path) -> ServerUser:
    """Whoever owns the data already, else an unprivileged user that every machine has. Raises EmbeddedError."""
    data = folder / "postgres"
    if data.exists() and (owner := data.stat().st_uid) != 0:
        return ServerUser(_user_name(owner), owner, data.stat().st_gid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return ServerUser(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as: "
        "run this as an ordinary user, or set DATABASE_URL and REDIS_URL to servers of your own."
    )


def _reaching(user: ServerUser, folder: Path) -> ServerUser:
    if not _can_enter(user, folder):
        raise EmbeddedError(f"User {user.name}, whose data are in {folder}, cannot reach that folder any more.")
    return user


def _elsewhere(user: ServerUser, data_dir: Path) -> Path:
    """A new folder of ours that `user` can reach; others can pass through it, not list it. Raises EmbeddedError."""
    for base in (Path("/var/lib"), Path(tempfile.gettempdir())):
        if not _can_enter(user, base) or not os.access(base, os.W_OK):
            continue
        folder = Path(tempfile.mkdtemp(prefix="pailflow-gateway-", dir=base))
        folder.chmod(0o711)
        (folder / "data-folder").write_text(f"{data_dir}\n")
        return folder
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and user {user.name} can reach neither {data_dir} nor a folder of ours: "
        "choose one that it can reach with GATEWAY_DATA_DIR."
    )


def _copy(program: Program, home: Path) -> None:
    """Copies the program's parts so that everyone can read and nobody but us can change them; all or nothing."""
    work = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
    for part in program.parts:
        source, target = program.root / part, work / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig"))
        else:
            shutil.copy2(source, target)
    for path in (work, *work.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    work.rename(home)


def _is_private(folder: Path, owner: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        seen = folder.lstat()
        return folder.is_dir() and not folder.is_symlink() and seen.st_uid == owner and seen.st_mode & 0o077 == 0
    return False


def _can_enter(user: ServerUser, folder: Path) -> bool:
    # Tried rather than worked out: access lists and the system's own rules have a say too.
    return run_as(user, "/bin/sh", "-c", 'cd "$1"', "sh", folder).returncode == 0


def _can_use(user: ServerUser, paths: Sequence[Path]) -> bool:
    # Programs and folders alike need both permissions.
    script = 'for path; do [ -r "$path" ] && [ -x "$path" ] || exit 1; done'
    return run_as(user, "/bin/sh", "-c", script, "sh", *paths).returncode == 0


def run_as(user: ServerUser | None, *command: str | Path, feed: str = "") -> "subprocess.CompletedProcess[str]":
    """Runs a short-lived program, as ourselves or as `user`, with `feed` to read; its output is in the result."""
    return subprocess.run(  # noqa: S603  (commands of our own)
        command,
        check=False,
        cwd="/",
        env=server_env(),
        input=feed,
        capture_output=True,
        text=True,
        errors="replace",
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else (),
    )


def _user_name(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
