"""Recorded calls of the real OpenAI through a gateway of their own: `python -m tests.replay FOLDER [arguments]`.

FOLDER holds recordings and the harness that replays and judges them (`replay.py`; its README says how to read what it
prints). They are other people's and no part of this project. Here the harness gets ports and a place for its data.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support.servers import free_ports

TOP: Final = Path(__file__).parents[1]
PORTS: Final = 3
"""The gateway's, the recorded upstream's and the admin address's, one after the other."""


def replay(folder: Path, arguments: list[str]) -> int:
    """The harness's exit status: 0 when every recording came through right."""
    harness = folder.resolve() / "replay.py"
    if not harness.is_file():
        print(f"replay: recordings not found in {folder}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="replay-") as data:
        Path(data).chmod(0o711)  # as root, PostgreSQL runs as another user, who must be able to pass through
        command = [sys.executable, str(harness), "--repo", ".", "--port", str(free_ports(PORTS))]
        return subprocess.run([*command, "--data", f"{data}/gateway", *arguments], cwd=TOP, check=False).returncode


if __name__ == "__main__":
    sys.exit(replay(Path(sys.argv[1]), sys.argv[2:]))
