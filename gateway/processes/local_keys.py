"""The root key of the sandbox's Unkey in a data folder: random, for this user only. With a public one any user of this
machine could make keys for a gateway that calls a real OpenAI.
"""

import os
import secrets
from pathlib import Path
from typing import Final

NAME: Final = "unkey_root_key"
KEY_BYTES: Final = 24


def known_root_key(data_dir: Path) -> str | None:
    """The root key of this folder, if it has one."""
    path = data_dir / "sandbox" / NAME
    return path.read_text("ascii").strip() if path.exists() else None


def read_root_key(data_dir: Path) -> str:
    """The root key of this folder; it is made at the first start."""
    path = data_dir / "sandbox" / NAME
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        fresh = path.with_name(f"{NAME}.new")
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"unkey_sandbox_{secrets.token_urlsafe(KEY_BYTES)}\n")
        fresh.replace(path)
    return path.read_text("ascii").strip()
