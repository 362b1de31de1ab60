"""A child that says of itself what no child should, and then what one should. Run by test_children.py."""

import argparse
import os
import sys
import time

import msgspec

from gateway.kit.metrics import Sample, Status
from gateway.processes.supervisor import READY, STATUS_BYTES_MAX


def main() -> None:
    """Until its parent is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ready-fd", type=int, required=True)
    fd = parser.parse_args().ready_fd
    good = msgspec.json.encode(Status(None, None, (Sample("gateway_swept_total", (), 7),))) + b"\n"
    for line in (READY, b"{nonsense\n", b'{"samples": 7}\n', b"x" * (2 * STATUS_BYTES_MAX) + b"\n"):
        write_all(fd, line)
    while True:
        write_all(fd, good)
        time.sleep(0.05)


def write_all(fd: int, data: bytes) -> None:
    """All of it, or the end of this process when nobody reads any more."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BrokenPipeError:
            sys.exit()


if __name__ == "__main__":
    main()
