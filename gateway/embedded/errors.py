"""What can go wrong with the embedded servers. The message is for the person at the terminal: what, and what to do."""

from pathlib import Path
from typing import Final


class EmbeddedError(Exception):
    """The servers cannot run; the message says why and how to fix it."""


class AlreadyRunning(EmbeddedError):
    """Another process of ours runs the servers of this data folder."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        by = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"The data folder {data_dir} is already in use by {by}. "
            "Stop that one first (Ctrl-C), or choose another folder with GATEWAY_DATA_DIR."
        )
        self.pid: Final = pid
