"""The file `env` of a data folder: what `up` exports, so that other commands find its gateway from another terminal."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

NAME: Final = "env"
HEAD: Final = """\
# Written by `gateway up` at each start, for the gateway's own commands in another terminal: source it there.
# Apps need only the base_url and the api_key that `up` prints.
# The keys of real vendors are not in here: export them yourself.
"""


def write(
    data_dir: Path,
    exported: Mapping[str, str],
    *,
    theirs: Mapping[str, str] | None = None,
    stale: Mapping[str, str] | None = None,
) -> Path:
    """Writes these variables, whole or not at all, for the owner only.

    `theirs`: what the user has set; `read` leaves it out, so that the next start still takes it from them.
    `stale`: what an earlier sandbox may have left in the shell; each is unset where it has this value.
    """
    path = data_dir / NAME
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(exported.items())]
    lines += [f"{name}={shlex.quote(value)}; export {name}\n" for name, value in sorted((theirs or {}).items())]
    lines += [
        f'[ "${{{name}-}}" != {shlex.quote(value)} ] || unset {name}\n' for name, value in sorted((stale or {}).items())
    ]
    fresh = path.with_name(f"{NAME}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.writelines([HEAD, *lines])
    fresh.replace(path)
    return path


def read(data_dir: Path) -> dict[str, str]:
    """What the last start has written; nothing before the first one."""
    path = data_dir / NAME
    if not path.exists():
        return {}
    words = shlex.split(path.read_text("utf-8"), comments=True)
    pairs = [word for before, word in pairwise(words) if before == "export" and "=" in word]
    return dict(pair.split("=", 1) for pair in pairs)


def without_file_values(environ: Mapping[str, str], written: Mapping[str, str]) -> dict[str, str]:
    """The environment without the values that came from the file, which describe a gateway that is gone."""
    return {name: value for name, value in environ.items() if written.get(name) != value}


def command() -> str:
    """How to call `gateway` from the current folder, to be pasted into a shell."""
    ours = Path(sys.executable).with_name("gateway")
    if not ours.exists():
        return f"{path_from_here(Path(sys.executable))} -m gateway"
    found = shutil.which("gateway")
    return "gateway" if found is not None and ours.samefile(found) else path_from_here(ours)


def path_from_here(path: Path) -> str:
    """Relative where it lies below the current folder, else absolute; quoted for a shell.

    Always with a slash: a shell looks for a bare name elsewhere.
    """
    here = Path.cwd()
    if not path.is_absolute():
        path = here / path
    if path.is_relative_to(here):
        relative = str(path.relative_to(here))
        return shlex.quote(relative if "/" in relative else f"./{relative}")
    return shlex.quote(str(path))
