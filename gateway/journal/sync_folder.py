"""The folder of a journal."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Makes the names of its files durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
