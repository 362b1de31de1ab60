"""Where signing secrets that Stripe has just made go: to the terminal, or to a file for its owner only."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.kit.errors import OptionError

NAME: Final = "STRIPE_WEBHOOK_SECRET"


@contextmanager
def secrets_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Makes the file first, so that no secret is made that cannot be kept; takes it away where none came.

    Raises OptionError when it is there already or cannot be made.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OptionError(f"--secrets-file: {path} cannot be made: {error.strerror}") from None
    kept: list[str] = []

    def keep(secret: str) -> None:
        kept.append(secret)
        # From the start each time: the line only grows, and is whole after each secret.
        os.pwrite(fd, f"{NAME}={','.join(kept)}\n".encode(), 0)
        os.fsync(fd)

    try:
        yield keep
    finally:
        os.close(fd)
        if not kept:
            path.unlink()
