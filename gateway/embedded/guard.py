"""Runs one server and stops it when the parent is gone. A script of its own: standard library only, imports nothing.

    python guard.py STOP_SIGNAL GRACE_S UID GID COMMAND…      (UID and GID: numbers, or -1 to stay who we are)

The parent holds the other end of our stdin; its end (or a TERM) means: stop the server. Should the guard itself be
killed, the kernel passes the stop signal on to the server (Linux). This is a process and not a preexec hook of the
parent because the kernel ties that last order to the *thread* that gave it, and only this process is sure to have
one thread. Writes the server's pid and a newline to stdout, exits with the server's status.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from types import FrameType
from typing import Final, NoReturn

PR_SET_PDEATHSIG: Final = 1
POLL_S: Final = 0.5
"""Seconds between two looks at the server and at the parent."""


class _Told(Exception):
    """TERM, INT or HUP arrived."""


def main(arguments: list[str]) -> int:
    """Runs the server until it ends or has to; returns its exit status."""
    stop_signal, grace_s, uid, gid = int(arguments[0]), float(arguments[1]), int(arguments[2]), int(arguments[3])
    parent, me = os.getppid(), os.getpid()
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def die_with_guard() -> None:
        # After the change of user: that change would clear it.
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)
            if os.getppid() != me:
                os._exit(1)

    server = subprocess.Popen(  # noqa: S603  (the command is our parent's)
        arguments[4:],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        preexec_fn=die_with_guard,  # safe: this process has one thread
        user=None if uid < 0 else uid,
        group=None if gid < 0 else gid,
        extra_groups=None if uid < 0 else (),
    )
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _read_report)
        os.write(1, b"%d\n" % server.pid)
        _watch(server, parent)
    except (_Told, OSError):
        pass  # either way: stop it
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        status = _stop(server, stop_signal, grace_s)
    return status if status >= 0 else 128 - status


def _watch(server: "subprocess.Popen[bytes]", parent: int) -> None:
    """Returns when the server has ended or the parent wants no more of it, or is gone."""
    while server.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], POLL_S)
        if readable and not os.read(0, 4096):
            return


def _stop(server: "subprocess.Popen[bytes]", stop_signal: int, grace_s: float) -> int:
    """Asks, then insists, then kills; returns the exit status."""
    for number, patience_s in ((stop_signal, grace_s), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None)):
        if server.poll() is None:
            server.send_signal(number)
        try:
            return server.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
    return 1


def _read_report(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
