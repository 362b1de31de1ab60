"""The disk that a folder is on: whether it can be written, how fast, how full, of what kind. Leaves nothing behind."""

import errno
import os
import statistics
import time
from pathlib import Path
from typing import Final, NamedTuple

NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.glusterfs", "9p", "ceph", "lustre"}
)
FLEETING: Final = frozenset({"tmpfs", "ramfs", "overlay"})
"""Gone with the machine or the container."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
SYNCS: Final = 5


class Disk(NamedTuple):
    """What was found."""

    sync_ms: float
    """Median time of one synchronous write, milliseconds."""
    free_bytes: int
    kind: str
    """Type of the file system; `unknown` where the system does not say."""


def probe(folder: Path) -> Disk:
    """Of a folder that is not there yet, the one it would be made in. Raises OSError when it cannot be written."""
    while not folder.exists():
        folder = folder.parent
    path = folder / f".doctor-{os.getpid()}"
    took = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(SYNCS):
            begun = time.perf_counter()
            os.write(fd, b"\n")
            took.append((time.perf_counter() - begun) * 1000)
        free = os.fstatvfs(fd)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
    return Disk(statistics.median(took), free.f_bavail * free.f_frsize, _kind(folder))


def _kind(folder: Path) -> str:
    """The type of the mount that the folder is on: the longest mount point above it."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    real = folder.resolve()
    found, kind = -1, "unknown"
    for line in mounts.read_text("utf-8", "replace").splitlines():
        fields = line.split(" ")
        point = Path(fields[1].encode().decode("unicode_escape"))
        if real.is_relative_to(point) and len(point.parts) >= found:
            found, kind = len(point.parts), fields[2]
    return kind
