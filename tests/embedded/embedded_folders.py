"""What the tests of the embedded servers share: folders, a process that runs servers, waiting for processes to end."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = os.geteuid() == 0
PATIENCE_S = 60
CHILD = """
import sys, time
from pathlib import Path
from gateway import embedded
with embedded.start_sync(Path(sys.argv[1]), say=lambda line: None, fsync=False) as servers:
    print(servers.pids["postgres"], servers.pids["valkey"], flush=True)
    time.sleep(600)
"""


def hush(_line: str) -> None:
    """Takes the progress lines."""


@contextlib.contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that also the user whom root runs the servers as can reach."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    if ROOT:
        folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet counts as ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        os.kill(pid, 0)
        return False
    return True


def await_end(*pids: int) -> None:
    """Fails when one of the processes is still there after a long while."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if not is_gone(pid)]}"
        time.sleep(0.02)


@contextlib.contextmanager
def child(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Another process, in a process group of its own, that runs servers on `data_dir`; and the servers' pids."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, data_dir],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            pids = [int(word) for word in process.stdout.readline().split()]
            assert len(pids) == 2
            yield process, pids
        finally:
            process.kill()
